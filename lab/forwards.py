"""Forwarded ports of machines: which there are, and the process that keeps them open (:mod:`lab.forwarder`).

A forward is part of the machine's definition: it is there whenever the machine runs, until it is removed.
"""

from __future__ import annotations

import dataclasses

from contracts.machine import PortForward, PortProtocol, VmDefinition
from lab import addresses, forward_process
from lab.lab import Lab
from lab.provisioner_record import find_record
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError, UsageError


@dataclasses.dataclass(frozen=True)
class ForwardView:
    """How a forward stands. :ivar state: off (the machine is), waits (for its SSH; maybe why), or open."""

    host: int
    guest: int
    protocol: str
    state: str


def parse_forward(text: str) -> PortForward:
    """Return the forward that ``HOST:GUEST`` says, or ``PORT`` for the same on both sides.

    :raises UsageError: if it makes no sense.
    """
    host, _, guest = text.partition(":")
    numbers = [host, guest or host]
    if not all(number.isdecimal() and number.isascii() for number in numbers):
        raise UsageError(f"{text!r} is no forward", resolution="write it as HOST-PORT:MACHINE-PORT, such as 8080:80")
    try:
        return PortForward(host=int(numbers[0]), guest=int(numbers[1]))
    except ValueError as error:
        raise UsageError(f"{text!r} is no forward: {error}") from None


def add(lab: Lab, name: str, *wanted: PortForward) -> None:
    """Forward ports of 127.0.0.1 to the machine *name*, from now on if it runs: all, or none if one cannot be.

    Those that are forwarded so already are fine.

    :raises ConflictError: if another machine has the port of this host, or another program.
    :raises UsageError: if an ordinary user may not listen on it. :raises NotFoundError: if there is no such machine.
    """
    with lab.changing_definitions():
        store = DefinitionStore(lab)
        definition = store.load(name)
        for forward in wanted:
            if forward not in definition.forwards:
                _require_free(lab, store, definition, forward)
                definition = dataclasses.replace(definition, forwards=(*definition.forwards, forward))
        store.rewrite(definition)
    ensure(lab, store.load(name))


def remove(lab: Lab, name: str, port: int) -> None:
    """Forward the port *port* of this host no longer. :raises NotFoundError: if it was not."""
    with lab.changing_definitions():
        store = DefinitionStore(lab)
        definition = store.load(name)
        left = tuple(forward for forward in definition.forwards if forward.host != port)
        if left == definition.forwards:
            raise NotFoundError(
                f"port {port} of this host does not lead to {name}", resolution=f"./pvmlab vm.forward {name} lists them"
            )
        store.rewrite(dataclasses.replace(definition, forwards=left))


def ensure(lab: Lab, definition: VmDefinition) -> None:
    """Have the forwarder of a machine run, if the machine does and has forwards. Twice at once is fine."""
    if definition.forwards and lab.machine(definition.name).process() is not None:
        forward_process.ensure_started(lab.home, definition.name, cache=lab.cache.root)


def view(lab: Lab, definition: VmDefinition) -> list[ForwardView]:
    """Return how the machine's forwards stand."""
    is_off = lab.machine(definition.name).process() is None
    states = forward_process.read_states(lab.home, definition.name)
    return [
        ForwardView(
            each.host, each.guest, each.protocol.value, "off" if is_off else states.get(str(each.host), "waits")
        )
        for each in definition.forwards
    ]


def _require_free(lab: Lab, store: DefinitionStore, definition: VmDefinition, forward: PortForward) -> None:
    if forward.protocol is not PortProtocol.TCP:
        raise UsageError("only TCP can be forwarded: it goes through SSH")
    if forward.host < 1024:
        raise UsageError(
            f"port {forward.host} of this host is for its administrator", resolution="choose one from 1024 to 65535"
        )
    provisioner = find_record(lab.home)
    if provisioner is not None and provisioner.ssh_port == forward.host:
        raise ConflictError(
            f"port {forward.host} of this host leads to the provisioner's SSH", resolution="choose another one"
        )
    for other in [definition, *store.load_good()]:  # what a broken one has open is found below
        for taken in other.forwards:
            if taken.host == forward.host:
                raise ConflictError(
                    f"port {forward.host} of this host leads to port {taken.guest} of {other.name} already",
                    resolution=f"choose another one, or ./pvmlab vm.forward {other.name} --remove {forward.host}",
                )
    if not addresses.is_free(forward.host):
        raise ConflictError(
            f"port {forward.host} of {addresses.LOOPBACK} is taken by another program",
            details=f"{definition.name} would be reached there",
            resolution=f"choose another one; ss -ltnp 'sport = :{forward.host}' shows which program it is",
        )
