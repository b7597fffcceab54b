"""qcow2 disks: made whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from pipeline import commit
from pipeline.errors import NotFoundError
from pipeline.run import run

_TIMEOUT = 60  # seconds; making a qcow2 writes a few hundred kilobytes


@dataclasses.dataclass(frozen=True)
class DiskInfo:
    """What ``qemu-img`` knows of a disk.

    :ivar virtual_size: what the guest sees, in bytes. :ivar actual_size: what it takes on the host, in bytes.
    :ivar backing_file: the base image of an overlay, or None.
    """

    virtual_size: int
    actual_size: int
    backing_file: Path | None


def create_empty_disk(path: Path, size_gib: int) -> None:
    """Publish an empty qcow2 disk of *size_gib* GiB at *path*, readable by its owner only.

    :raises CommandError: if qemu-img fails, such as on a full disk; then *path* is what it was.
    """
    with commit.publish(path, mode=0o600) as temporary:
        run(["qemu-img", "create", "-q", "-f", "qcow2", temporary, f"{size_gib}G"], timeout=_TIMEOUT)


def create_overlay(path: Path, base: Path, size_gib: int | None, *, base_format: str = "qcow2") -> None:
    """Publish at *path* a qcow2 overlay of the read-only *base* image, which must stay where it is.

    :param size_gib: size in GiB, None for that of *base*. :param base_format: qcow2 or raw; it is never guessed.
    :raises NotFoundError: if there is no *base*. :raises CommandError: if qemu-img fails.
    """
    if not base.is_file():
        raise NotFoundError(f"the base image {base} does not exist", resolution="./pvmlab up builds what is missing")
    with commit.publish(path, mode=0o600) as temporary:
        size = [f"{size_gib}G"] if size_gib is not None else []
        # absolute: QEMU takes a relative name as relative to the overlay, and "a:b" as a protocol
        backing: list[str | Path] = ["-b", base.absolute(), "-F", base_format]
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, temporary, *size], timeout=_TIMEOUT)


def disk_info(path: Path) -> DiskInfo:
    """Return what there is to know of the disk at *path*, also while a machine uses it.

    :raises NotFoundError: if there is none. :raises CommandError: if it is not a qcow2 disk.
    """
    if not path.is_file():
        raise NotFoundError(f"the disk {path} does not exist")
    # --force-share: a running QEMU holds the image's lock
    done = run(["qemu-img", "info", "--force-share", "--output=json", "-f", "qcow2", path], timeout=_TIMEOUT)
    facts = json.loads(done.stdout)
    backing = facts.get("full-backing-filename")
    return DiskInfo(facts["virtual-size"], facts["actual-size"], Path(backing) if backing else None)
