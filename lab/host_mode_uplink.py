"""Joins the lab's network in host mode with an interface of this host, so that machines of a real LAN are served.

The interface is a bridge, which gets one more port for as long as the services run; or a card that this host does not
use itself, which is given to the services' network and comes back, off, when they end. Root only: it is the host's
network that is changed. In there, ``lan0`` is a bridge then (:func:`lab.host_mode_inside.network_commands`).
"""

from __future__ import annotations

import json
import os
import re
import secrets
from typing import Any

from pipeline.errors import ConflictError, NotFoundError, PrerequisiteError, PvmlabError, UsageError
from pipeline.run import run

NO_INTERFACE = "none"
LAN_CARD, RELAY_CARD = "lan0", "relay0"
PORT_CARD = "port0"  # the other end of the relay's card, where lan0 is a bridge
UPLINK_CARD = "uplink0"
_BRIDGE = "bridge"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")  # IFNAMSIZ less one; narrower than the kernel's
_TIMEOUT = 20.0  # seconds; ip takes milliseconds


def require_interface(name: str) -> None:
    """Check that the lab's network can be joined with the interface *name* of this host.

    :raises UsageError: if that cannot be an interface's name. :raises PrerequisiteError: if we are not root.
    :raises NotFoundError: if there is none. :raises ConflictError: if this host uses it.
    """
    _find_kind(name)


def plug_in(name: str, inner: int) -> None:
    """Join the interface *name* with ``lan0`` in the network of the process *inner*.

    :raises PvmlabError: as :func:`require_interface` does, or if the kernel refuses; then nothing is left behind.
    """
    port = name
    if _find_kind(name) == _BRIDGE:
        tail = secrets.token_hex(3)
        outer, port = f"pvmlab-{tail}", UPLINK_CARD
        # A bridge without an address of its own takes the lowest of its ports', and this host's must not change.
        mac = f"fe:54:00:{tail[:2]}:{tail[2:4]}:{tail[4:]}"
        commands = [
            f"link add {outer} address {mac} type veth peer name {port} netns {inner}",
            f"link set {outer} addrgenmode none master {name} up",
        ]
    else:
        commands = [f"link set {name} netns {inner}"]
    try:
        _ip(commands)
        _ip([f"link set {port} addrgenmode none", f"link set {port} master {LAN_CARD} up"], inner)
    except PvmlabError as error:
        raise PvmlabError(
            f"the lab's network cannot be joined with {name}",
            details=error.details or error.brief,
            resolution="./pvmlab provisioner.create --interface=none leaves it out",
        ) from None


def _find_kind(name: str) -> str:
    """Return what the interface *name* is, in the words of ``ip``: ``bridge``, nothing for a card.

    :raises PvmlabError: as :func:`require_interface` does.
    """
    if not _NAME.match(name) or name in {"lo", LAN_CARD, RELAY_CARD, PORT_CARD, UPLINK_CARD}:
        raise UsageError(f"--interface={name} cannot be joined with the lab", resolution="ip -br link lists what can")
    if os.geteuid() != 0:
        raise PrerequisiteError(
            "only root may join an interface of this host with the lab",
            resolution="run pvmlab as root, or leave --interface out",
        )
    done = run(["ip", "-json", "-details", "address", "show", "dev", name], timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        raise NotFoundError(
            f"this host has no interface {name}", details=done.stderr.strip(), resolution="ip -br link lists them"
        )
    (found,) = json.loads(done.stdout)
    kind = str(found.get("linkinfo", {}).get("info_kind", ""))
    if kind != _BRIDGE:
        _require_unused(name, found)
    return kind


def _require_unused(name: str, found: dict[str, Any]) -> None:
    """Check that nobody on this host would miss a card. :raises ConflictError: if somebody would."""
    if "master" in found:
        raise ConflictError(
            f"{name} belongs to {found['master']} on this host", resolution=f"name {found['master']} if it is a bridge"
        )
    own = [entry["local"] for entry in found["addr_info"] if entry["scope"] != "link"]
    if own:
        raise ConflictError(
            f"{name} is used by this host, which would lose it",
            details=f"it has the address {', '.join(own)}",
            resolution=f"make a bridge that {name} is a port of and that has its addresses, and name that",
        )


def _ip(commands: list[str], inner: int | None = None) -> None:
    """Have ``ip`` do *commands*, all or up to the first that fails, in the network of the process *inner*."""
    there = ["nsenter", f"--target={inner}", "--net", "--"] if inner is not None else []
    run([*there, "ip", "-batch", "-"], timeout=_TIMEOUT, input="\n".join(commands) + "\n")
