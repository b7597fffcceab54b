"""The lock: read strictly, written so that it is read the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.arch import Arch
from distros.lock import parse_lock, render_lock
from distros.release import Locked, MediumKind
from distros.strict_yaml import DefinitionError

FILE = Path("lock.yaml")
DIGEST = "0123456789abcdef" * 4
ENTRY = f"{{file: u.iso, sha256: '{DIGEST}', size: 7}}"
LOCKS = st.dictionaries(
    st.text("abc019.-", min_size=1, max_size=8).map("u{}".format),
    st.dictionaries(
        st.tuples(st.sampled_from(Arch), st.sampled_from(MediumKind)),
        st.builds(
            Locked,
            file=st.text("aZ019._+~-", min_size=1, max_size=8).map("0{}".format),
            sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
            size=st.integers(1, 1 << 40),
        ),
        min_size=1,
    ),
)


def test_an_entry() -> None:
    lock = parse_lock(f"u-1:\n  x86_64:\n    iso: {ENTRY}\n", file=FILE)
    assert lock == {"u-1": {(Arch.X86_64, MediumKind.ISO): Locked(file="u.iso", sha256=DIGEST, size=7)}}


@given(LOCKS)
def test_what_is_written_is_read_the_same(lock: dict[str, dict[tuple[Arch, MediumKind], Locked]]) -> None:
    text = render_lock(lock)
    assert parse_lock(text, file=FILE) == lock
    assert render_lock(dict(reversed(lock.items()))) == text


def test_the_text_of_a_lock() -> None:
    entries = {(Arch.AARCH64, MediumKind.ISO): Locked(file="123", sha256="1" * 64, size=7)}
    assert render_lock({"b": entries, "a": {}}).splitlines()[1:] == [
        "b:", "  aarch64:", "    iso:", "      file: '123'", f"      sha256: '{'1' * 64}'", "      size: 7",
    ]  # fmt: skip


def test_an_empty_lock_is_read_too() -> None:
    assert parse_lock(render_lock({}), file=FILE) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"U: {{x86_64: {{iso: {ENTRY}}}}}", "lock.yaml:1:1: U: it must be the name of a distribution"),
        (
            f"u: {{vax: {{iso: {ENTRY}}}}}",
            "lock.yaml:1:5: u.vax: there is no such key here; there are: x86_64, aarch64",
        ),
        (f"u: {{x86_64: {{cd: {ENTRY}}}}}", "lock.yaml:1:14: u.x86_64.cd: there is no such key here; there are: iso, "),
        ("u: {x86_64: {iso: {file: u}}}", "u.x86_64.iso: the key 'sha256' is missing"),
        (f"u: {{x86_64: {{iso: {ENTRY.replace('u.iso', '../u')}}}}}", "iso.file: '../u' is not the name of a file"),
        (f"u: {{x86_64: {{iso: {ENTRY.replace('0123', 'ABCD')}}}}}", "iso.sha256: it must be 64 digits 0-9 a-f"),
        (f"u: {{x86_64: {{iso: {ENTRY.replace('7}', '0}')}}}}}", "iso.size: it must be a number of bytes, more than 0"),
        (f"u: {{x86_64: {{iso: {ENTRY.replace('7}', 'big}')}}}}}", "iso.size: it must be a whole number, it is a text"),
        (f"u: {{x86_64: {{iso: {ENTRY}}}, x86_64: {{}}}}", "the key 'x86_64' is repeated"),
        ("[]", "lock.yaml:1:1: it must be a mapping (key: value), it is a list"),
    ],
)
def test_faults_of_a_lock(text: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_lock(text, file=FILE)
    assert expected in caught.value.details
