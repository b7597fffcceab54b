"""Lists of checksums in all forms, and which line is meant."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ChecksumError, NotFoundError, PvmlabError
from pipeline.fetch.asset import Algorithm, Digest
from pipeline.fetch.checksums import Chosen, choose, parse_checksums, version_key

_A, _B = "a" * 64, "b" * 64
_LONG = "c" * 128
_MD5, _SHA1 = "d" * 32, "e" * 40
_NAME = "toy-1.2.iso"


def digests(text: str, pattern: str = _NAME, about: str | None = None) -> list[str]:
    return [digest.value for digest in choose(parse_checksums(text, about=about), pattern).digests]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{_A}  {_NAME}\n", [_A]),
        (f"{_A} *{_NAME}\n", [_A]),
        (f"{_A}  {_NAME}", [_A]),
        (f"{_A}  {_NAME}\r\n", [_A]),
        (f"\n\n  {_A}  {_NAME}  \n\n", [_A]),
        (f"\ufeff{_A}  {_NAME}\n", [_A]),
        (f"{_A.upper()}  {_NAME}\n", [_A]),
        (f"{_A}  ./{_NAME}\n", [_A]),
        (f"SHA256 ({_NAME}) = {_A}\n", [_A]),
        (f"SHA256 ({_NAME})= {_A}\n", [_A]),
        (f"SHA-256 ({_NAME}) = {_A}\n", [_A]),
        (f"sha256 ({_NAME}) = {_A}\n", [_A]),
        (f"SHA512 ({_NAME}) = {_LONG}\n", [_LONG]),
        (f"{_LONG}  {_NAME}\n", [_LONG]),
        (f"SHA256 ({_NAME}) = {_A}\nSHA512 ({_NAME}) = {_LONG}\n", [_A, _LONG]),
        (f"{_B}  other.iso\n{_A}  {_NAME}\n", [_A]),
        (f"{_A}  {_NAME}\n{_A}  {_NAME}\n", [_A]),
        (f"# a comment\n#\n{_A}  {_NAME}\n", [_A]),
        (f"MD5 ({_NAME}) = {_MD5}\nSHA1 ({_NAME}) = {_SHA1}\nSHA256 ({_NAME}) = {_A}\n", [_A]),
        (f"{_B}  a name with spaces.iso\n{_A}  {_NAME}\n", [_A]),
        (f"{_B}  iso/{_NAME}\n{_A}  {_NAME}\n", [_A]),
        (f"{_B}  {_NAME}.torrent\n{_B}  x{_NAME}\n{_A}  {_NAME}\n", [_A]),
    ],
)
def test_the_digest_of_exactly_that_name_is_found(text: str, found: list[str]) -> None:
    assert digests(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("\n \r\n", "empty"),
        ("# nothing but a comment\n", "empty"),
        ("<!DOCTYPE html>\n<html></html>\n", "cannot be read"),
        (f"{_MD5}  {_NAME}\n", "only MD5"),
        (f"{_SHA1}  {_NAME}\n", "only SHA-1"),
        (f"MD5 ({_NAME}) = {_MD5}\nSHA1 ({_NAME}) = {_SHA1}\n", "only MD5, SHA-1"),
        (f"{_A}  {_NAME}\n{_B}  {_NAME}\n", "two different digests"),
        (f"{_A}  {_NAME}\nSHA256 ({_NAME}) = {_B}\n", "two different digests"),
        (f"{_A}  ./{_NAME}\n{_B}  {_NAME}\n", "two different digests"),
        (f"{_A[:-1]}  {_NAME}\n", "cannot be read"),
        (f"{_A}a  {_NAME}\n", "cannot be read"),
        (f"{_A}\t{_NAME}\n", "cannot be read"),
        (f"{_A} {_NAME}\n", "cannot be read"),
        (f"{_A}\n", "cannot be read"),
        (f"{_NAME}  {_A}\n", "cannot be read"),
        (f"\\{_A}  toy\\n.iso\n", "cannot be read"),
        (f"MD5 ({_NAME}) = {_A}\n", "cannot be read"),
        (f"BLAKE2b ({_NAME}) = {_LONG}\n", "cannot be read"),
        (f"{_A}  {_NAME}\nand some words\n", "cannot be read"),
        (f"{'z' * 64}  {_NAME}\n", "cannot be read"),
        ("\n" * 100_002, "lines"),
    ],
)
def test_other_lists_are_refused(text: str, why: str) -> None:
    with pytest.raises(ChecksumError) as caught:
        digests(text)
    assert why in caught.value.brief


@pytest.mark.parametrize("name", ["other.iso", f"iso/{_NAME}", f"{_NAME}.asc", _NAME.upper(), "toy-1.2xiso"])
def test_the_line_of_another_file_is_not_taken(name: str) -> None:
    with pytest.raises(NotFoundError, match=r"has no toy-1\.2\.iso") as caught:
        digests(f"{_A}  {name}\n")
    assert "listed are, among others" in caught.value.details


def test_a_digest_alone_is_of_the_file_that_the_list_is_about() -> None:
    assert digests(f"{_A}\n", about=_NAME) == [_A]
    with pytest.raises(NotFoundError):
        digests(f"{_A}\n", about="other.iso")
    with pytest.raises(ChecksumError, match="two different"):
        digests(f"{_A}\n{_B}\n", about=_NAME)


def test_sizes_in_comments_are_read() -> None:
    text = f"# {_NAME}: 1829634048 bytes\nSHA256 ({_NAME}) = {_A}\n# other.iso: 5 bytes\n"
    wanted = Chosen(name=_NAME, digests=(Digest(Algorithm.SHA256, _A),), size=1829634048)
    assert choose(parse_checksums(text), _NAME) == wanted


@pytest.mark.parametrize(
    ("pattern", "names", "newest"),
    [
        ("u-24.04*-x.iso", ["u-24.04-x.iso", "u-24.04.9-x.iso", "u-24.04.10-x.iso"], "u-24.04.10-x.iso"),
        ("u-24.04*-x.iso", ["u-24.04-beta-x.iso", "u-24.04-x.iso"], "u-24.04-x.iso"),
        ("u-24.04*-x.iso", ["u-24.04.1-rc1-x.iso", "u-24.04.1-x.iso"], "u-24.04.1-x.iso"),
        ("f-*.iso", ["f-43-1.6.iso", "f-43-1.14.iso", "f-43-1.5.iso"], "f-43-1.14.iso"),
        ("f-*.iso", ["f-9-9.9.iso", "f-10-1.1.iso"], "f-10-1.1.iso"),
        ("r-10.*-*.iso", ["r-10.1-x.iso", "r-10.0-y.iso", "r-10.1-a.iso"], "r-10.1-x.iso"),
        ("d-*.qcow2", ["d-20250101.qcow2", "d-20241231.qcow2"], "d-20250101.qcow2"),
        ("d-*.qcow2", ["d-20250101-2047.qcow2", "d-20250101-1999.qcow2"], "d-20250101-2047.qcow2"),
        ("x[1]*.iso", ["x[1]2.iso", "x13.iso", "x1.iso"], None),
        ("x?.iso", ["x1.iso"], None),
        ("*.iso", ["a/1.iso"], None),
    ],
)  # fmt: skip
def test_of_several_the_newest_is_meant(pattern: str, names: list[str], newest: str | None) -> None:
    for seed in range(5):
        random.Random(seed).shuffle(names)
        text = "".join(f"{_A}  {name}\n" for name in names)
        if newest is None:
            with pytest.raises(PvmlabError):
                choose(parse_checksums(text), pattern)
        else:
            assert choose(parse_checksums(text), pattern).name == newest


@pytest.mark.parametrize(
    "name", ["-x.iso", ".x.iso", "x y.iso", "x\x1b[31m.iso", "x;id.iso", "\u00fc.iso", "x" * 250 + ".iso"]
)
def test_a_name_that_is_none_for_a_file_is_refused(name: str) -> None:
    with pytest.raises(ChecksumError, match="no name for a file"):
        choose(parse_checksums(f"{_A}  {name}\n"), "*.iso")


@given(
    st.lists(st.integers(0, 10**12), min_size=1, max_size=5), st.lists(st.integers(0, 10**12), min_size=1, max_size=5)
)
def test_numbers_sort_as_numbers(one: list[int], other: list[int]) -> None:
    keys = [version_key(".".join(map(str, each))) for each in (one, other)]
    assert (keys[0] < keys[1]) == (one < other)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        entries = parse_checksums(text)
    except ChecksumError:
        return
    assert entries
