"""What the verbs do that one lives with machines by: restart, show, run, copy, console, screenshot, forward."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cli import portrait_view
from cli.builds import DoitArtifacts
from cli.machine_verbs import require_our_machine, start
from cli.output import FORMATS, emit, say
from cli.start_checks import require_documents
from contracts.document import encode
from contracts.names import PROVISIONER_NAME
from lab import console, copying, fan_out, forwards, journey, portrait, provisioner, screenshots
from lab.fan_out import Outcome, Output
from lab.lab import Lab
from lab.progress import open_reporter
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore
from pipeline.errors import CommandError, ConflictError, UsageError


def restart(name: str, *, force: bool, wait: bool, stop_timeout: float, timeout: float | None) -> None:
    """Stop a target or the provisioner, as gently as it lets us, and start it; one that is off is just started.

    :param stop_timeout: seconds for its system to shut down. :param timeout: seconds to wait for it afterwards.
    :raises NotFoundError: if there is none of that name. :raises PvmlabError: if it does not come up.
    """
    lab = Lab.from_environment()
    machine = require_our_machine(lab, name)
    if name == PROVISIONER_NAME:
        say(f"{name}: {provisioner.stop(lab)}")
        with open_reporter() as reporter:
            journey.start_provisioner(lab, reporter=reporter, artifacts=DoitArtifacts())
        return
    require_documents(lab, DefinitionStore(lab).load(name))  # while it still runs
    say(f"{name}: {machine.stop(timeout=stop_timeout, force=force)}")
    start(name, wait=wait, timeout=timeout)


def show(name: str, *, output: str) -> None:
    """Print all about a target.

    :raises NotFoundError: if there is none of that name. :raises UsageError: for the provisioner.
    """
    if name == PROVISIONER_NAME:
        raise UsageError(
            "the provisioner is no target machine", resolution="./pvmlab status, and ./pvmlab provisioner.docker.status"
        )
    seen = portrait.portray(Lab.from_environment(), name)
    emit(encode(seen), output=output, table=portrait_view.render(seen, now=time.time()))


def run_on_machines(
    names: Sequence[str], command: str, *, everyone: bool, labels: Sequence[str], timeout: float, jobs: int, output: str
) -> bool:
    """Run a command line on several machines; return whether it ended well on all of them.

    :raises UsageError: if there is no command, or nothing was chosen. :raises NotFoundError: for an unknown name.
    """
    if output not in FORMATS:
        raise UsageError(f"--output {output!r} is unknown", resolution=f"use one of: {', '.join(FORMATS)}")
    if not command:
        raise UsageError("which command?", resolution="write it at the end, after --: vm.run --all -- uptime")
    if jobs < 1 or timeout < 1:
        raise UsageError("--jobs and --timeout are 1 or more")
    lab = Lab.from_environment()
    chosen = fan_out.choose_machines(lab, names, everyone=everyone, labels=labels)
    width = max(map(len, chosen))

    def tell(name: str, line: str, stream: Output) -> None:
        target = sys.stdout if stream is Output.STDOUT else sys.stderr
        target.write(f"{name:{width}} | {line}\n")
        target.flush()

    silent = output == "json"
    outcomes = fan_out.run_on_all(
        lab, chosen, command, timeout=timeout, jobs=jobs, tell=(lambda *_: None) if silent else tell
    )
    if silent:
        emit({"command": command, "machines": encode(outcomes)}, output=output, table=[])
    else:
        _tell_failures(outcomes)
    return all(outcome.succeeded for outcome in outcomes)


def copy(source: str, destination: str, *, recursive: bool) -> None:
    """Copy to or from a machine. :raises CommandError: if scp fails; it has said why."""
    status = copying.copy(Lab.from_environment(), source, destination, recursive=recursive)
    if status != 0:
        raise CommandError(
            ["scp", source, destination], returncode=status, tail=(), log=None, how=f"failed with exit status {status}"
        )


def sit_at_console(name: str) -> None:
    """Connect the terminal to a machine's console until the person leaves.

    :raises ConflictError: if it is off or has none, or somebody else sits there.
    """
    lab = Lab.from_environment()
    machine = require_our_machine(lab, name)
    _require_in_machine(lab, name)
    terminal = console.Terminal(keyboard=0, screen=1)
    how = console.sit_at(machine, terminal, run_folder=lab.home.run)
    say(f"{name}: {how}")


def start_interactively(name: str, *, boot: str, reboots: bool, wait: bool, timeout: float | None) -> None:
    """Start a target, then sit at its console.

    :param timeout: seconds, as for :func:`cli.machine_verbs.start`.
    :raises UsageError: without a terminal, or if it is to be waited for too; then nothing was started.
    """
    if wait:
        raise UsageError("--wait and --interactive are two ways to wait", resolution="use one of them")
    console.Terminal(keyboard=0, screen=1).require()
    start(name, wait=False, timeout=timeout, boot=boot, reboots=reboots)
    sit_at_console(name)


def take_screenshot(name: str, *, file: str, output: str) -> None:
    """Write a PNG of a machine's screen. :raises ConflictError: if it is off or has no screen."""
    lab = Lab.from_environment()
    machine = require_our_machine(lab, name)
    _require_in_machine(lab, name)
    path = Path(os.path.expanduser(file or f"{name}.png"))  # noqa: PTH111 (which leaves an unknown ~user as it is)
    width, height = screenshots.take_screenshot(machine, path)
    emit(
        {"name": name, "path": str(path.absolute()), "width": width, "height": height},
        output=output,
        table=[("MACHINE", "PICTURE", "PIXELS"), (name, str(path), f"{width}x{height}")],
    )


def forward(name: str, ports: Sequence[str], *, remove: int, output: str) -> None:
    """Add and remove forwarded ports, then list them.

    :param remove: a port of this host; 0 for none. :raises UsageError: if one makes no sense.
    """
    wanted = [forwards.parse_forward(text) for text in ports]
    lab = Lab.from_environment()
    store = DefinitionStore(lab)
    store.load(name)
    if remove:
        forwards.remove(lab, name, remove)
    if wanted:
        forwards.add(lab, name, *wanted)
    views = forwards.view(lab, store.load(name))
    rows = [(f"127.0.0.1:{each.host}", str(each.guest), each.state) for each in views]
    emit({"name": name, "forwards": encode(views)}, output=output, table=[("THIS HOST", name.upper(), "STATE"), *rows])


def _require_in_machine(lab: Lab, name: str) -> None:
    """Check that *name* is not the provisioner in host mode. :raises ConflictError: if it is."""
    if name == PROVISIONER_NAME and lab.provisioner_mode is ProvisionerMode.HOST:
        raise ConflictError(
            "the provisioner of this lab is no machine: its services run on this host (host mode)",
            resolution=f"./pvmlab vm.shell {name} goes in, ./pvmlab vm.logs {name} --follow shows what they say",
        )


def _tell_failures(outcomes: Sequence[Outcome]) -> None:
    failed = [outcome for outcome in outcomes if not outcome.succeeded]
    for outcome in failed:
        why = outcome.fault.removeprefix(f"{outcome.name} ") or f"exit status {outcome.exit_status}"
        say(f"{outcome.name}: {why}")
    say(f"{len(outcomes) - len(failed)} of {len(outcomes)} machines succeeded")
