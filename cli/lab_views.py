"""Prints how a lab stands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.output import emit
from contracts.document import encode
from contracts.lan import DhcpMode, Lan
from lab.lab import Lab
from lab.target_views import TargetView, view_targets

if TYPE_CHECKING:
    from lab.status import LabView

_MACHINE_HEADINGS = ("NAME", "STATE", "INSTALL", "DISTRO", "ARCH", "ADDRESS", "MAC")


def show_machines(lab: Lab, *, output: str) -> None:
    """Print the targets. :raises UsageError: for an unknown *output*."""
    targets = view_targets(lab)
    emit({"machines": encode(targets)}, output=output, table=[_MACHINE_HEADINGS, *map(_machine_row, targets)])


def show_status(lab: Lab, *, output: str) -> None:
    """Print the lab and its artifacts. :raises UsageError: for an unknown *output*."""
    from lab.status import view_lab

    view, artifacts = view_lab(lab), artifact_states()
    table = _status_table(view, artifacts)
    emit(encode(view) | {"artifacts": artifacts}, output=output, table=table)


def describe_lan(lan: Lan) -> str:
    """Return the network in a line, for people: ``192.168.100.0/24, fd00::/64, pvmlab.local``."""
    proxy = "addresses from another DHCP server" if lan.dhcp is DhcpMode.PROXY else ""
    return ", ".join(filter(None, (lan.subnet, lan.ipv6_subnet, lan.domain, proxy)))


def artifact_states() -> dict[str, str]:
    """Return for each artifact ``built``, or why it would be built."""
    from pipeline.recipes.graph import graph

    return {name: artifact.reason() or "built" for name, artifact in sorted(graph().artifacts.items())}


def _status_table(view: LabView, artifacts: dict[str, str]) -> list[Sequence[str]]:
    served = view.provisioner
    services = f"services {served.services}" if served.services else "no services"
    port = f"ssh on 127.0.0.1:{served.ssh_port}" if served.ssh_port else "never started"
    port = "host mode" if served.mode == "host" else port
    port += f" joined with {served.interface}" if served.interface else ""
    return [
        ("WHAT", "STATE", "DETAILS"),
        ("home", "", view.home),
        ("cache", "", view.cache),
        ("accelerator", view.accelerator, view.accelerator_reason),
        ("network", "running" if view.network_running else "off", describe_lan(view.lan)),
        ("provisioner", served.state.value, f"{services}, {served.ip}, {port}" if served.created else "not created"),
        *((machine.name, _state(machine), _machine_details(machine)) for machine in view.machines),
        *([("strangers", "seen", f"{', '.join(view.strangers[:5])}; ./pvmlab vm.adopt lists them")]
          if view.strangers else []),
        *_artifact_rows(artifacts),
    ]  # fmt: skip


def _artifact_rows(artifacts: dict[str, str]) -> list[Sequence[str]]:
    """Return a row for each artifact that is built, or that a build would make that names nothing."""
    from pipeline.recipes.graph import default_tasks

    usual = set(default_tasks())
    shown = {name: state for name, state in artifacts.items() if state == "built" or name in usual}
    rows: list[Sequence[str]] = [
        (name, "built" if state == "built" else "to build", "" if state == "built" else state)
        for name, state in shown.items()
    ]
    if others := len(artifacts) - len(shown):
        rows.append(("...", "", f"{others} more, of other distributions, are not built: ./pvmlab distro.ls"))
    return rows


def _machine_row(machine: TargetView) -> Sequence[str]:
    install = machine.fault or "; ".join(filter(None, (_install(machine), machine.served)))
    return machine.name, _state(machine), install, machine.distro, machine.arch, machine.ip, machine.mac


def _machine_details(machine: TargetView) -> str:
    if machine.fault:
        return machine.fault
    details = f"{_install(machine)}, {machine.distro}, {machine.ip}; {machine.ssh}"
    seen = f"last seen {_ago(machine.last_time)} ago: {machine.last_event}" if machine.last_event else ""
    return "; ".join(filter(None, (details, machine.served, machine.diagnosis or seen)))


def _state(machine: TargetView) -> str:
    return machine.state.value if machine.managed else "adopted"


def _install(machine: TargetView) -> str:
    install = f"{machine.install} {machine.percent} %" if machine.install.startswith("installing") else machine.install
    return f"{install}, {machine.ordered} ordered" if machine.ordered else install


def _ago(moment: float) -> str:
    seconds = max(0, round(time.time() - moment))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
