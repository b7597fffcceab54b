"""The text of ``ssh/config`` and ``ssh/known_hosts``: pure functions of the lab's machines.

Both are for people too: ``ssh -F ~/.pvmlab/ssh/config web1`` goes in. Nothing of a person's own ssh settings is used,
and no host key is ever learned: the lab makes the host keys, so it knows them from the start.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

from contracts.machine import VmDefinition
from contracts.names import PROVISIONER_NAME

CONNECT_TIMEOUT = 20  # seconds; an emulated guest needs two for the key exchange, more while it boots


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProvisionerAccess:
    """How the provisioner is reached. :ivar port: of 127.0.0.1. :ivar public_host_key: one line."""

    port: int
    public_host_key: str


@dataclasses.dataclass(frozen=True)
class ForwardedAccess:
    """Host mode: there is no provisioner to log in to; a program gets connections into the private network.

    :ivar command: its words; host and port come after them. ssh gets the connection from it as a descriptor.
    """

    command: tuple[str, ...]


def render_config(
    folder: Path, provisioner: ProvisionerAccess | ForwardedAccess | None, machines: Sequence[VmDefinition]
) -> str:
    """Return the text of the configuration in *folder*: one ``Host`` block for each machine.

    Targets are reached through the provisioner. By ``ProxyCommand``, as ``ProxyJump`` would hand a relative
    ``-F`` to the second ssh as it stands.
    """
    blocks = ["# Written by pvmlab at every change of the lab's machines.\n"]
    way: dict[str, str] = {}
    if isinstance(provisioner, ForwardedAccess):
        words = shlex.join([*map(_percent, provisioner.command), "%h", "%p"])
        way = {"ProxyCommand": words, "ProxyUseFdpass": "yes"}
    elif provisioner is not None:
        blocks.append(_host(PROVISIONER_NAME, HostName="127.0.0.1", Port=str(provisioner.port), User="root"))
        jump = ["ssh", "-F", _percent(str(folder / "config")), "-W", "%h:%p", PROVISIONER_NAME]
        way = {"ProxyCommand": shlex.join(jump)}
    if way:
        blocks.extend(
            _host(machine.name, HostName=machine.ip, User=machine.user, **way)
            for machine in sorted(machines, key=lambda machine: machine.name)
        )
    blocks.append(
        "Host *\n"
        f"    IdentityFile {quote(folder / 'id_ed25519')}\n"
        f"    UserKnownHostsFile {quote(folder / 'known_hosts')}\n"
        "    GlobalKnownHostsFile /dev/null\n"
        "    IdentitiesOnly yes\n"
        "    IdentityAgent none\n"
        "    PreferredAuthentications publickey\n"
        "    StrictHostKeyChecking yes\n"
        "    UpdateHostKeys no\n"
        "    CheckHostIP no\n"
        "    BatchMode yes\n"
        f"    ConnectTimeout {CONNECT_TIMEOUT}\n"
        "    ServerAliveInterval 15\n"
        "    ServerAliveCountMax 4\n"
        "    LogLevel ERROR\n"
    )
    return "\n".join(blocks)


def render_known_hosts(
    provisioner: ProvisionerAccess | ForwardedAccess | None, machines: Sequence[VmDefinition]
) -> str:
    """Return the known hosts: each machine by its name, which is its ``HostKeyAlias``."""
    keys = {machine.name: machine.ssh_host_key.public for machine in machines}
    if isinstance(provisioner, ProvisionerAccess):
        keys[PROVISIONER_NAME] = provisioner.public_host_key
    return "".join(f"{name} {' '.join(key.split()[:2])}\n" for name, key in sorted(keys.items()))


def quote(path: Path) -> str:
    """Return *path* as one word of an ssh configuration (ssh_config(5): quotes, backslashes, percent tokens)."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_percent(text)}"'


def _host(name: str, **options: str) -> str:
    lines = [f"Host {name}", f"    HostKeyAlias {name}", *(f"    {key} {value}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def _percent(text: str) -> str:
    return text.replace("%", "%%")
