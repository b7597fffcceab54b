"""The root file system of a disk image, read by the appliance into a tar.

::

    DiskImage ──appliance, job read-root──> tar (pax) on a sparse scratch file, RootReport ──read_members──> Member, ...

What the guest hands over was written by a system that worked on foreign data: it is read like any foreign archive.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.appliance.boot import IDLE, TIMEOUT, Appliance, ApplianceError, Disk, Job, run_job
from pipeline.media.archive import read_archive
from pipeline.media.cloud_image import DiskImage
from pipeline.media.limits import Limits
from pipeline.media.member import Member
from pipeline.progress import Progress, ProgressListener, ignore_progress
from pipeline.state import State

JOB = "read-root"
MAX_TAR = 64 << 30  # bytes

_NO_RATIO = 1 << 62  # nothing is compressed: what reads as zeros in a tar are holes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mounted:
    """A file system that belongs to the tree. :ivar place: ``/``, ``/boot``. :ivar device: ``vda1`` for the first."""

    place: str
    device: str
    type: str
    options: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootReport:
    """What the appliance found.

    :ivar mounted: the root first. :ivar left_out: what fstab names and does not insist on, with the reason.
    :ivar size: bytes of the tar.
    """

    mounted: tuple[Mounted, ...]
    left_out: tuple[tuple[str, str], ...]
    size: int

    def facts(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {
            "file_systems": [dataclasses.asdict(each) for each in self.mounted],
            "left_out": [" ".join(each) for each in self.left_out],
        }


class UnreadableRootError(ApplianceError):
    """No root file system can be read from an image."""

    def __init__(self, image: Path, error: ApplianceError, seen: list[str]) -> None:
        what, resolution = _WORDS[error.kind]
        listed = ", ".join(seen) or "nothing"
        super().__init__(
            error.kind,
            error.text,
            brief=f"{image.name}: {what}",
            details=f"{error.text.strip()}\npartitions of the image: {listed}",
            resolution=resolution,
        )


_REPORT_IT = "if its digest is right, the image was published like this: report it, with the task's log"
_WORDS = {
    "no-root": ("no root file system in the image", "take an image that holds an installed system"),
    "two-roots": ("more than one root file system in the image", "take an image that holds one installed system"),
    "refused": ("the kernel refuses a file system of the image", f"fetch the image again; {_REPORT_IT}"),
    "unread": (
        "its root is on a volume manager, RAID or encrypted, which is not read here",
        "take an image with its root on a plain partition; the ISO or the rootfs tarball of the release will do, too",
    ),
    "fstab": ("a file system that its fstab insists on is not to be had", _REPORT_IT),
    "tar": ("its root file system cannot be read to its end", f"fetch the image again; {_REPORT_IT}"),
}


def read_root(
    image: DiskImage,
    appliance: Appliance,
    *,
    folder: Path,
    log: Path,
    state: State,
    listener: ProgressListener = ignore_progress,
    limits: JobLimits | None = None,
) -> tuple[Path, RootReport]:
    """Write the root file system of *image*, with all that its fstab mounts, as a tar into *folder*.

    :param folder: an empty scratch folder. :param log: takes the appliance's console.
    :return: the tar, and what it is of.
    :raises UnreadableRootError: if there is none, more than one, or the kernel refuses it.
    :raises ApplianceError: if the appliance hangs or ends. :raises OSError: if the disk is full.
    """
    bounds = limits or JobLimits()
    output = folder / "root.tar"
    with output.open("wb") as stream:
        stream.truncate(bounds.tar)

    def look(lines: list[str]) -> int:
        written = output.stat().st_blocks * 512
        total = next((int(text) for word, text in map(_split, lines) if word == "size" and text.isdecimal()), None)
        listener(Progress(step="reading the file systems", done=written, total=max(total, written) if total else None))
        return written

    disks = (
        Disk(path=image.path, format=image.format.value, is_kept=False),
        Disk(path=output, format="raw", is_kept=True),
    )
    job = Job(name=JOB, disks=disks, folder=folder, log=log, look=look, timeout=bounds.timeout, idle=bounds.idle)
    seen: list[str] = []
    try:
        lines = run_job(appliance, job, state=state)
    except ApplianceError as error:
        _raise_if_full(error, output, bounds)
        if error.kind not in _WORDS:
            raise
        seen = [text for word, text in map(_split, error.lines) if word == "seen"]
        raise UnreadableRootError(image.path, error, seen) from None
    report = parse_report(lines)
    os.truncate(output, report.size)
    return output, report


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobLimits:
    """How much a reading may take. :ivar tar: bytes of the tar. :ivar timeout: seconds. :ivar idle: see ``boot``."""

    tar: int = MAX_TAR
    timeout: float = TIMEOUT
    idle: float = IDLE


def parse_report(lines: list[str]) -> RootReport:
    """Return what the lines of a report say, which ends with ``done``.

    :raises ApplianceError: if they are not as the appliance writes them.
    """
    mounted, left_out, size = [], [], 0
    try:
        for word, text in map(_split, lines):
            if word == "root":
                device, kind, options = text.split(" ")
                mounted.append(Mounted(place="/", device=device, type=kind, options=options.removeprefix("-")))
            elif word == "mounted":
                place, device, kind = text.split(" ")
                mounted.append(Mounted(place=place, device=device, type=kind))
            elif word == "left-out":
                place, _, reason = text.partition(" ")
                left_out.append((place, reason))
            elif word == "done":
                size = int(text)
    except ValueError as error:
        raise ApplianceError("report", f"its report cannot be read: {error}") from None
    if not mounted or not 0 < size <= MAX_TAR:
        raise ApplianceError("report", f"its report says that nothing was read ({size} bytes)")
    return RootReport(mounted=tuple(mounted), left_out=tuple(left_out), size=size)


def read_members(tar: Path) -> Iterator[Member]:
    """Yield the members of the tar, refusing what no file system holds.

    :raises PvmlabError: see :func:`pipeline.media.archive.read_archive`.
    """
    return read_archive(tar, limits=Limits(ratio=_NO_RATIO))


def _split(line: str) -> tuple[str, str]:
    word, _, text = line.partition(" ")
    return word, text


def _raise_if_full(error: ApplianceError, output: Path, bounds: JobLimits) -> None:
    """Say what a failed write means: the host's disk is full, or the tar is larger than allowed.

    :raises OSError: in the first case. :raises ApplianceError: in the second.
    """
    if error.kind != "write":
        return
    if "No space left" in error.text:  # the guest's disk has an end, the host's shows as an I/O error
        raise ApplianceError(
            "too-large", f"its root file system is larger than {bounds.tar} bytes",
            resolution="no distribution's is: check that the image is the one meant",
        ) from None  # fmt: skip
    space = os.statvfs(output)
    if space.f_bavail * space.f_frsize < (64 << 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(output)) from None
