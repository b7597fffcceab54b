"""Archives that want out: names, links, chains, repeats, devices, cuts and flipped bits, made from a seed.

``python -m tests.fakes.hostile_archives FOLDER`` reads each file in FOLDER as an archive with :data:`BOMB_LIMITS` and
prints a line of JSON for each: how it ended, bytes that came out, seconds, and by how many bytes memory has grown.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import random
import resource
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import zstandard

from pipeline.errors import PvmlabError
from pipeline.media.archive import read_archive
from pipeline.media.limits import Limits
from pipeline.media.member import Member, MemberKind
from tests.fakes.archives import Item, cpio, directory, symlink, tar

BOMB_LIMITS = Limits(total=64 << 20, member=48 << 20, members=20_000, ratio=1 << 30)
_NAMES = ("a", "b", "c", "d/e", "d/f", "d", "a/x", "b/y", "./a", "a/", "d/./e", "usr/bin/tool")
_CONTENTS = (b"", b"content", b"x" * 3000)
_NODES = (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)


def hostile_items(rng: random.Random, outside: Path) -> list[Item]:
    """Return up to eight members that try to write into the folder *outside*, which is beside the target."""
    evil = f"evil{rng.randrange(1000)}"
    ways = [f"../{outside.name}/{evil}", f"{outside}/{evil}", f"d/../../{outside.name}/{evil}", f"../{evil}",
            f"./../{outside.name}/canary", f"{outside}/canary"]  # fmt: skip
    targets = [str(outside), f"../{outside.name}", f"../../{outside.name}", ".", "..", "a", "d", "/",
               f"{outside}/canary", f"../{outside.name}/canary", "b/../.."]  # fmt: skip

    def item() -> Item:
        name = rng.choice(_NAMES) if rng.random() < 0.85 else rng.choice(ways)
        if rng.random() < 0.02:
            name += rng.choice(["\n", "\x1b[31m", "/..", "\udcff", "/" + "n" * 300])
        what = rng.random()
        if what < 0.35:
            return Item(name, rng.choice(_CONTENTS), mode=rng.choice([0o644, 0o4755, 0o0]))
        if what < 0.5:
            return directory(name)
        if what < 0.75:
            return symlink(name, rng.choice(targets))
        if what < 0.9:
            return Item(name, hardlink=rng.choice([*ways, *_NAMES]), inode=rng.randrange(3), links=2)
        return Item(name, kind=rng.choice(_NODES), device=(rng.randrange(10), rng.randrange(10)))

    items = [item() for _ in range(rng.randrange(1, 8))]
    if rng.random() < 0.5:  # a link, and something through it
        link = rng.choice(["l", "d/l", "l/m"])
        items += [symlink(link, rng.choice(targets)), Item(f"{link}/{evil}", b"evil")]
    if rng.random() < 0.1:
        items = [directory("d"), Item("d/good", b"good"), Item("also", hardlink="d/good"), symlink("l", "d/good")]
    return items


def hostile_archive(rng: random.Random, items: list[Item]) -> bytes:
    """Return *items* as a tar or cpio, now and then compressed, cut or with flipped bits."""
    form = rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, None])
    data = bytearray(cpio(items) if form is None else tar(items, form=form))
    if rng.random() < 0.15:
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    if rng.random() < 0.2:
        data = bytearray(gzip.compress(data, 1))
    return bytes(data[: rng.randrange(len(data))] if rng.random() < 0.1 else data)


def write_out(members: Iterable[Member], folder: Path) -> None:
    """Write *members* below *folder* as a trusting program does: it follows every link, and goes on after failures."""
    for member in members:
        with contextlib.suppress(OSError, ValueError):
            path = folder / member.path
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.kind is MemberKind.DIRECTORY:
                path.mkdir(exist_ok=True)
            elif member.kind is MemberKind.SYMLINK:
                path.symlink_to(member.target)
            elif member.kind is MemberKind.HARDLINK:
                path.hardlink_to(folder / member.target)
            elif member.kind is MemberKind.FILE:
                path.write_bytes(b"".join(member.content))


def as_members(items: Iterable[Item]) -> Iterable[Member]:
    """Yield *items* as members without any check, to see what they would do."""
    kinds = {stat.S_IFREG: MemberKind.FILE, stat.S_IFDIR: MemberKind.DIRECTORY, stat.S_IFLNK: MemberKind.SYMLINK}
    for item in items:
        kind = MemberKind.HARDLINK if item.hardlink else kinds.get(item.kind, MemberKind.FIFO)
        content = [item.content]
        yield Member(path=item.name, kind=kind, mode=item.mode, target=item.hardlink or item.target, content=content)


def bombs() -> dict[str, bytes]:
    """Return thirty archives by name, small, that decompress to a GiB or more, or claim to."""
    zeros, many = bytes(16 << 20), 64  # times: 1 GiB
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress, "bz2": bz2.compress,
    }  # fmt: skip
    small = tar([Item("a", b"a")])
    huge_tar = _claiming(tar([Item("huge")], form=tarfile.GNU_FORMAT)[:512], 1 << 30)
    parts = _claiming(tar([Item("part")], form=tarfile.GNU_FORMAT)[:512], 16 << 20)
    long_name = _claiming(tar([Item("n" * 200)], form=tarfile.GNU_FORMAT)[:512], 1 << 30)
    huge_cpio = cpio([Item("huge")])[:116].replace(b"00000000" * 2 + b"00000001", b"0" * 24)
    sparse = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,5"}
    found: dict[str, bytes] = {}
    for name, compress in compressors.items():
        block = compress(zeros)
        found |= {
            f"file.{name}": compress(huge_tar) + block * many,
            f"trailer.{name}": compress(small) + block * many,
            f"name.{name}": compress(long_name) + block * many,
            f"zeros.{name}": block * many,
            f"nested.{name}": compress(compress(small) + block * many),
            f"parts.{name}": b"".join(compress(_renamed(parts, number)) + block for number in range(many)),
        }
    members = b"".join(_renamed(_claiming(small[:512], 0), number) for number in range(30_000))
    found |= {
        "members.tar": members,
        "members.gz": gzip.compress(members, 1),
        "sparse.tar": tar([Item("a", b"hello", pax=sparse)]),
        "cpio.gz": gzip.compress(huge_cpio, 9) + compressors["gz"](zeros) * many,
        "claim.tar": huge_tar + bytes(1024),
        "claims.tar": b"".join(_renamed(_claiming(parts, 40 << 20), number) for number in range(3)),
    }
    return found


def _claiming(header: bytes, size: int) -> bytes:
    """Return the tar *header* with another size, and a checksum that is right."""
    data = bytearray(header)
    data[124:136] = b"%011o\0" % size
    return _summed(data)


def _renamed(header: bytes, number: int) -> bytes:
    data = bytearray(header)
    data[:100] = (b"%d" % number).ljust(100, b"\0")
    return _summed(data)


def _summed(data: bytearray) -> bytes:
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def main(folder: Path) -> None:
    """Read the archives in *folder* and print what came of each."""
    list(read_archive(io.BytesIO(tar([Item("a")]))))  # libraries are loaded
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in sorted(folder.iterdir()):
        start, came, ended = time.monotonic(), 0, "well"
        try:
            for member in read_archive(path, limits=BOMB_LIMITS):
                for piece in member.content:
                    came += len(piece)
        except PvmlabError as error:
            ended = f"{type(error).__name__}: {error.details}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        seconds = round(time.monotonic() - start, 3)
        sys.stdout.write(
            json.dumps({"name": path.name, "ended": ended, "came": came, "seconds": seconds, "grown": grown})
        )
        sys.stdout.write(os.linesep)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
