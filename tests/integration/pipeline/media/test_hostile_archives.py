"""Archives made to do harm (threats X1 to X8 and X10): nothing outside is touched, nothing hangs, nothing fills up."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import random
import shutil
import signal
import stat
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import zstandard

from pipeline.errors import PvmlabError
from pipeline.media.archive import DamagedArchiveError, read_archive
from pipeline.media.member import Member
from pipeline.run import run
from pipeline.workspace import REPOSITORY
from tests.fakes import hostile_archives
from tests.fakes.archives import Item, cpio, directory, symlink, tar

_ARCHIVES, _NIGHTLY = 10_000, 1_000_000
_WATCHDOG = 2.0  # seconds for one archive
_CUTS = 500


class Arena:
    """A folder to unpack into, and beside it one that nobody may touch."""

    def __init__(self, root: Path) -> None:
        self.root, self.target, self.outside = root, root / "target", root / "outside"
        self.reset()
        self._before = self._state()

    def reset(self) -> None:
        """Make both folders anew."""
        shutil.rmtree(self.root)
        self.outside.mkdir(parents=True)
        (self.outside / "canary").write_bytes(b"alive")
        self.target.mkdir()

    def is_untouched(self) -> bool:
        """Return whether all outside the target is as it was."""
        return self._state() == self._before

    def _state(self) -> object:
        canary = self.outside / "canary"
        links = canary.lstat().st_nlink if canary.exists() else 0
        content = canary.read_bytes() if links and stat.S_ISREG(canary.lstat().st_mode) else b""
        return sorted(self.root.iterdir()), sorted(self.outside.iterdir()), content, links

    def nodes(self) -> list[Path]:
        """Return what is in the target and neither a file, a directory nor a link."""
        found = (Path(folder) / name for folder, _, names in os.walk(self.target) for name in names)
        return [path for path in found if not (path.is_symlink() or path.is_file() or path.is_dir())]


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    (tmp_path / "arena").mkdir()
    return Arena(tmp_path / "arena")


@pytest.fixture
def watchdog() -> Iterator[Callable[[], None]]:
    """Return what starts the watchdog anew; if nobody does so in time, the test fails."""

    def bark(_number: int, _frame: types.FrameType | None) -> NoReturn:
        raise TimeoutError(f"an archive took more than {_WATCHDOG} s")

    before = signal.signal(signal.SIGALRM, bark)

    def wind_up() -> None:
        signal.setitimer(signal.ITIMER_REAL, _WATCHDOG)

    yield wind_up
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def unpack_many(count: int, arena: Arena, watchdog: Callable[[], None], *, seed: int) -> collections.Counter[str]:
    """Unpack *count* hostile archives, each into an empty folder; return how often each end came."""
    rng, ends = random.Random(seed), collections.Counter[str]()
    for number in range(count):
        archive = hostile_archives.hostile_archive(rng, hostile_archives.hostile_items(rng, arena.outside))
        watchdog()
        members = list[Member]()
        try:
            hostile_archives.write_out(_noted(read_archive(io.BytesIO(archive)), members), arena.target)
            ends["accepted"] += 1
        except PvmlabError as error:
            ends[type(error).__name__] += 1
        assert arena.is_untouched(), f"archive {number} of seed {seed} wrote outside"
        if members:
            assert not arena.nodes(), f"archive {number} of seed {seed} made a node"
            shutil.rmtree(arena.target)
            arena.target.mkdir()
    return ends


def _noted(members: Iterator[Member], seen: list[Member]) -> Iterator[Member]:
    for member in members:
        seen.append(member)
        yield member


def test_ten_thousand_hostile_archives(arena: Arena, watchdog: Callable[[], None]) -> None:
    ends = unpack_many(_ARCHIVES, arena, watchdog, seed=1)
    assert ends.total() == _ARCHIVES
    assert set(ends) == {"accepted", "HostileArchiveError", "DamagedArchiveError"}
    assert all(count > _ARCHIVES // 25 for count in ends.values()), ends


@pytest.mark.nightly
def test_a_million_hostile_archives(arena: Arena, watchdog: Callable[[], None]) -> None:
    assert unpack_many(_NIGHTLY, arena, watchdog, seed=2).total() == _NIGHTLY


def test_the_archives_are_hostile_indeed(arena: Arena) -> None:
    """What is unpacked without our checks gets out, or the test above would show nothing."""
    rng, escaped = random.Random(1), 0
    for _ in range(200):
        items = hostile_archives.hostile_items(rng, arena.outside)
        hostile_archives.write_out(hostile_archives.as_members(items), arena.target)
        escaped += not arena.is_untouched()
        arena.reset()
    assert escaped > 60


def honest() -> list[Item]:
    """Return members of an honest archive, whose bytes do not compress."""
    noise = random.Random(3).randbytes
    return [directory("d"), Item("d/a", noise(3000)), symlink("l", "d/a"), Item("b", noise(1000)), Item("empty"),
            Item("c", bytes(800))]  # fmt: skip


def lz4(data: bytes, folder: Path) -> bytes:
    (folder / "plain").write_bytes(data)
    run(["lz4", "-q", "-f", folder / "plain", folder / "packed"], timeout=10)
    return (folder / "packed").read_bytes()


def all_forms(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the honest archive in each form, and how many of its bytes matter: the rest is padding."""
    plain, end = tar(honest()), 0
    for item in honest():
        end += 512 + -(-len(item.content) // 512) * 512
    newc = cpio(honest())
    forms = {"tar": (plain, end + 1024), "cpio": (newc, len(newc) - 3)}
    compressors: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": _zstd_with_checksum,
        "lz4": lambda data: lz4(data, folder),
    }  # fmt: skip
    packed = {f"tar.{name}": compress(plain) for name, compress in compressors.items()}
    packed["cpio.gz"] = gzip.compress(newc)
    return forms | {name: (data, len(data)) for name, data in packed.items()}


def _zstd_with_checksum(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)  # as the program zstd does


def test_lz4_is_read(tmp_path: Path) -> None:
    found = [
        (member.path, b"".join(member.content)) for member in read_archive(io.BytesIO(lz4(tar(honest()), tmp_path)))
    ]
    assert found == [(item.name, item.content) for item in honest()]


_PRINT_NAMES = """
import sys
from pathlib import Path
from pipeline.media.archive import read_archive
print(*(ascii(word) for member in read_archive(Path(sys.argv[1])) for word in (member.path, member.target)))
"""


@pytest.mark.parametrize("pack", [tar, cpio])
def test_names_do_not_depend_on_the_locale(tmp_path: Path, pack: Callable[[list[Item]], bytes]) -> None:
    (tmp_path / "archive").write_bytes(pack([Item("Főtanúsítvány"), symlink("линк", "Főtanúsítvány")]))
    expected = " ".join(map(ascii, ["Főtanúsítvány", "", "линк", "Főtanúsítvány"]))
    for locale in ("C", "C.UTF-8"):
        argv: list[str | Path] = [sys.executable, "-c", _PRINT_NAMES, tmp_path / "archive"]
        printed = run(argv, timeout=60, env={"LC_ALL": locale, "PYTHONPATH": str(REPOSITORY)}).stdout
        assert printed.strip() == expected


def test_archives_cut_anywhere_are_damaged(tmp_path: Path, watchdog: Callable[[], None]) -> None:
    for name, (data, end) in all_forms(tmp_path).items():
        for number in range(_CUTS):
            watchdog()
            with pytest.raises(DamagedArchiveError):
                _read(data[: number * end // _CUTS])
        assert len(_read(data)) == len(honest()), name


def test_flipped_bits_are_noticed_where_there_is_a_checksum(tmp_path: Path, watchdog: Callable[[], None]) -> None:
    rng = random.Random(4)
    expected = _read(tar(honest()))
    for name, (data, _) in all_forms(tmp_path).items():
        if "." not in name:
            continue  # tar and cpio have none for contents
        for _ in range(100):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            watchdog()
            try:
                found = _read(bytes(flipped))
            except PvmlabError:
                continue
            assert found == expected, f"a flipped bit in {name} went unnoticed"  # in a time stamp, say


def _read(data: bytes) -> list[tuple[str, bytes]]:
    return [(member.path, b"".join(member.content)) for member in read_archive(io.BytesIO(data))]


def test_thirty_bombs_stop_at_the_cap(tmp_path: Path) -> None:
    bombs = hostile_archives.bombs()
    assert len(bombs) == 30
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    printed = run([sys.executable, "-m", hostile_archives.__name__, tmp_path], timeout=150, cwd=REPOSITORY).stdout
    reports = [json.loads(line) for line in printed.splitlines()]
    assert len(reports) == len(bombs)
    for report in reports:
        assert report["ended"].startswith(("ArchiveLimitError", "DamagedArchiveError")), report
        assert report["came"] <= hostile_archives.BOMB_LIMITS.total + (1 << 20), report
        assert report["seconds"] <= 5, report
        assert report["grown"] <= 200 << 20, report


def test_the_second_archive_cannot_use_a_link_of_the_first(arena: Arena) -> None:
    """Each archive has a folder of its own (X4): into one folder both would be accepted, and the canary be gone."""
    first, second = tar([symlink("l", str(arena.outside))]), tar([Item("l/canary", b"dead")])
    for data in (first, second):
        hostile_archives.write_out(read_archive(io.BytesIO(data)), arena.target)
        shutil.rmtree(arena.target)
        arena.target.mkdir()
    assert arena.is_untouched()
