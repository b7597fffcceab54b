"""Machines whose system comes from a cloud image: base, overlay, seed.

::

    images/<distro>/<arch>/disk.img.zst ──unpacked once──> bases/<sha256>.img ─┐
    a person's own qcow2 or raw file ──────────────────────────────────────────┴─> overlay disks/<name>.qcow2
    NoCloud documents ──> seed disc disks/<name>.seed.iso

Nobody writes into a base. A person's own file is used where it lies; what it was when the overlay was made is written
down, since an overlay on a base that has changed is a damaged disk.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.machine import MachineSource, VmDefinition
from lab import disks, layers
from lab.base_images import base_images
from lab.lab import Lab
from lab.seed_disc import write_seed
from pipeline import commit
from pipeline.errors import ConflictError, NotFoundError, PvmlabError, UsageError
from pipeline.media.cloud_image import DiskImage, ImageFormat, inspect_image, unpack_disk
from pipeline.sidecar import require_digest

_GIB = 1 << 30
_RECORD_SUFFIX = ".base.json"
_SEED_SUFFIX = ".seed.iso"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaseRecord:
    """What an overlay was made of, beside it. :ivar size: in bytes. :ivar modified: nanoseconds since the epoch."""

    path: str
    size: int
    modified: int


def is_cloud(definition: VmDefinition) -> bool:
    """Tell whether the machine's system comes from an image."""
    return definition.source is MachineSource.IMAGE


def seed_path(lab: Lab, name: str) -> Path:
    """Return where the seed disc of the machine *name* is."""
    return lab.home.disks / f"{name}{_SEED_SUFFIX}"


def own_files(lab: Lab, name: str) -> tuple[Path, ...]:
    """Return what such a machine has besides its disk."""
    return seed_path(lab, name), _record_path(lab, name)


_WANTED = "name a qcow2 or raw image that you may read"


def require_image(text: str) -> Path:
    """Return the absolute path of a person's own image, links followed, after looking into it.

    :raises NotFoundError: if it cannot be read.
    :raises RefusedImageError: if it is neither qcow2 nor a raw disk, or needs other files: a backing or a data file.
    """
    # os.path's leave what cannot be followed as it is; Path's raise RuntimeError: no such user, a loop of links
    path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise NotFoundError(f"the image {path} cannot be read", details="it is no regular file", resolution=_WANTED)
        inspect_image(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise NotFoundError(f"the image {path} cannot be read", details=why, resolution=_WANTED) from None
    return path


def require_room(image: DiskImage, disk_gib: int) -> None:
    """Check that a disk of *disk_gib* GiB can hold *image*.

    :raises UsageError: if not.
    """
    if image.size > disk_gib * _GIB:
        needed = -(-image.size // _GIB)
        raise UsageError(
            f"the image {image.path.name} is a disk of {needed} GiB, and {disk_gib} GiB are asked for",
            resolution=f"--disk-size={needed}G, or more: the system grows into it",
        )


def prepare_disk(lab: Lab, definition: VmDefinition, disk: Path) -> None:
    """Have the machine's overlay at *disk*, on the base it was made on.

    :raises NotFoundError: if its distribution's image is not built, or a person's own one is gone.
    :raises ConflictError: if that has changed since.
    :raises UsageError: if the image does not fit. :raises PvmlabError: if the overlay is gone.
    """
    path = _record_path(lab, definition.name)
    has_record, has_disk = path.exists(), disk.exists()
    if not has_record and not has_disk:
        base = ensure_base(lab, definition)
        require_room(base, definition.disk_gib)
        disks.create_overlay(disk, base.path, definition.disk_gib, base_format=base.format.value)
        _write_record(path, base.path)
    elif not has_disk:
        raise PvmlabError(
            f"the disk of {definition.name} is gone",
            details=str(disk),
            resolution=f"put it back, or ./pvmlab vm.clean {definition.name} and create the machine again",
        )
    elif has_record:
        _require_unchanged(definition.name, path)
    elif (image := _find_image_below(lab, definition, disk)) is not None:  # killed right after the disk was made
        _write_record(path, image)


def renew_disk(lab: Lab, name: str, disk: Path) -> None:
    """Forget the overlay: the next start makes it anew, as the image has it."""
    _record_path(lab, name).unlink(missing_ok=True)
    disk.unlink(missing_ok=True)


def ensure_base(lab: Lab, definition: VmDefinition) -> DiskImage:
    """Return the image that the machine's disk is an overlay of; the distribution's is unpacked if it was not.

    :raises NotFoundError: if it is not built or gone. :raises RefusedImageError: if it may not be used.
    """
    if definition.image:
        return inspect_image(require_image(definition.image))
    packed = lab.cache.image(definition.distro, definition.arch, "disk.img.zst")
    base = lab.home.bases / f"{require_digest(packed)}.img"
    if not base.exists():
        with commit.publish(base, mode=0o400) as temporary:
            unpack_disk(packed, temporary)
    return DiskImage(path=base, format=ImageFormat.RAW, size=base.stat().st_size)


def ensure_seed(lab: Lab, name: str, documents: Mapping[str, str]) -> None:
    """Write the machine's seed disc. It is made anew before each start, so what was changed is in it."""
    write_seed(seed_path(lab, name), documents)


def remove_unused_bases(lab: Lab) -> list[Path]:
    """Remove the unpacked images that no disk of the lab stands on any more; return them.

    If that cannot be told of some disk, all stay.
    """
    unpacked = sorted(lab.home.bases.glob("*.img"))
    if not unpacked:
        return []
    with contextlib.suppress(PvmlabError):
        used = {path.resolve() for path in base_images(lab)}
        unused = [path for path in unpacked if path.resolve() not in used]
        for path in unused:
            path.unlink(missing_ok=True)
        return unused
    return []


def _record_path(lab: Lab, name: str) -> Path:
    return lab.home.disks / f"{name}{_RECORD_SUFFIX}"


def _find_image_below(lab: Lab, definition: VmDefinition, disk: Path) -> Path | None:
    """Return the image that *disk* is an overlay of; None for a clone's, which stands on a layer."""
    base = layers.backing_file(disk)
    if base is None or not (str(base) == definition.image or base.parent == lab.home.bases):
        return None
    return base if base.exists() else None


def _write_record(path: Path, base: Path) -> None:
    commit.publish_text(path, document.dumps(_record_of(base)), mode=0o600)


def _record_of(base: Path) -> BaseRecord:
    facts = base.stat()
    return BaseRecord(path=str(base), size=facts.st_size, modified=facts.st_mtime_ns)


def _require_unchanged(name: str, record: Path) -> None:
    again = f"./pvmlab vm.clean {name} and create the machine again"
    try:
        known = document.loads(BaseRecord, record.read_bytes())
    except DocumentError as error:
        raise ConflictError(
            f"it is not known any more what the disk of {name} is an overlay of",
            details="\n".join([str(record), *error.faults]),
            resolution=again,
        ) from None
    base = Path(known.path)
    try:
        found = _record_of(base)
    except FileNotFoundError:
        raise NotFoundError(
            f"the image that the disk of {name} is an overlay of is gone",
            details=str(base),
            resolution=f"put it back, or {again}",
        ) from None
    if found != known:
        raise ConflictError(
            f"the image that the disk of {name} is an overlay of has changed",
            details=f"{base}: what the machine has on its disk belongs to the image as it was",
            resolution=f"put the old one back, or {again}",
        )
