"""What the ``net.*`` verbs do: words into settings, then ``lab``."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from cli.output import emit, require_format, say
from cli.words import choice
from contracts.document import encode
from contracts.lan import Lan
from lab import bridge, bridge_commands
from lab.bridge import BridgeNetwork
from lab.bringup import machine_names
from lab.lab import Lab
from lab.lan_settings import UNCHANGED, LanRequest, make_lan
from lab.network import Network, NetworkKind
from lab.network_settings import (
    NetworkSettings,
    find_overlaps,
    read_settings,
    require_fitting,
    require_usable_lan,
    write_settings,
)
from lab.network_view import MemberView, NetworkView, view_members, view_network
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore
from lab.vmnet import VmnetNetwork
from pipeline.errors import ConflictError, UsageError
from pipeline.reporting.wording import format_size

NONE = "none"  # what a person writes for: no such thing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """The options of ``net.create``; empty or 0: as it is."""

    kind: str = ""
    lan: LanRequest = UNCHANGED
    host_address: str = ""
    taps: int = 0
    socket: str = ""


def list_networks(*, output: str) -> None:
    """Print this lab's network, and the interfaces of other labs. :raises UsageError: for an unknown *output*."""
    lab = Lab.from_environment()
    view = view_network(lab)
    state = "running" if view.running else "off"
    rows = [("lab", view.kind.value, state, view.subnet, str(lab.home.root))]
    others = []
    for name in bridge.ours():
        if (home := bridge.home_of(name)) != lab.home.root:
            gone = name in view.leftovers
            others.append({"interface": name, "home": str(home), "gone": gone})
            rows.append((name, "interface", "nobody's: its lab is gone" if gone else "another lab's", "", str(home)))
    emit(
        {"networks": [encode(view) | {"name": "lab", "home": str(lab.home.root)}], "others": others},
        output=output, table=[("NAME", "KIND", "STATE", "SUBNET", "LAB"), *rows],
    )  # fmt: skip
    if view.leftovers and output != "json":
        say(f"nobody uses {', '.join(view.leftovers)}: {bridge.how_to_remove(view.leftovers)}")


def show_network(*, output: str) -> None:
    """Print the lab's network. :raises UsageError: for an unknown *output*."""
    view = view_network(Lab.from_environment())
    emit(encode(view), output=output, table=_table_of(view))


def show_status(*, output: str) -> None:
    """Print who is on the network. :raises UsageError: for an unknown *output*."""
    lab = Lab.from_environment()
    members, network = view_members(lab), lab.network
    data: dict[str, Any] = {"kind": network.kind, "running": network.is_running(), "members": encode(members)}
    headings = ("MACHINE", "ADDRESS", "MAC", "CARD", "LAST LEASE", "SENT", "RECEIVED", "LOST")
    emit(data, output=output, table=[headings, *map(_member_row, members)])
    if output != "json" and isinstance(network, BridgeNetwork) and (warning := bridge.filter_warning()):
        say(warning)


def create_network(wishes: Wishes, *, output: str) -> None:
    """Choose the lab's network.

    :raises UsageError: if a value makes no sense. :raises ConflictError: if a machine is in the way.
    :raises PrerequisiteError: if this host has no such network.
    """
    require_format(output)
    lab = Lab.from_environment()
    settings, lan = _wanted_settings(read_settings(lab.home), wishes), make_lan(lab, wishes.lan)
    require_usable_lan(lan, settings, has_way_out=lab.provisioner_mode is ProvisionerMode.VM)
    _require_quiet(lab)
    require_fitting(lan, DefinitionStore(lab).load_good(), settings)
    _require_no_host_mode(lab, settings)
    overlaps = find_overlaps(lan, besides=bridge.ours(lab.home.root))
    if (conflict := bridge.overlapping_host(lan, settings, overlaps)) is not None:
        raise conflict
    _require_possible(lab, settings, lan)
    before = lab.network
    lab.ensure_folders()
    with lab.changing_lab(), lab.changing_definitions():
        _require_quiet(lab)
        lan = make_lan(lab, wishes.lan)  # with the IPv6 of its own that a lab has as soon as it is there
        require_fitting(lan, DefinitionStore(lab).load_good(), settings)
        before.stop()
        write_settings(lab.home, settings, lan)
    _tell(before, lab.network, overlaps)
    view = view_network(lab)
    emit(encode(view), output=output, table=_table_of(view))


def remove_network() -> None:
    """Go back to the usual network.

    :raises ConflictError: if a machine is in the way. :raises PrerequisiteError: if it needs root to remove it.
    """
    lab = Lab.from_environment()
    if not lab.find_identity():
        say("the lab has the usual network")
        return
    lan = Lan(ipv6_subnet=lab.ipv6_subnet_of_its_own())
    with lab.changing_lab(), lab.changing_definitions():
        _require_quiet(lab)
        require_fitting(lan, DefinitionStore(lab).load_good(), NetworkSettings())
        network = lab.network
        if isinstance(network, BridgeNetwork):
            network.remove()
        else:
            network.stop()
        write_settings(lab.home, NetworkSettings(), lan)
    say(f"the lab has the usual network: a switch, {lan.subnet}")


def _wanted_settings(present: NetworkSettings, wishes: Wishes) -> NetworkSettings:
    kind = choice(NetworkKind, wishes.kind, "--kind") if wishes.kind else present.kind
    kept = present if kind is present.kind else NetworkSettings(kind=kind)
    if wishes.taps < 0:
        raise UsageError(f"--taps is {wishes.taps}, it is 1 or more")
    if wishes.taps and kind is not NetworkKind.BRIDGE:
        raise UsageError("--taps is for a bridge only", resolution=_MORE)
    try:
        return dataclasses.replace(
            kept,
            host_address=_value(wishes.host_address, kept.host_address),
            taps=wishes.taps or kept.taps,
            socket=_value(wishes.socket, kept.socket),
        )
    except ValueError as error:
        raise UsageError(f"the network cannot be like this: {error}", resolution=_MORE) from None


_MORE = "./pvmlab net.create --help shows what it takes, docs/reference/network.md what goes together"


def _value(word: str, present: str) -> str:
    return "" if word == NONE else word or present


def _require_quiet(lab: Lab) -> None:
    """Check that no machine of the lab runs. :raises ConflictError: if one does."""
    if running := [name for name in machine_names(lab) if lab.machine(name).is_running()]:
        raise ConflictError(
            f"the network cannot be changed while machines run: {', '.join(running)}", resolution="./pvmlab down"
        )


def _require_no_host_mode(lab: Lab, settings: NetworkSettings) -> None:
    if settings.kind is not NetworkKind.SWITCH and lab.provisioner_mode is ProvisionerMode.HOST:
        raise ConflictError(
            f"a provisioner in host mode is on a switch, not on a {settings.kind}",
            resolution="./pvmlab provisioner.create --mode vm",
        )


def _require_possible(lab: Lab, settings: NetworkSettings, lan: Lan) -> None:
    """Check that this host has such a network. A bridge is named after the lab, which then has to be there."""
    if settings.kind is NetworkKind.SWITCH:
        return
    if settings.kind is NetworkKind.BRIDGE:
        bridge.require_tun()
        lab.ensure_folders()
    network = lab.make_network(settings, lan)
    if isinstance(network, (BridgeNetwork, VmnetNetwork)):
        network.require_usable()


def _tell(before: Network, after: Network, overlaps: Sequence[str]) -> None:
    if isinstance(before, BridgeNetwork) and not isinstance(after, BridgeNetwork) and (left := before.interfaces()):
        lines = bridge.as_root([bridge_commands.remove(name) for name in left])
        say(f"the bridge that root made for you is still there; to remove it: {lines}")
    if isinstance(after, BridgeNetwork) and (warning := bridge.filter_warning()):
        say(warning)
    if overlaps:
        say(f"machines will not reach what this host does: {', '.join(overlaps)}")


def _table_of(view: NetworkView) -> list[Sequence[str]]:
    return [
        ("WHAT", "VALUE"),
        ("kind", view.kind.value),
        ("state", "running" if view.running else "off"),
        ("carried by", view.carrier),
        ("IPv4", view.subnet),
        ("IPv6", view.ipv6_subnet or "none"),
        ("domain", view.domain),
        ("DHCP", view.dhcp),
        ("provisioner", view.gateway),
        ("machines", " to ".join(view.machines)),
        ("strangers", " to ".join(view.pool) or "as the other DHCP server has it"),
        ("this host", view.host_address or "has no address on it"),
        ("way out", view.way_out),
        *(
            [("leftovers", f"{', '.join(view.leftovers)}; {bridge.how_to_remove(view.leftovers)}")]
            if view.leftovers
            else []
        ),
    ]


def _member_row(member: MemberView) -> Sequence[str]:
    port = member.port
    leased = f"{max(0, round(time.time() - member.leased))} s ago" if member.leased else ""
    # what the network receives, the machine sends
    counters = (format_size(port.received), format_size(port.sent), str(port.dropped)) if port else ("", "", "")
    card = "plugged in" if member.connected else "not plugged in"
    return member.machine or "(stranger)", member.ip, member.mac, card, leased, *counters
