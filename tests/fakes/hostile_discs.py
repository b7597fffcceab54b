"""Discs whose directories lie: names, loops, extents and sizes, and bits flipped at random, made from a seed.

``python -m tests.fakes.hostile_discs DISC FOLDER COUNT`` mutates DISC that many times, inspects each mutant, takes
files out of it into FOLDER, and prints one document of JSON: how often each end came, and what was wrong.
"""

from __future__ import annotations

import collections
import json
import random
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import PvmlabError
from pipeline.media.disc import inspect
from tests.fakes.discs import ubuntu_files

_SECTOR = 2048
_DIRECTORIES = range(16, 80)  # sectors: descriptors, path tables and directories are in these
WANTED = ("casper/vmlinuz", "casper/initrd", ".disk/info")
Mutation = Callable[[bytearray, random.Random], None]


def _record(data: bytearray, rng: random.Random) -> int:
    """Return where a directory record begins: the system use field of each begins with RR or PX."""
    places, place = list[int](), data.find(b"PX\x24\x01")
    while place != -1:
        places.append(place)
        place = data.find(b"PX\x24\x01", place + 1)
    place = rng.choice(places)
    for start in range(place - 34, max(place - 120, 0), -1):
        length = 33 + data[start + 32] + (data[start + 32] + 1) % 2
        is_near = place - 5 <= start + length <= place
        if data[start] > length and is_near and data[start + 28 : start + 30] == b"\1\0":
            return start
    return place - 34


def _number(data: bytearray, place: int, value: int) -> None:
    struct.pack_into("<I", data, place, value)
    struct.pack_into(">I", data, place + 4, value)


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """Flip some bits of directories and descriptors."""
    for _ in range(rng.randrange(1, 30)):
        data[rng.randrange(_DIRECTORIES.start * _SECTOR, _DIRECTORIES.stop * _SECTOR)] ^= 1 << rng.randrange(8)


def move_extent(data: bytearray, rng: random.Random) -> None:
    """Have something begin beyond the end, at the root, or at a directory above: a loop."""
    root = struct.unpack_from("<I", data, 16 * _SECTOR + 158)[0]
    places = [0xFFFFFFFF, 0x7FFFFFFF, len(data) // _SECTOR - 1, root, root + 1, 0]
    _number(data, _record(data, rng) + 2, rng.choice(places))


def grow(data: bytearray, rng: random.Random) -> None:
    """Have something be huge: a file or a directory."""
    _number(data, _record(data, rng) + 10, rng.choice([0xFFFFFFFF, 0x80000000, len(data), 1 << 26]))


def rename(data: bytearray, rng: random.Random) -> None:
    """Have a name be a path, or not a name at all."""
    old = rng.choice([b"vmlinuz", b"initrd", b"casper", b"md5sum.txt", b"install-sources.yaml", b"noble", b"info"])
    evil = rng.choice(
        [b"../../../../evil", b"/evil/evil/evil", b"a/../b/../../c", b"\0\0\0\0\0\0\0\0\0\0", b"..\n\n\n\n\n\n\n\n"]
    )
    new = (evil * 3)[: len(old)]
    data[:] = data.replace(old, new)


def change_flags(data: bytearray, rng: random.Random) -> None:
    """Have files be directories, parts of others, or interleaved."""
    record = _record(data, rng)
    data[record + 25] ^= rng.choice([0x02, 0x80, 0x04, 0x10])
    data[record + 26] = rng.choice([0, 0, 5])


def lengthen(data: bytearray, rng: random.Random) -> None:
    """Have a record or its name be longer than it is."""
    record = _record(data, rng)
    data[record + rng.choice([0, 32, 1])] = rng.choice([0, 1, 33, 34, 254, 255])


def link_out(data: bytearray, rng: random.Random) -> None:
    """Have symbolic links point elsewhere, and continuation areas at themselves."""
    for sign, field in ((b"SL", 5), (b"CE", 4)):
        place = data.find(sign, _DIRECTORIES.start * _SECTOR)
        while place != -1 and place < _DIRECTORIES.stop * _SECTOR:
            if rng.random() < 0.5:
                data[place + field] = rng.choice([0, 2, 4, 8, 255])
            place = data.find(sign, place + 1)


def repeat(data: bytearray, rng: random.Random) -> None:
    """Have one directory's blocks be another's too."""
    sectors = [rng.randrange(_DIRECTORIES.start + 3, _DIRECTORIES.stop) * _SECTOR for _ in range(2)]
    data[sectors[0] : sectors[0] + _SECTOR] = data[sectors[1] : sectors[1] + _SECTOR]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, move_extent, grow, rename, change_flags, lengthen, link_out, repeat,
)  # fmt: skip


def mutant(original: bytes, seed: int) -> bytes:
    """Return the disc *original* with one to three mutations."""
    rng, data = random.Random(seed), bytearray(original)
    MUTATIONS[seed % len(MUTATIONS)](data, rng)
    for mutation in rng.choices(MUTATIONS, k=rng.randrange(3)):
        mutation(data, rng)
    return bytes(data)


def main(disc: Path, folder: Path, count: int) -> None:
    """Inspect and extract *count* mutants and print what came of it."""
    original, files = disc.read_bytes(), ubuntu_files()
    ends, faults, slowest = collections.Counter[str](), list[str](), 0.0
    inspect(disc).read(".disk/info")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in range(count):
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "disc").mkdir()
        (folder / "out").mkdir()
        path = folder / "disc" / "mutant.iso"
        path.write_bytes(mutant(original, seed))
        start, names = time.monotonic(), set[str]()
        try:
            found = inspect(path)
            ends[f"read by {found.reader}"] += 1
            for name in WANTED:
                output = folder / "out" / name.replace("/", "_")
                names.add(output.name)
                try:
                    found.extract({name: output})
                    ends["same bytes" if output.read_bytes() == files[name] else "other bytes"] += 1
                except PvmlabError as error:
                    ends[type(error).__name__] += 1
        except PvmlabError as error:
            ends[f"refused: {type(error).__name__}"] += 1
        except Exception as error:  # noqa: BLE001 (what the test is about)
            faults.append(f"{seed}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.monotonic() - start)
        written = {item.name for item in (folder / "out").iterdir()}
        if not written <= names or {item.name for item in folder.iterdir()} != {"disc", "out"}:
            faults.append(f"{seed}: wrote {written}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    json.dump({"ends": ends, "faults": faults, "slowest": round(slowest, 3), "grown": grown}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
