"""``vm.show`` for people: a machine's portrait as rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.portrait import DiskView, Portrait, SnapshotView

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def render(seen: Portrait, *, now: float) -> list[Sequence[str]]:
    """Return the rows, headings first. :param now: seconds since the epoch."""
    return [("WHAT", seen.name.upper()), *_rows(seen, now)]


def size(count: int) -> str:
    """Return *count* bytes for people: ``1.5 GiB``."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit < 2 or value >= 100 else f"{value:.1f} {_UNITS[unit]}"


def moment(seconds: float) -> str:
    """Return a moment for people, in their time zone."""
    return dt.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def describe_snapshot(snapshot: SnapshotView) -> str:
    """Return what is in a snapshot, for people."""
    memory = f", memory {size(snapshot.memory_bytes)}" if snapshot.memory_bytes else ""
    kind = {"off": "of the machine off", "memory": "with memory", "disk": "disks of the running machine"}[snapshot.kind]
    return f"{kind}; disks {size(snapshot.disk_bytes)}{memory}"


def _rows(seen: Portrait, now: float) -> Iterator[Sequence[str]]:
    facts = seen.definition
    yield "state", f"{seen.state}: {seen.reason}" if seen.reason else seen.state.value
    if seen.process is not None:
        process = seen.process
        up = dt.timedelta(seconds=max(0, round(now - process.started)))
        yield "process", f"{process.pid}, since {moment(process.started)} ({up}), {size(process.memory)} of memory"
    yield "system", f"{facts['distro']}, {facts['arch']}, from {facts['source']}, installer {facts['installer']}"
    yield "hardware", _hardware(facts)
    yield from _cards(facts)
    for number, disk in enumerate(seen.disks):
        yield f"disk {number}", _disk(disk)
    for snapshot in seen.snapshots:
        yield f"snapshot {snapshot.name}", f"{moment(snapshot.time)}, {describe_snapshot(snapshot)}"
    for forward in seen.forwards:
        yield "forward", f"127.0.0.1:{forward.host} -> {forward.guest}/{forward.protocol}: {forward.state}"
    yield from _install(seen)
    if seen.user_data:
        yield "user-data", f"own, {seen.user_data} bytes"
    for event in seen.events:
        yield "event", f"{moment(event.latest)} {event.text}"
    for path in seen.logs:
        yield "log", path
    yield "host key", seen.host_key
    yield "uuid", str(facts["uuid"])
    yield "log in", f"{seen.login} (as {facts['user']})"


def _hardware(facts: dict[str, object]) -> str:
    firmware = str(facts["firmware"]) + (" with Secure Boot" if facts["secure_boot"] else "")
    more = ", TPM 2.0" if facts["tpm"] else ""
    return f"{facts['cpus']} cpus, {facts['memory_mib']} MiB, {firmware}{more}"


def _cards(facts: dict[str, object]) -> Iterator[Sequence[str]]:
    nics = facts["nics"]
    further = list(nics) if isinstance(nics, (list, tuple)) else []
    for number, card in enumerate([facts, *further]):
        addresses = ", ".join(filter(None, (str(card["ip"]), str(card["ipv6"]))))
        yield f"card {number}", f"{addresses}; {card['mac']}, {facts['nic_model']}"
    labels = facts["labels"]
    for label in labels if isinstance(labels, (list, tuple)) else ():
        yield "label", f"{label['key']}={label['value']}"


def _disk(disk: DiskView) -> str:
    if disk.fault:
        return f"{disk.path}: {disk.fault}"
    below = f", on {', '.join(Path(path).name for path in disk.below)}" if disk.below else ""
    return f"{disk.path}: {size(disk.size)}, {size(disk.allocated)} on this host, {disk.bus}{below}"


def _install(seen: Portrait) -> Iterator[Sequence[str]]:
    install = seen.install
    if install is None:
        return
    phase = f": {install.phase} {install.percent} %" if install.phase and install.state != "installed" else ""
    ordered = f", {install.ordered} ordered" if install.ordered else ""
    yield "install", f"{install.state}{phase}, {install.installs} completed{ordered}"
    if install.diagnosis:
        yield "diagnosis", install.diagnosis
