"""What ``vm.events``, ``vm.reinstall`` and ``vm.adopt`` do: what was seen of machines, and what they boot next."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Sequence

from cli.output import FORMATS, SCHEMA, emit, say, until_interrupted
from cli.start_checks import require_documents
from contracts.arch import Arch
from contracts.document import encode
from contracts.lan import DhcpMode
from contracts.machine import VmDefinition
from contracts.names import normalize_mac
from contracts.orders import OrderKind
from contracts.report import InstallState
from contracts.timeline import Event, Stranger
from lab import orders, target
from lab.cloud_machine import is_cloud
from lab.diagnosis import diagnose
from lab.events import follow_events, read_events, read_strangers
from lab.lab import Lab
from lab.status import SILENCE
from lab.store import BrokenDefinitionError, DefinitionStore, MachineRequest
from pipeline.errors import NotFoundError, UsageError

_HEADINGS = ("TIME", "SOURCE", "WHAT")


def show_events(name: str, *, follow: bool, output: str) -> None:
    """Print the timeline of a machine, or of a MAC address that the lab does not know.

    :param output: ``table`` or ``json``; with *follow*, lines or one JSON object a line, until Ctrl-C.
    :raises NotFoundError: if there is no such machine. :raises UsageError: for an unknown *output*.
    """
    if output not in FORMATS:
        raise UsageError(f"--output {output!r} is unknown", resolution=f"use one of: {', '.join(FORMATS)}")
    lab = Lab.from_environment()
    if (stranger := _find_stranger(lab, name)) is not None:
        _print_events(stranger.mac, stranger.events, "", output=output)
        return
    definition = _find_by_mac(lab, name) or DefinitionStore(lab).load(name)
    if follow:
        with until_interrupted():
            for event in follow_events(lab, definition):
                line = json.dumps(_plain(event), ensure_ascii=False) if output == "json" else "  ".join(_row(event))
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()
    status = target.read_status(lab, definition)
    events = read_events(lab, definition, status)
    _print_events(definition.name, events, _diagnosis(lab, definition, events), output=output)


def reinstall(name: str, *, rescue: bool, withdraw: bool) -> None:
    """Order one more install of a machine, or a rescue shell; carried out once, at its next network boot.

    :param rescue: boot the installer's shell instead, and leave the disk alone. :param withdraw: take an order back.
    :raises NotFoundError: if there is no such machine. :raises UsageError: if the words contradict each other.
    """
    if rescue and withdraw:
        raise UsageError("--withdraw takes back any order; it goes alone")
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    if withdraw:
        there = orders.find_due(lab, definition, target.read_status(lab, definition))
        orders.withdraw(lab, name)
        say(f"{name}: the {there.kind} is no longer ordered" if there else f"{name}: nothing was ordered")
        return
    from_image = is_cloud(definition)
    if rescue and from_image:
        raise UsageError(
            f"{name} comes from a cloud image: it does not boot from the network, where the rescue shell is"
        )
    kind = OrderKind.RESCUE if rescue else OrderKind.REINSTALL
    orders.give(lab, definition, kind)
    what = "boots a rescue shell, once," if rescue else "is installed once more, and what is on its disk is lost,"
    what = "is made anew from its image, and what is on its disk is lost," if from_image else what
    running = definition.managed and lab.machine(name).is_running()
    how = f"./pvmlab vm.stop {name}, then ./pvmlab vm.start {name} --wait" if running else _start_hint(definition)
    say(f"{name} {what} at its next {'start' if from_image else 'network boot'}: {how}")
    say(f"./pvmlab vm.reinstall {name} --withdraw takes that back")


def adopt(macs: Sequence[str], *, name: str, distro: str, arch: str, ip: str, output: str = "table") -> None:
    """Make a machine that asked the network to boot one of the lab's; without *macs*, list those that did.

    :param macs: at most one.
    :param output: of the list: ``table`` or ``json``.
    :raises NotFoundError: for an unknown distribution. :raises ConflictError: if the name or an address is taken.
    :raises UsageError: if words are missing or make no sense.
    """
    lab = Lab.from_environment()
    if not macs:
        list_strangers(lab, output=output)
        return
    if len(macs) > 1:
        raise UsageError("vm.adopt takes one MAC address at a time")
    mac = macs[0]
    if not name:
        raise UsageError("an adopted machine needs a name", resolution=f"./pvmlab vm.adopt {mac} --name=NAME")
    if arch not in set(Arch):
        raise UsageError(f"--arch {arch!r} is unknown", resolution=f"use one of: {', '.join(Arch)}")
    known = _find_stranger(lab, mac)
    if known is not None and not ip and lab.lan.dhcp is DhcpMode.PROXY:
        ip = known.address  # as the other DHCP server has it
    request = MachineRequest(name=name, distro=distro, arch=Arch(arch), mac=mac, ip=ip or None)
    definition = target.create(
        lab, request, managed=False, check=lambda planned: require_documents(lab, planned, request=request)
    )  # fmt: skip
    if known is None:
        say(f"{definition.mac} was not seen on the lab's network so far")
    say(
        f"adopted {name}: {definition.distro}, {definition.ip}, {definition.mac}; it is installed at its next network "
        "boot, and what is on its disk is lost; one that shows the menu goes on by itself"
    )


def list_strangers(lab: Lab, *, output: str) -> None:
    """Print the unknown machines that were seen. :raises UsageError: for an unknown *output*."""
    seen = read_strangers(lab)
    rows = [(each.mac, each.address or "none", _when(each.last), _last(each)) for each in seen]
    emit({"strangers": encode(seen)}, output=output, table=[("MAC", "ADDRESS", "SEEN LAST", "WHAT"), *rows])
    if not seen:
        say("no unknown machine was seen on the lab's network")


def _find_stranger(lab: Lab, text: str) -> Stranger | None:
    try:
        mac = normalize_mac(text)
    except ValueError:
        return None
    return next((each for each in read_strangers(lab) if each.mac == mac), None)


def _find_by_mac(lab: Lab, text: str) -> VmDefinition | None:
    """Return the machine with the MAC address *text*; None if that is no MAC address.

    :raises NotFoundError: if no machine has it.
    """
    try:
        mac = normalize_mac(text)
    except ValueError:
        return None
    store = DefinitionStore(lab)
    for name in store.names():
        with contextlib.suppress(BrokenDefinitionError):  # another machine's, as far as can be told
            definition = store.load(name)
            if mac in {card.mac for card in definition.cards}:
                return definition
    raise NotFoundError(
        f"no machine of the lab has the MAC address {mac}, and an unknown one with it was not seen",
        resolution="./pvmlab vm.adopt lists the unknown machines that were seen",
    )


def _diagnosis(lab: Lab, definition: VmDefinition, events: Sequence[Event]) -> str:
    """Return why the machine does not go on, or nothing if it does, or is where it belongs."""
    status, now = target.read_status(lab, definition), time.time()
    last = max((event.latest for event in events), default=0.0)
    if status.state is InstallState.INSTALLED or is_cloud(definition) or now - max(last, status.updated) < SILENCE:
        return ""
    if not events and definition.managed and not lab.machine(definition.name).is_running():
        return f"{definition.name} is off: {_start_hint(definition)}"
    console = lab.machine(definition.name).serial_tail(200) if definition.managed else []
    return diagnose(status, events, now=now, console=console)


def _print_events(name: str, events: Iterable[Event], diagnosis: str, *, output: str) -> None:
    listed = list(events)
    data = {"name": name, "events": list(map(_plain, listed)), "diagnosis": diagnosis}
    emit(data, output=output, table=[_HEADINGS, *map(_row, listed)])
    if diagnosis and output == "table":
        say(diagnosis)


def _plain(event: Event) -> dict[str, object]:
    return {"schema": SCHEMA, **encode(event), "source": event.kind.source.value, "last": event.latest}


def _row(event: Event) -> tuple[str, str, str]:
    repeats = f" ({event.count} times until {_when(event.latest)})" if event.count > 1 else ""
    return _when(event.time), event.kind.source.value, event.text + repeats


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _last(stranger: Stranger) -> str:
    return stranger.events[-1].text if stranger.events else ""


def _start_hint(definition: VmDefinition) -> str:
    return f"./pvmlab vm.start {definition.name} --wait" if definition.managed else "switch it on, or restart it"
