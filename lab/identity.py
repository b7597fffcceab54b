"""Giving the copy of an installed system an identity of its own, on its disk, while nobody uses that.

A system that pvmlab installed has its NoCloud seed in ``/var/lib/cloud/seed/nocloud``. With another ``instance-id`` in
there cloud-init sees a new machine: at its next boot it sets the host name, network cards, account and host keys anew.
What cloud-init does not touch is put right here: ``/etc/machine-id``, ``/etc/hostname`` and ``/etc/hosts``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from contracts.nocloud import dump_yaml
from lab.ext4 import Device, Ext4, Ext4Error
from lab.nbd import open_image
from pipeline.errors import ConflictError

SEED_FOLDER = "var/lib/cloud/seed/nocloud"
_MACHINE_ID = "etc/machine-id"
_HEAD = re.compile(r"\A(?:#[^\n]*\n)*")  # such as #cloud-config
_SECTOR = 512  # bytes; QEMU's disks have no others
# UEFI 2.10, 5.3.2 and 5.3.3: first entry, number and size of entries at 72; in an entry, the first sector at 32
_GPT = struct.Struct("<8s64xQII")
_GPT_MAGIC = b"EFI PART"
_MOST_ENTRIES = 128


@dataclasses.dataclass(frozen=True)
class Identity:
    """Who a copy is to be. :ivar old_name: of the machine it is a copy of. :ivar documents: its NoCloud documents."""

    old_name: str
    name: str
    documents: Mapping[str, str]


def renew_installed(disk: Path, identity: Identity) -> None:
    """Make the system on *disk*, which pvmlab installed, the one that *identity* says.

    :raises ConflictError: if there is no such system, or it cannot be changed as it is.
    """
    with open_image(disk) as device:
        for system in _systems(device):
            seed = {kind: system.find(f"{SEED_FOLDER}/{kind}") for kind in identity.documents}
            if seed.get("meta-data") is None:
                continue
            try:
                for kind, inode in seed.items():
                    if inode is not None:
                        _replace_document(system, inode, identity.documents[kind])
                _renew_names(system, identity)
                _renew_machine_id(system)
            except Ext4Error as error:
                raise ConflictError(
                    f"{identity.name} cannot get an identity of its own: {error.brief}",
                    resolution="choose a name that is not longer; or start the machine, shut it down by ./pvmlab "
                    f"vm.stop {identity.old_name}, and clone it then",
                ) from None
            return
    raise ConflictError(
        f"the disk of {identity.old_name} holds no system that pvmlab installed",
        details=f"no ext4 file system with /{SEED_FOLDER} is on it, so the copy would believe to be the original",
        resolution="--keep-identity clones it all the same: never let both run at once",
    )


def renew_image(disk: Path) -> bool:
    """Give the system on *disk*, which came from a cloud image, another machine id; return whether that was possible.

    All else is in its seed disc.
    """
    with open_image(disk) as device:
        return any(_renew_machine_id(system) for system in _systems(device))


def _replace_document(system: Ext4, inode: int, text: str) -> None:
    """Put a NoCloud document into its file: as it is, or if it would have to grow where it may not, without layout."""
    if not system.is_clean and len(text.encode()) > len(system.read(inode)):
        head, body = _HEAD.match(text), _HEAD.sub("", text)
        with contextlib.suppress(ValueError):  # a person's own, which is no JSON
            text = (head[0] if head else "") + dump_yaml(json.loads(body)) + "\n"
    system.replace_text(inode, text)


def _renew_names(system: Ext4, identity: Identity) -> None:
    old = re.compile(rf"(?<![\w.-]){re.escape(identity.old_name)}(?![\w-])")
    for path in ("etc/hostname", "etc/hosts"):
        if (inode := system.find(path)) is not None:
            text = system.read(inode).decode(errors="surrogateescape").rstrip("\n") + "\n"
            system.replace_text(inode, old.sub(identity.name, text))


def _renew_machine_id(system: Ext4) -> bool:
    """Return whether there was one; an empty one is made by the system itself at its boot (machine-id(5))."""
    inode = system.find(_MACHINE_ID)
    if inode is None or not re.fullmatch(rb"[0-9a-f]{32}\s*", system.read(inode)):
        return False
    system.replace_text(inode, f"{uuid.uuid4().hex}\n")
    return True


def _systems(device: Device) -> Iterator[Ext4]:
    """Yield the ext4 file systems on a disk: on its partitions, or on the whole of it."""
    for start in (0, *_partitions(device)):
        try:
            yield Ext4(device, start)
        except Ext4Error:
            continue


def _partitions(device: Device) -> list[int]:
    """Return where the partitions of a GPT begin, in bytes; none without a GPT."""
    magic, table, count, size = _GPT.unpack_from(device.read(_SECTOR, _SECTOR))
    if magic != _GPT_MAGIC or not 128 <= size <= 4096:
        return []
    entries = device.read(table * _SECTOR, min(count, _MOST_ENTRIES) * size)
    parts = [entries[at : at + size] for at in range(0, len(entries), size)]
    return [int.from_bytes(part[32:40], "little") * _SECTOR for part in parts if any(part[:16])]
