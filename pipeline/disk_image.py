"""Bootable disk content from tars, without root: an ext4 file system made by ``mke2fs -d``, as qcow2.

Equal tars give equal images, whatever the host's file system, clock, umask and ``/etc/mke2fs.conf``.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.artifact import Making
from pipeline.errors import PvmlabError
from pipeline.run import run

# The seed of mke2fs' directory hashes, fixed.
_HASH_SEED = "7d1bd3a2-4a0f-4c55-9d7e-1c1c47c4d2a1"
_CONFIGURATION = """\
[defaults]
base_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
default_mntopts = acl,user_xattr
enable_periodic_fsck = 0
blocksize = 4096
inode_size = 256
inode_ratio = 16384
[fs_types]
ext4 = {
features = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
}
"""
_INODES = re.compile(r"^Inode count: +(\d+)$", re.MULTILINE)
_FREE_INODES = re.compile(r"^ +Free inodes: (.+)$", re.MULTILINE)
# For tar: in a user namespace nobody may make device nodes, and the kernel makes them itself in a running system.
NO_DEVICES = "--exclude=./dev/*"
_ROOT_INODE, _LAST_RESERVED_INODE = 2, 10
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
    layers: Sequence[Unpacked], *, label: str, uuid: str, size_gib: int, epoch: int, making: Making, output: Path
) -> None:
    """Write *output*: a qcow2 disk that is one ext4 file system with the unpacked *layers*, in their order.

    :param size_gib: virtual size in GiB; only what is used takes space.
    :param epoch: seconds since 1970: the time of the file system, and of what is younger in the layers.
    :raises CommandError: if a tool fails, for instance because the content does not fit.
    """
    tree, raw, configuration = (making.scratch / name for name in ("tree", "disk.raw", "mke2fs.conf"))
    configuration.write_text(_CONFIGURATION)
    environment = {"MKE2FS_CONFIG": str(configuration), "E2FSPROGS_FAKE_TIME": str(epoch)}
    making.report("unpacking layers")
    try:
        _unpack(layers, tree, epoch=epoch, making=making)
        making.report("making the file system")
        features = f"root_owner=0:0,hash_seed={_HASH_SEED},lazy_itable_init=0,lazy_journal_init=0,nodiscard"
        run(
            as_root(
                ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", label, "-U", uuid, "-E", features, "-d", tree,
                 raw, f"{size_gib}G"]
            ),
            timeout=_TIMEOUT, log=making.log, env=environment,
        )  # fmt: skip
    finally:
        # its files may belong to the namespace's ids, not to us
        run(as_root(["rm", "--recursive", "--force", tree]), timeout=_TIMEOUT, cleanup=True)
    _fix_times(raw, epoch=epoch, script=making.scratch / "times")
    making.report("converting to qcow2")
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, output], timeout=_TIMEOUT, log=making.log)


def _unpack(layers: Sequence[Unpacked], tree: Path, *, epoch: int, making: Making) -> None:
    tree.mkdir()
    for layer in layers:
        place = tree / layer.prefix
        # unlike mkdir it gives missing parents this mode too, whatever the umask is
        _run_as_root(["install", "--directory", "--mode=0755", place], making)
        _run_as_root(
            ["tar", "--extract", "--file", layer.archive, "--directory", place, "--numeric-owner",
             "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--keep-directory-symlink", NO_DEVICES],
            making,
        )  # fmt: skip
    # Directories that a later layer added something to are as old as that moment.
    _run_as_root(
        ["find", tree, "-newermt", f"@{epoch}",
         "-exec", "touch", "--no-dereference", f"--date=@{epoch}", "{}", "+"],
        making,
    )  # fmt: skip


def _fix_times(raw: Path, *, epoch: int, script: Path) -> None:
    """Set the times of access and change of all files, which nobody can set in a tree: mke2fs took them from it."""
    listing = run(["dumpe2fs", raw], timeout=_TIMEOUT).stdout
    commands = (f"sif <{inode}> {time} @{epoch}\n" for inode in used_inodes(listing) for time in ("atime", "ctime"))
    script.write_text("".join(commands))
    run(["debugfs", "-w", "-f", script, raw], timeout=_TIMEOUT, env={"E2FSPROGS_FAKE_TIME": str(epoch)})


def used_inodes(listing: str) -> Iterator[int]:
    """Yield the numbers of the inodes that files have, read off the output of ``dumpe2fs``.

    :raises PvmlabError: if it does not tell.
    """
    count = _INODES.search(listing)
    if count is None:
        raise PvmlabError("dumpe2fs does not tell how many inodes there are", details=listing[:1000])
    free: set[int] = set()
    for text in filter(None, ", ".join(_FREE_INODES.findall(listing)).split(", ")):
        first, _, last = text.partition("-")
        free.update(range(int(first), int(last or first) + 1))
    yield from (
        inode
        for inode in range(1, int(count[1]) + 1)
        if inode not in free and (inode == _ROOT_INODE or inode > _LAST_RESERVED_INODE)
    )


def _run_as_root(argv: Sequence[str | Path], making: Making) -> None:
    run(as_root(argv), timeout=_TIMEOUT, log=making.log)
