"""Why a boot does not go on, in words: what was seen, what is missing, what to check. Pure functions of the timeline.

A network boot is a chain: DHCP and TFTP for the firmware, DHCP and HTTP for iPXE, the boot script, the files it names,
DHCP for the installer, its configuration, its reports. Each link was seen by the services or was not; the first one
that was not is where to look. Who asks by DHCP is not in what dnsmasq logs; what came before tells it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

from contracts.report import InstallState, MachineStatus, Phase
from contracts.timeline import Event, EventKind

_SAME_BOOT = 900.0  # seconds: what was seen longer before the last sign of life is of an earlier boot
_DHCP = {EventKind.DISCOVER, EventKind.OFFER, EventKind.REQUEST, EventKind.ACK, EventKind.NAK, EventKind.PROXY}
_SCRIPTS = {EventKind.INSTALL_SCRIPT, EventKind.DISK_SCRIPT, EventKind.RESCUE_SCRIPT}
_ENDS = {EventKind.DISK_SCRIPT, EventKind.DONE}  # what asks next by DHCP is an installed system or a new boot


class Stage(enum.IntEnum):
    """How far a boot got, by what it asked for last. Higher is further."""

    FIRMWARE = 0  # nothing but DHCP
    PROGRAM = 1  # it has iPXE, by TFTP or HTTP
    CHAIN = 2  # iPXE has asked what to ask
    SCRIPT = 3  # it has its boot script
    FILES = 4  # it has fetched what the script names, as far as can be told
    INSTALLER = 5  # the installer has its configuration
    PHASES = 6  # the installer reports


@dataclasses.dataclass(frozen=True)
class Trail:
    """What the events of one boot come to.

    :ivar dhcp: the last event of DHCP since the stage began, or None. :ivar files: fetched since the script.
    :ivar trouble: the last event that says of a failure, if nothing came after it. :ivar last: the last event of all.
    """

    stage: Stage
    last: Event | None = None
    dhcp: Event | None = None
    script: Event | None = None
    files: tuple[str, ...] = ()
    trouble: Event | None = None


_TROUBLE = {EventKind.TFTP_FAILED, EventKind.FILE_FAILED, EventKind.FOREIGN, EventKind.REFUSED, EventKind.DENIED,
            EventKind.NAK, EventKind.MENU}  # fmt: skip
_STAGES = {
    EventKind.TFTP_SENT: Stage.PROGRAM,
    EventKind.CHAIN: Stage.CHAIN,
    EventKind.INSTALL_SCRIPT: Stage.SCRIPT,
    EventKind.DISK_SCRIPT: Stage.SCRIPT,
    EventKind.RESCUE_SCRIPT: Stage.SCRIPT,
    EventKind.DOCUMENT: Stage.INSTALLER,
    EventKind.PHASE: Stage.PHASES,
}


def follow_trail(events: Iterable[Event]) -> Trail:
    """Return what *events*, in any order, come to: the trail of the machine's last boot."""
    ordered = sorted(events, key=lambda event: event.latest)
    trail = Trail(Stage.FIRMWARE)
    for event in ordered:
        gap = trail.last is not None and event.latest - trail.last.latest > _SAME_BOOT
        if gap or (trail.last is not None and trail.last.kind in _ENDS and event.kind in _DHCP):
            trail = Trail(Stage.FIRMWARE)
        trail = _step(trail, event)
    return trail


def _step(trail: Trail, event: Event) -> Trail:
    trouble = event if event.kind in _TROUBLE else None
    if event.kind in _DHCP or event.kind is EventKind.DHCP_OTHER:
        dhcp = event if event.kind in _DHCP else trail.dhcp
        answered = event.kind is EventKind.ACK and trail.trouble is not None and trail.trouble.kind is EventKind.NAK
        return dataclasses.replace(trail, last=event, dhcp=dhcp, trouble=None if answered else trouble or trail.trouble)
    if event.kind is EventKind.FILE:
        name = event.text.partition(" ")[0]
        if name.endswith((".efi", ".kpxe")):  # the boot program itself, by HTTP
            return Trail(Stage.PROGRAM, last=event)
        reached = Stage.FILES if trail.stage is Stage.SCRIPT else trail.stage
        files = (*trail.files, name)
        return dataclasses.replace(trail, stage=reached, last=event, dhcp=None, files=files, trouble=None)
    stage = _STAGES.get(event.kind)
    if stage is None:
        return dataclasses.replace(trail, last=event, trouble=trouble or trail.trouble)
    script = event if event.kind in _SCRIPTS else (trail.script if stage > Stage.SCRIPT else None)
    return Trail(stage, last=event, script=script, files=trail.files if stage > Stage.SCRIPT else ())


def diagnose(status: MachineStatus, events: Sequence[Event], *, now: float, console: Sequence[str] = ()) -> str:
    """Return one or two sentences: why the machine does not move on.

    :param events: its timeline. :param now: seconds since the epoch, by the clock that *events* go by.
    :param console: the last lines of its console, for what comes before anything is asked of the network.
    """
    name, trail = status.name, follow_trail(events)
    if trail.last is None:
        return _from_console(status, console)
    if trail.trouble is not None:
        return _trouble(name, trail.trouble, _ago(trail.trouble, now))
    if status.state is InstallState.INSTALLING and trail.stage >= Stage.INSTALLER:
        silent = _seconds(now - max(status.updated, trail.last.latest))
        return f"the installer of {name} fell silent in {where(status)}, {silent} ago: its console says what it is at"
    return _missing(name, trail, trail.last, _ago(trail.last, now))


def _missing(name: str, trail: Trail, last: Event, ago: str) -> str:
    match trail.stage:
        case Stage.FIRMWARE:
            said = _firmware(name, trail.dhcp or last, ago)
        case Stage.PROGRAM:
            said = _program(name, trail, last, ago)
        case Stage.CHAIN:
            said = (
                f"{name}'s iPXE fetched boot.ipxe {ago} ago and never asked for its boot script: /ipxe?mac= does not "
                "reach the boot handler; check ./pvmlab status"
            )
        case Stage.SCRIPT | Stage.FILES:
            said = _script(name, trail, ago)
        case _:
            said = (
                f"{name} fetched its configuration {ago} ago and its installer has not reported since: its console "
                "says what it is at"
            )
    return said


def where(status: MachineStatus) -> str:
    """Return in words how far an install is."""
    if status.phase is None:
        return status.state.value
    return f"phase {status.phase.number} of {len(Phase)}, {status.phase}, at {status.percent} %"


def _from_console(status: MachineStatus, console: Sequence[str]) -> str:
    """Say what can be said without any event: the services saw nothing of it, or their events got lost."""
    name, text = status.name, "\n".join(console)
    if status.state is InstallState.BOOTING:
        return f"{name} fetched its boot script, and its installer has not reported since"
    if status.state is InstallState.INSTALLING:
        return f"the installer of {name} fell silent in {where(status)}"
    if "iPXE" in text:
        return f"{name} runs iPXE, and has not fetched a boot script: HTTP to the provisioner does not work"
    if "Start PXE" in text or "Start HTTP Boot" in text:
        return (
            f"{name} asked the network to boot, and the provisioner saw nothing of it: no DHCP request from its MAC "
            "address; check that both are on the lab's network, and that dnsmasq runs (./pvmlab status)"
        )
    return f"{name} never asked the network to boot: its firmware did not get as far as PXE"


def _trouble(name: str, event: Event, ago: str) -> str:
    check = {
        EventKind.TFTP_FAILED: "the firmware asked for what is not there or broke off; check the machine's "
        "architecture, and whether UDP gets through in both directions",
        EventKind.FILE_FAILED: "an artifact is missing or broke off; `doit` on the host builds what is missing",
        EventKind.FOREIGN: "an old lease, or another DHCP server; it asks DHCP again by itself",
        EventKind.REFUSED: "its next try comes by itself when that is repaired",
        EventKind.DENIED: "a token is good for one boot, from the address of its machine: start the machine again",
        EventKind.NAK: "it asked for an address of another network or machine, and asks anew",
        EventKind.MENU: "its MAC address was not known then; it asks again every few seconds",
    }[event.kind]
    return f"{name} {event.text} ({ago} ago): {check}"


def _firmware(name: str, event: Event, ago: str) -> str:
    match event.kind:
        case EventKind.DISCOVER:
            why = event.text.partition(": ")[2]
            reason = f" ({why})" if why else ""
            return (
                f"{name} asked for an address {ago} ago, and DHCP offered none{reason}: check that its definition is "
                "in use (./pvmlab status) and that its address is free"
            )
        case EventKind.OFFER:
            return (
                f"DHCP offered {name} an address {ago} ago, and it did not take it: another DHCP server answered "
                "first, or our answer does not reach it"
            )
        case EventKind.PROXY:
            return (
                f"{name} was told what to boot {ago} ago, beside the other DHCP server, and asked for nothing since: "
                "check that the other one offers it an address, the one in its definition, and that UDP ports 69 and "
                "4011 and TCP port 80 of the provisioner reach it"
            )
        case EventKind.REQUEST:
            return f"{name} asked for its address {ago} ago, and DHCP did not answer: check that dnsmasq runs"
        case EventKind.ACK:
            return (
                f"DHCP answered {name} {ago} ago, and no TFTP request came: its firmware was offered no boot program, "
                "as for an architecture that was not built, or UDP port 69 of the provisioner does not reach it; "
                "a system that has booted from its disk asks for nothing more"
            )
        case _:
            return f"{name} was last seen {ago} ago: {event.text}"


def _program(name: str, trail: Trail, last: Event, ago: str) -> str:
    if trail.dhcp is None:
        return (
            f"{name}: {last.text} {ago} ago, and nothing was asked since: the program did not start; check the "
            "machine's architecture and whether Secure Boot refuses it"
        )
    if trail.dhcp.kind is EventKind.ACK:
        return (
            f"{name}'s iPXE got its address {ago} ago and did not fetch boot.ipxe: HTTP (TCP port 80) of the "
            "provisioner does not reach it, or nginx does not run"
        )
    if trail.dhcp.kind is EventKind.PROXY:
        return (
            f"{name}'s iPXE was told what to boot {ago} ago, beside the other DHCP server, and did not fetch "
            "boot.ipxe: check that the other one offers it an address, and that TCP port 80 of the provisioner reaches "
            "it"
        )
    return f"{name}'s iPXE asked for an address {ago} ago and got none: check that dnsmasq runs"


def _script(name: str, trail: Trail, ago: str) -> str:
    if trail.script is not None and trail.script.kind is EventKind.DISK_SCRIPT:
        return f"{name} was sent to its disk {ago} ago: if it does not start, its console says why"
    if trail.script is not None and trail.script.kind is EventKind.RESCUE_SCRIPT:
        return f"{name} was sent into its rescue shell {ago} ago: its console has it"
    if trail.stage is Stage.SCRIPT:
        return (
            f"{name} got its boot script {ago} ago and fetched nothing that it names: its console says what iPXE makes "
            "of it"
        )
    fetched = ", ".join(dict.fromkeys(trail.files))
    if trail.dhcp is not None and trail.dhcp.kind is EventKind.ACK:
        return (
            f"{name}'s installer runs (it fetched {fetched}) and got its address {ago} ago, and did not fetch its "
            "configuration: HTTP from the installer does not work; its console says what it tried"
        )
    return (
        f"{name} fetched {fetched}, the last {ago} ago, and has asked for nothing since: the kernel does not start, or "
        "the installer has no driver for the network card; its console says which"
    )


def _ago(event: Event, now: float) -> str:
    return _seconds(now - event.latest)


def _seconds(count: float) -> str:
    whole = max(0, round(count))
    return f"{whole} s" if whole < 120 else f"{whole // 60} min"
