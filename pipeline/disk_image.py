"""Bootable disk content from tars, without root: an ext4 file system made by ``mke2fs -d``, as qcow2."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact import Making
from pipeline.run import run

# The times mke2fs writes and the seed of its directory hashes: fixed, so that equal trees give equal images.
_FILE_SYSTEM_TIME = "1700000000"
_HASH_SEED = "7d1bd3a2-4a0f-4c55-9d7e-1c1c47c4d2a1"
_TIMEOUT = 900.0


@dataclasses.dataclass(frozen=True)
class Unpacked:
    """A tar to unpack at *prefix* (relative, empty for the root) of the file system."""

    archive: Path
    prefix: str = ""


def as_root(argv: Sequence[str | Path]) -> list[str | Path]:
    """Return *argv* as run by root, or by the root of a user namespace with a range of ids of its own.

    In both, files in a tar keep their owners; in the namespace they are mapped to the user's subordinate ids.
    """
    if os.geteuid() == 0:
        return list(argv)
    return ["unshare", "--user", "--map-root-user", "--map-auto", "--", *argv]


def make_ext4_qcow2(
    layers: Sequence[Unpacked], *, label: str, uuid: str, size_gib: int, making: Making, output: Path
) -> None:
    """Write *output*: a qcow2 disk that is one ext4 file system with the unpacked *layers*, in their order.

    :param size_gib: virtual size in GiB; only what is used takes space.
    :raises CommandError: if a tool fails, for instance because the content does not fit.
    """
    tree, raw = making.scratch / "tree", making.scratch / "disk.raw"
    try:
        tree.mkdir()
        for layer in layers:
            place = tree / layer.prefix
            _run(["mkdir", "--parents", place], making)
            _run(
                ["tar", "--extract", "--file", layer.archive, "--directory", place, "--numeric-owner",
                 "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--keep-directory-symlink"],
                making,
            )  # fmt: skip
        features = f"root_owner=0:0,hash_seed={_HASH_SEED},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        _run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", label, "-U", uuid, "-E", features, "-d", tree, raw,
             f"{size_gib}G"],
            making,
        )  # fmt: skip
    finally:
        # its files may belong to the namespace's ids, not to us
        run(as_root(["rm", "--recursive", "--force", tree]), timeout=_TIMEOUT, cleanup=True)
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, output], timeout=_TIMEOUT, log=making.log)


def _run(argv: Sequence[str | Path], making: Making) -> None:
    run(as_root(argv), timeout=_TIMEOUT, log=making.log, env={"E2FSPROGS_FAKE_TIME": _FILE_SYSTEM_TIME})
