"""Getting into the lab's machines by SSH, always with the lab's own configuration and checked host keys."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from contracts.names import PROVISIONER_NAME
from lab.host_services import HostServices
from lab.keys import KeyPair, ensure_key_pair
from lab.lab import Lab
from lab.provisioner_record import ProvisionerMode
from lab.ssh_config import ForwardedAccess, ProvisionerAccess, render_config, render_known_hosts
from lab.store import BrokenDefinitionError, DefinitionStore
from pipeline import commit
from pipeline.run import Completed, attach, run

CONNECT_LIMIT = 60.0  # seconds for getting in through the provisioner and out again
FAILED = 255  # the exit status of an ssh that did not get in (ssh(1)); a command's own may be the same


def lab_key(lab: Lab) -> KeyPair:
    """Return the key that opens every machine of the lab; make it if there is none.

    :raises ConflictError: if there is a file in its place that is no key.
    """
    return ensure_key_pair(lab.home.ssh / "id_ed25519", comment="pvmlab")


def config_path(lab: Lab) -> Path:
    """Return where the lab's ssh configuration is."""
    return lab.home.ssh / "config"


def write_files(lab: Lab, provisioner: ProvisionerAccess | ForwardedAccess | None) -> None:
    """Write the lab's ssh configuration and known hosts. Machines with a broken definition are left out.

    :param provisioner: how it, or in host mode the network, is reached; None as long as it was never started.
    """
    store, machines = DefinitionStore(lab), []
    for name in store.names():
        try:
            machines.append(store.load(name))
        except BrokenDefinitionError:
            continue
    folder = lab.home.ssh
    for path, text in (
        (folder / "known_hosts", render_known_hosts(provisioner, machines)),
        (folder / "config", render_config(folder, provisioner, machines)),
    ):
        if not path.exists() or path.read_text() != text:
            commit.publish_text(path, text, mode=0o600)


def ssh_arguments(config: Path, name: str, command: str | None, *, options: Sequence[str] = ()) -> list[str]:
    """Return the argument list of ssh to the machine *name*.

    :param command: for the far shell; None for a login. :param options: words before the machine's name.
    """
    return ["ssh", "-F", str(config), *options, "--", name, *([command] if command is not None else [])]


def run_on(
    lab: Lab, name: str, argv: Sequence[str], *, timeout: float, check: bool = True,
    watch: Callable[[], None] | None = None,
) -> Completed:  # fmt: skip
    """Run *argv* on the machine *name*: exactly these words, whatever characters they hold.

    :param timeout: seconds. :param check: raise if the exit status is not 0. :param watch: see :func:`run`.
    :raises CommandError: if it fails (with *check*), if ssh does not get in, or out of time.
    """
    return run(way_in(lab, name, shlex.join(argv)), timeout=timeout, check=check, watch=watch)


def shell(lab: Lab, name: str, command: str | None) -> int:
    """Log in to the machine *name* on our terminal, or run *command* there; return the exit status.

    Standard input, output and error are ours. The far side gets a terminal for a login only.

    :param command: a command line for the far shell.
    """
    return attach(way_in(lab, name, command, options=["-T"] if command is not None else []))


def way_in(lab: Lab, name: str, command: str | None, *, options: Sequence[str] = ()) -> list[str]:
    """Return the words that run *command* on the machine *name*: by ssh, or where the services of host mode are.

    :raises ConflictError: if those do not run.
    """
    if is_provisioner(name) and lab.provisioner_mode is ProvisionerMode.HOST:
        return HostServices(home=lab.home).enter_arguments(command)
    return ssh_arguments(config_path(lab), name, command, options=options)


def login_hint(name: str) -> str:
    """Return what a person types to get into the machine *name*."""
    return f"./pvmlab vm.shell {name}"


def is_provisioner(name: str) -> bool:
    """Tell whether *name* is the provisioner's."""
    return name == PROVISIONER_NAME
