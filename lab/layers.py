"""Layers: frozen disks that others stand on.

A disk is frozen by giving its file a second name below ``disks/layers/`` and putting an empty overlay in its place::

    disks/web1.qcow2 ──────────────> disks/layers/<id>.qcow2   (read-only from now on)
    disks/web2.qcow2 (a clone) ──────^

Every step is one rename, after each of which all disks hold what they held before: a command that is killed leaves at
most a layer that nobody needs, which :func:`sweep` removes. What stands on what is read from the files themselves.
"""

from __future__ import annotations

import contextlib
import secrets
import struct
from collections.abc import Iterable
from pathlib import Path

from lab.disks import create_overlay
from lab.processes import hold_lock
from lab.sockets import ensure_private
from pipeline import commit
from pipeline.errors import PvmlabError
from pipeline.workspace import Home

DEEPEST = 64  # layers below one disk: each is an open file of QEMU, and one more place to look at a read
# qcow2's header (QEMU's docs/interop/qcow2.txt): magic, version, and place and length of the backing file's name
_HEADER = struct.Struct(">4sIQI")
_MAGIC = b"QFI\xfb"
_LONGEST_NAME = 1023  # bytes, by the format


class LayerError(PvmlabError):
    """A disk is not what it has to be to be frozen."""


def layers_folder(home: Home) -> Path:
    """Return where the layers are."""
    return home.disks / "layers"


def freeze(home: Home, disk: Path) -> Path:
    """Freeze what is on *disk* now, and put an overlay in its place; return the layer.

    Nobody may write to the disk, but a QEMU that is stopped and will be told to use the overlay: its open file is the
    layer now. The caller holds the lock of the disk's machine.

    :raises LayerError: if it stands on too many layers already.
    """
    if len(chain(disk)) > DEEPEST:
        raise LayerError(
            f"{disk.name} stands on {DEEPEST} layers already",
            details="each snapshot or clone of a disk adds one",
            resolution=f"flatten it while its machine is off: qemu-img convert -O qcow2 {disk} FILE, then put FILE in "
            "its place",
        )
    layer = layers_folder(home) / f"{disk.stem}-{secrets.token_hex(6)}.qcow2"
    with changing(home):
        with commit.publish(layer, mode=0o600) as temporary:
            commit.give_second_name(disk, temporary)
        create_overlay(disk, layer, None)
        layer.chmod(0o400)  # last: until the overlay was there, this was the disk itself
    return layer


def changing(home: Home) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of whoever makes or removes layers: one that is just being made is nobody's yet.

    :raises ConflictError: if another command holds it for long.
    """
    ensure_private(home.run)
    return hold_lock(home.run / "_layers.lock", timeout=30.0, busy="another command makes or removes disk layers")


def chain(disk: Path) -> list[Path]:
    """Return what *disk* stands on, the nearest first, down to a disk that stands on nothing, or is no qcow2."""
    below: list[Path] = []
    while (base := backing_file(disk)) is not None and base not in below:
        below.append(base)
        disk = base
    return below


def backing_file(disk: Path) -> Path | None:
    """Return the file that *disk* is an overlay of, or None: also if there is no such file, or it is no qcow2."""
    try:
        with disk.open("rb") as stream:
            start = stream.read(_HEADER.size)
            if len(start) < _HEADER.size:
                return None
            magic, _, place, length = _HEADER.unpack(start)
            if magic != _MAGIC or not place or length > _LONGEST_NAME:
                return None
            stream.seek(place)
            name = stream.read(length).decode(errors="surrogateescape")
    except OSError:
        return None
    return disk.parent / name  # an absolute name stays as it is


def sweep(home: Home, needed: Iterable[Path]) -> list[Path]:
    """Remove the layers that no disk of the lab stands on; return them. The caller holds the lock of :func:`changing`.

    :param needed: layers that have to stay although no disk does: those of snapshots.
    """
    kept = {*needed}
    for disk in (*home.disks.glob("*.qcow2"), *kept):
        kept.update(chain(disk))
    unused = sorted(path for path in layers_folder(home).glob("*.qcow2") if path not in kept)
    for layer in unused:
        layer.unlink(missing_ok=True)
    commit.sweep(layers_folder(home))
    return unused
