"""Phase 5: stream the root filesystem onto the disk.

    HTTP --sha256, size limit--> zstd --> tar

Nothing is stored on the way, so a wrong digest is known only when all is written: the caller then wipes the disk.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from contracts.install import PayloadSource
from installer.command import Pipeline
from installer.download import OnProgress, download

_STALL = 180.0  # seconds without a byte taken by the disk, or given by the server


def unpack(source: PayloadSource, root: Path, *, on_progress: OnProgress) -> None:
    """Unpack the archive *source* into *root*, with owners, modes and extended attributes.

    :param on_progress: called with the number of compressed bytes taken so far, after each piece.
    :raises InstallError: if the archive cannot be had, or is not the one promised.
    :raises CommandError: if it cannot be unpacked.
    """
    extract = [
        "tar", "--extract", "--directory", str(root),
        "--numeric-owner", "--same-permissions",
        "--xattrs", "--xattrs-include=*",  # file capabilities, as ping's
    ]  # fmt: skip
    _let_memory_buffer()
    with Pipeline(["zstd", "--decompress", "--stdout", "--quiet"], extract, stall=_STALL) as pipeline:
        download(source, what="the root filesystem", write=pipeline.write, on_progress=on_progress)
        pipeline.finish()


def _let_memory_buffer() -> None:
    """Have the kernel start writing early and block late, so that the disk and the unpacking work at the same time.

    By default (vm.dirty_ratio) whoever writes is stopped at a fifth of the memory: a quarter of what is unpacked.
    """
    for name, percent in (("dirty_background_ratio", 2), ("dirty_ratio", 60)):
        with contextlib.suppress(OSError):  # slower, but no reason to fail
            Path(f"/proc/sys/vm/{name}").write_text(f"{percent}\n")
