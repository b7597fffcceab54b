"""What is done with a root filesystem archive as a whole."""

from __future__ import annotations

from pathlib import Path

import zstandard


def decompress(rootfs: Path, plain: Path) -> None:
    """Write the archive uncompressed to *plain*."""
    with rootfs.open("rb") as source, plain.open("wb") as sink:
        zstandard.ZstdDecompressor().copy_stream(source, sink)
