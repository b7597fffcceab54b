"""The ways of a whole lab: up, down, clean; and of one machine from its definition to a login."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from contracts.machine import VmDefinition
from contracts.names import PROVISIONER_NAME
from distros.registry import require_release
from lab import provisioner, ssh, target
from lab.bringup import (
    Artifacts,
    BringUp,
    ensure_artifacts,
    ensure_provisioner_runs,
    machine_names,
    stop_unused_network,
    stopped_if_interrupted,
    wait_for_provisioner,
)
from lab.cloud_machine import is_cloud
from lab.garbage import find_unknown
from lab.lab import Lab
from lab.machine import StopOutcome
from lab.machine_errors import raise_all
from lab.progress import Reporter
from lab.stopping import stop_together
from lab.store import DefinitionStore, MachineRequest, require_name
from lab.target import USUAL_START, BootFrom, StartOptions
from lab.wait import Deadline
from pipeline.errors import ConflictError, PvmlabError

__all__ = [
    "DEFAULT_DISTRO",
    "STOP_TIMEOUT",
    "clean",
    "down",
    "machine_names",
    "start",
    "start_provisioner",
    "stop_unused_network",
    "up",
]

DEFAULT_DISTRO = "debian-12"
Check = Callable[[VmDefinition], None]
"""Is shown a machine; what it raises keeps that from being started."""
STOP_TIMEOUT = 60.0  # seconds for a guest to shut down; emulated 10 are usual


def up(
    lab: Lab, *, name: str, distro: str | None, reporter: Reporter, artifacts: Artifacts, timeout: float | None = None,
    check: Check | None = None,
) -> None:  # fmt: skip
    """Bring the lab up: artifacts, provisioner and the target *name*, which is created if it is missing.

    On Ctrl-C the machines that this call started are stopped; the next ``up`` carries on.

    :param distro: what to install; None for the usual, or what the target is.
    :param timeout: seconds to wait for the target; None for plenty.
    :param check: is shown the target before anything is built, made or started for it, and again when all is built.
    :raises ConflictError: if another command is bringing the lab up or down, or the target is of another *distro*.
    """
    require_name(name)
    request = MachineRequest(name=name, distro=distro or DEFAULT_DISTRO)
    require_release(request.distro, request.arch)  # before anything is made
    with lab.changing_lab():
        store = DefinitionStore(lab)
        definition = store.load(name) if store.exists(name) else None
        if definition is not None and distro not in {None, definition.distro}:
            raise ConflictError(
                f"{name} is a {definition.distro} machine, not a {distro} one",
                resolution=f"choose another --name, or ./pvmlab vm.clean {name} first",
            )
        planned = definition or (target.plan(lab, request) if check is not None else None)
        asked = check if planned is not None and _is_told_anew(lab, planned, USUAL_START) else None
        with _checked(asked, planned):
            if definition is not None:
                ensure_artifacts(artifacts, definition)
            else:
                artifacts.ensure_for(request.distro, request.arch, request.installer)
        if definition is None:
            definition = target.create(lab, request)
            reporter.say(f"created {name}: {definition.distro}, {definition.ip}")
        BringUp(lab, definition, reporter, artifacts, timeout).run()


def start(
    lab: Lab,
    definition: VmDefinition,
    *,
    reporter: Reporter,
    artifacts: Artifacts,
    wait: bool,
    timeout: float | None = None,
    options: StartOptions = USUAL_START,
    check: Check | None = None,
) -> None:
    """Start a target, and the provisioner before it if that is off.

    :param wait: return when one can log in, not when its machine runs. :param options: what is other than usual.
    :param check: as for :func:`up`; not asked for a start that reads no documents.
    :raises ConflictError: if it runs already (without *wait*), or is not the lab's to run.
    :raises UsageError: if it cannot boot as *options* say.
    """
    target.require_managed(definition)  # before anything is built for it
    target.require_bootable(lab, definition, options)
    if not wait and lab.machine(definition.name).is_running():
        raise ConflictError(f"{definition.name} is already running", resolution=ssh.login_hint(definition.name))
    with _checked(check if _is_told_anew(lab, definition, options) else None, definition):
        ensure_artifacts(artifacts, definition)
    BringUp(lab, definition, reporter, artifacts, timeout, options=options).run(wait=wait)


def _is_told_anew(lab: Lab, definition: VmDefinition, options: StartOptions) -> bool:
    """Tell whether what people wrote for the target may count from this start on: a seed disc is written at each."""
    if is_cloud(definition):
        return not lab.machine(definition.name).is_running()
    return options.boot is not BootFrom.DISK


@contextlib.contextmanager
def _checked(check: Check | None, definition: VmDefinition | None) -> Iterator[None]:
    """Check before and after: what a document is checked by may be among the artifacts that are built meanwhile."""
    if check is not None and definition is not None:
        check(definition)
    yield
    if check is not None and definition is not None:
        check(definition)


def start_provisioner(lab: Lab, *, reporter: Reporter, artifacts: Artifacts) -> None:
    """Start the provisioner and return when its services answer; do nothing if they do."""
    artifacts.ensure_provisioner()
    accelerator = lab.accelerator(provisioner.ARCH)
    with stopped_if_interrupted(lab) as starting:
        deadline = Deadline(provisioner.BOOT * accelerator.patience)
        ensure_provisioner_runs(lab, accelerator, reporter=reporter, starting=starting)
        wait_for_provisioner(lab, reporter, deadline)


def down(lab: Lab, *, reporter: Reporter, timeout: float = STOP_TIMEOUT) -> dict[str, StopOutcome]:
    """Stop every machine of the lab, all at once, then its network; return what ended each that ran.

    :param timeout: seconds for the guests to shut down before they are ended by force.
    :raises PvmlabError: if some could not be stopped, after all others are; then the provisioner and the network stay.
    """
    with lab.changing_lab():
        return _stop_all(lab, reporter, timeout=timeout, force=False)


def clean(lab: Lab, *, reporter: Reporter, with_keys: bool) -> None:
    """End all machines of the lab and remove what is known of them. The cache is not touched.

    :param with_keys: also remove the keys and settings, that is, all that pvmlab made in the lab's home.
    """
    with lab.changing_lab():
        _stop_all(lab, reporter, timeout=0, force=True)
        for name in DefinitionStore(lab).names():
            target.clean(lab, name)
            reporter.say(f"removed {name}")
        provisioner.remove(lab)
        _remove_folders(lab.home.disks, lab.home.bases, lab.home.logs, lab.home.status, spared=find_unknown(lab.home))
        ssh.write_files(lab, None)
    if with_keys:
        spared = find_unknown(lab.home)
        _remove_folders(lab.home.vms, lab.home.config, lab.home.ssh, lab.home.run, spared=spared)
        for folder in (lab.home.templates, lab.home.root):
            with contextlib.suppress(OSError):  # something of a person's is in it, or it was never made
                folder.rmdir()


def _remove_folders(*folders: Path, spared: Collection[Path]) -> None:
    """Remove *folders* with all that is in them but what is *spared*."""
    for folder in folders:
        kept = [path for path in spared if path.parent == folder]
        for path in folder.iterdir() if kept else ():
            if path in kept:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not kept and folder.exists():
            shutil.rmtree(folder)


def _stop_all(lab: Lab, reporter: Reporter, *, timeout: float, force: bool) -> dict[str, StopOutcome]:
    errors: dict[str, PvmlabError] = {}
    targets = [name for name in machine_names(lab) if name != PROVISIONER_NAME]
    outcomes = stop_together(lab, targets, timeout=timeout, reporter=reporter, errors=errors, force=force)
    if not errors and lab.provisioner.is_running():  # last: the others may still ask it while they shut down
        outcomes[PROVISIONER_NAME] = provisioner.stop(lab)
    for name, outcome in outcomes.items():
        reporter.say(f"{name}: {outcome}")
    raise_all(errors, what="cannot be stopped")
    if not outcomes:
        reporter.say("no machine was running")
    lab.network.stop()
    return outcomes
