"""What recipes of root filesystems that others made have in common: the code that reads and writes their members."""

from __future__ import annotations

from pipeline.workspace import in_repository

SOURCES = in_repository(
    "pipeline/media/archive.py", "pipeline/media/decompression.py", "pipeline/media/installed_packages.py",
    "pipeline/media/libarchive_binding.py", "pipeline/media/limits.py", "pipeline/media/member.py",
    "pipeline/media/names.py", "pipeline/media/rootfs_tar.py", "pipeline/media/tar_writer.py",
    "pipeline/recipes/foreign_rootfs.py",
)  # fmt: skip
"""A change there makes all of them again."""
