"""Discs made to do harm (threat X9): only what is asked for comes out, nothing hangs, memory stays small."""

from __future__ import annotations

import contextlib
import json
import struct
import sys
import time
from pathlib import Path

import pytest

from pipeline.media import disc_libarchive
from pipeline.media.disc import DiscReader, inspect
from pipeline.media.disc_tree import UnreadableError
from pipeline.run import run
from pipeline.workspace import REPOSITORY
from tests.fakes import discs, hostile_discs

_MUTANTS, _NIGHTLY = 200, 20_000
_SLOWEST = 10.0  # seconds for one disc; the two of a test machine have other work
_SECTOR = 2048


def mutate(folder: Path, count: int) -> dict[str, int]:
    """Read *count* mutants in a process of their own and return how often each end came."""
    disc, place = discs.make_ubuntu_disc(folder), folder / "place"
    place.mkdir()
    argv: list[str | Path] = [sys.executable, "-m", hostile_discs.__name__, disc, place, str(count)]
    report = json.loads(run(argv, timeout=60 + count, cwd=REPOSITORY).stdout)
    assert report["faults"] == []
    assert report["slowest"] < _SLOWEST
    assert report["grown"] < 200 << 20
    assert {path.name for path in folder.iterdir()} == {"ubuntu", "ubuntu.iso", "place"}
    ends: dict[str, int] = report["ends"]
    return ends


def test_two_hundred_mutated_discs(tmp_path: Path) -> None:
    ends = mutate(tmp_path, _MUTANTS)
    assert sum(count for end, count in ends.items() if end.startswith(("read", "refused"))) == _MUTANTS
    for end in ("same bytes", "DiscError", "refused: DiscError", *(f"read by {reader}" for reader in DiscReader)):
        assert ends[end] > 5, ends


@pytest.mark.nightly
def test_many_mutated_discs(tmp_path: Path) -> None:
    mutate(tmp_path, _NIGHTLY)


def place(record: bytearray, offset: int, *, start: int, size: int) -> None:
    """Write where the content of the directory record at *offset* is, both ways round."""
    for number, at in ((start, offset + 2), (size, offset + 10)):
        struct.pack_into("<I", record, at, number)
        struct.pack_into(">I", record, at + 4, number)


def test_a_directory_that_would_take_pycdlib_an_hour_does_not(tmp_path: Path) -> None:
    """60,000 names in the wrong order: pycdlib puts each in its place by renumbering all that come after it."""
    tree = discs.write_tree(tmp_path / "tree", {"first": b"1"})
    data = bytearray(discs.make_iso(tree, tmp_path / "disc.iso", "--norock", label="SLOW").read_bytes())
    root = struct.unpack_from("<I", data, 16 * _SECTOR + 158)[0] * _SECTOR
    entries = data[root : root + 2 * 34]  # "." and ".."
    for number in range(60_000, 0, -1):
        record = bytearray(38)
        record[0], record[32], record[33:38], record[28:32] = len(record), 5, b"%05d" % number, b"\1\0\0\1"
        if len(entries) % _SECTOR + len(record) > _SECTOR:
            entries += bytes(-len(entries) % _SECTOR)
        entries += record
    entries += bytes(-len(entries) % _SECTOR)
    data += bytes(-len(data) % _SECTOR)
    start = len(data) // _SECTOR
    place(data, 16 * _SECTOR + 156, start=start, size=len(entries))
    place(entries, 0, start=start, size=len(entries))
    struct.pack_into("<I", data, 16 * _SECTOR + 80, start + len(entries) // _SECTOR)
    (tmp_path / "slow.iso").write_bytes(data + entries)
    begin = time.monotonic()
    found = inspect(tmp_path / "slow.iso")
    assert time.monotonic() - begin < _SLOWEST
    assert (found.reader, len(found.members)) == (DiscReader.LIBARCHIVE, 60_000)


def test_a_file_at_the_disc_s_beginning_does_not_make_libarchive_go_on_for_ever(tmp_path: Path) -> None:
    """libarchive 3.6.2 lists such a disc again and again, and takes more and more memory; a later one may not."""
    data = bytearray(discs.make_ubuntu_disc(tmp_path).read_bytes())
    place(data, data.index(b"VMLINUZ.;1") - 33, start=0, size=5000)
    (tmp_path / "loop.iso").write_bytes(data)
    begin = time.monotonic()
    with (tmp_path / "loop.iso").open("rb") as stream, contextlib.suppress(UnreadableError):
        assert len(disc_libarchive.read_tree(stream.fileno()).files) < 20
    assert time.monotonic() - begin < _SLOWEST
