"""Which base images the disks of a lab stand on: without its base an overlay is nothing."""

from __future__ import annotations

from pathlib import Path

from lab.disks import disk_info
from lab.lab import Lab
from lab.layers import layers_folder
from pipeline.errors import CommandError, ConflictError


def base_images(lab: Lab) -> set[Path]:
    """Return the base images of all disks in the lab's home.

    :raises ConflictError: if that cannot be told of a disk: then no image may be removed.
    :raises MissingProgramError: if there are disks, and no qemu-img to read them.
    """
    frozen = layers_folder(lab.home).glob("*.qcow2")  # disks that others, or only snapshots, stand on
    found = (_base_of(disk) for disk in sorted([*lab.home.disks.glob("*.qcow2"), *frozen]))
    return {base for base in found if base is not None}


def _base_of(disk: Path) -> Path | None:
    try:
        return disk_info(disk).backing_file
    except CommandError as error:
        raise ConflictError(
            f"nobody can tell which base image the disk {disk.name} needs",
            details=f"{disk}\n{error.details}",
            resolution="remove the disk if it is of no use; ./pvmlab vm.clean removes a machine with its disk",
        ) from None
