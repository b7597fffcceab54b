"""Streaming a root filesystem over a real connection, through the real zstd and tar."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest
import zstandard

from contracts.install import PayloadSource
from installer import client, system
from installer.command import CommandError
from installer.download import download as fetch
from installer.errors import InstallError
from pipeline.run import find_program
from tests.integration.installer.conftest import Server

_RANDOM = random.Random(1).randbytes(3_000_000)


def make_archive() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in {"./etc/hostname": b"image\n", "./usr/random": _RANDOM}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o640
            archive.addfile(member, io.BytesIO(data))
    return zstandard.ZstdCompressor().compress(raw.getvalue())


ARCHIVE = make_archive()


@pytest.fixture
def source(server: Server, monkeypatch: pytest.MonkeyPatch) -> PayloadSource:
    monkeypatch.setattr(client, "_FIRST_PAUSE", 0.01)
    server.bodies["/rootfs"] = ARCHIVE
    return PayloadSource(url=f"{server.url}/rootfs", sha256=hashlib.sha256(ARCHIVE).hexdigest(), size=len(ARCHIVE))


def download(source: PayloadSource) -> bytes:
    pieces: list[bytes] = []
    progress: list[int] = []
    fetch(source, what="the root filesystem", write=pieces.append, on_progress=progress.append)
    assert progress == sorted(progress)
    assert progress[-1] == source.size
    return b"".join(pieces)


def test_an_archive_is_unpacked_with_its_modes(source: PayloadSource, tmp_path: Path) -> None:
    if find_program("zstd") is None:
        pytest.skip("zstd is not installed; the initrd has its own")
    system.unpack(source, tmp_path, on_progress=lambda taken: None)
    assert (tmp_path / "usr/random").read_bytes() == _RANDOM
    assert (tmp_path / "etc/hostname").stat().st_mode & 0o777 == 0o640


def test_an_archive_that_is_no_archive_fails_in_zstd(source: PayloadSource, server: Server, tmp_path: Path) -> None:
    if find_program("zstd") is None:
        pytest.skip("zstd is not installed; the initrd has its own")
    server.bodies["/rootfs"] = _RANDOM
    wrong = dataclasses.replace(source, size=len(_RANDOM), sha256=hashlib.sha256(_RANDOM).hexdigest())
    with pytest.raises(CommandError, match=r"tar|zstd") as caught:
        system.unpack(wrong, tmp_path, on_progress=lambda taken: None)
    assert any("zstd" in line for line in caught.value.lines)


def test_one_flipped_bit_is_noticed(source: PayloadSource, server: Server) -> None:
    server.bodies["/rootfs"] = ARCHIVE[:-1] + bytes([ARCHIVE[-1] ^ 1])
    with pytest.raises(InstallError, match="not the one promised") as caught:
        download(source)
    assert f"expected sha256 {source.sha256}" in caught.value.lines


def test_a_stream_that_is_cut_is_resumed_where_it_stopped(source: PayloadSource, server: Server) -> None:
    server.cut_after = 1_000_000
    assert download(source) == ARCHIVE
    assert [offset for _, offset in server.requests] == [0, 1_000_000, 2_000_000, 3_000_000]


def test_a_stream_that_is_cut_again_and_again_is_given_up(source: PayloadSource, server: Server) -> None:
    server.cut_after = 100_000
    with pytest.raises(
        InstallError, match=r"stopped at 600000 of \d+ bytes, and after 5 resumptions still: the connection"
    ):
        download(source)
    assert len(server.requests) == 6


def test_a_server_that_is_restarted_is_waited_for(
    source: PayloadSource, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_LONGEST_PAUSE", 0.02)
    server.cut_after, server.failures_after_cut = 1_000_000, 20
    assert download(source) == ARCHIVE
    assert [offset for _, offset in server.requests][:22] == [0, *[1_000_000] * 21]


def test_a_server_that_does_not_come_back_is_given_up(
    source: PayloadSource, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RESTART_WITHIN", 0.3)
    monkeypatch.setattr(client, "_LONGEST_PAUSE", 0.05)
    server.failures = 1000
    with pytest.raises(InstallError, match=r"stopped at 0 of \d+ bytes, and after 0\.3 s still: .* answered 503"):
        download(source)
    assert len(server.requests) > 5


def test_a_server_that_cannot_resume_is_said_so(source: PayloadSource, server: Server) -> None:
    server.cut_after, server.ranges = 1_000_000, False
    with pytest.raises(InstallError, match=r"answered 200|stopped at"):
        download(source)


@pytest.mark.parametrize("lie", [-1, 1])
def test_another_size_than_promised_is_refused_before_anything_is_written(
    source: PayloadSource, server: Server, lie: int
) -> None:
    server.lie = lie
    taken: list[bytes] = []
    with pytest.raises(InstallError, match=r"offers \d+ bytes from 0, the configuration says \d+ from 0"):
        fetch(source, what="the root filesystem", write=taken.append, on_progress=lambda taken: None)
    assert taken == []


def test_a_missing_archive_is_a_plain_error(source: PayloadSource, server: Server) -> None:
    server.bodies.clear()
    with pytest.raises(InstallError, match="answered 404: unknown machine"):
        download(source)
    assert len(server.requests) == 1
