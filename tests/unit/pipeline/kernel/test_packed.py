"""Compressed files are unpacked whole, or not at all."""

from __future__ import annotations

import io

import pytest
import zstandard

from pipeline.kernel.packed import DamagedFileError, unpack
from tests.fakes.kernels import COMPRESS

CONTENT = bytes(range(256)) * 40
ALL = pytest.mark.parametrize("suffix", ["xz", "zst", "gz"])


def compress(suffix: str, data: bytes = CONTENT) -> bytes:
    return COMPRESS[f".{suffix}"](data)


@ALL
@pytest.mark.parametrize("content", [CONTENT, b""])
def test_what_was_compressed_comes_back(suffix: str, content: bytes) -> None:
    assert unpack(compress(suffix, content), suffix, limit=len(content), name="m") == content


@ALL
def test_several_pieces_are_one_content(suffix: str) -> None:
    packed = compress(suffix) + compress(suffix, b"more") + compress(suffix, b"")
    assert unpack(packed, suffix, limit=1 << 20, name="m") == CONTENT + b"more"


def test_a_zstd_frame_need_not_say_its_size() -> None:
    raw = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as packed:
        packed.write(CONTENT)
    assert unpack(raw.getvalue(), "zst", limit=len(CONTENT), name="m") == CONTENT


@ALL
def test_cut_off_at_any_byte_is_refused(suffix: str) -> None:
    packed = compress(suffix) + compress(suffix)
    whole = len(compress(suffix))
    for size in range(1, len(packed)):
        if size != whole:
            with pytest.raises(DamagedFileError, match="m is damaged"):
                unpack(packed[:size], suffix, limit=1 << 20, name="m")


@ALL
def test_something_else_is_refused(suffix: str) -> None:
    with pytest.raises(DamagedFileError):
        unpack(b"not compressed at all", suffix, limit=1 << 20, name="m")
    with pytest.raises(DamagedFileError):
        unpack(compress(suffix) + b"rubbish behind it", suffix, limit=1 << 20, name="m")


@ALL
def test_a_bomb_stops_at_the_limit(suffix: str) -> None:
    with pytest.raises(DamagedFileError) as caught:
        unpack(compress(suffix, bytes(8 << 20)), suffix, limit=1 << 20, name="m")
    assert caught.value.details == "it unpacks to more than any such file has"


def test_a_bomb_that_does_not_say_its_size_stops_at_the_limit() -> None:
    raw = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as packed:
        for _ in range(64):
            packed.write(bytes(1 << 20))
    with pytest.raises(DamagedFileError, match="damaged"):
        unpack(raw.getvalue(), "zst", limit=1 << 20, name="m")
