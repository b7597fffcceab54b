"""The kernel of a root filesystem and the distribution's own initrd, as files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline import cpio
from pipeline.kernel.rootfs import NoKernelError, read_kernels


@dataclasses.dataclass(frozen=True, kw_only=True)
class BootFiles:
    """What was written. :ivar kver: the kernel's version. :ivar has_initrd: whether an initrd was found."""

    kver: str
    has_initrd: bool


def extract_boot_files(rootfs: Path, *, vmlinuz: Path, initrd: Path | None = None) -> BootFiles:
    """Write the kernel that *rootfs* boots, and its initrd, to these files, as they are in it.

    Our installer brings an initrd of its own, so a distribution without one can be installed: then an archive without
    files is written, which the kernel takes like none at all.

    :raises NoKernelError: if there is no kernel. :raises PvmlabError: see :meth:`pipeline.kernel.rootfs.choose`.
    """
    kernels = read_kernels(rootfs, initrds=initrd is not None)
    versions = kernels.versions()
    if not versions:
        raise NoKernelError(rootfs, kernels.modules)
    kver = kernels.choose()
    vmlinuz.write_bytes(kernels.files[versions[kver]])
    found = kernels.initrd(kver)
    if initrd is not None:
        if found is not None:
            initrd.write_bytes(found)
        else:
            with initrd.open("wb") as stream:
                cpio.write(stream, ())
    return BootFiles(kver=kver, has_initrd=found is not None)
