"""Archives are read as they were written; what is none is refused (more in test_contents.py)."""

from __future__ import annotations

import io
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import cpio
from pipeline.documents import cpio_reader

_NAMES = st.text("abcXYZ019.-_ é", min_size=1, max_size=8).filter(lambda name: name.strip(".") != "")


def pack(entries: list[cpio.Entry]) -> bytes:
    stream = io.BytesIO()
    cpio.write(stream, entries)
    return stream.getvalue()


@given(st.dictionaries(_NAMES, st.binary(max_size=9), max_size=8))
def test_what_was_written_is_read(content: dict[str, bytes]) -> None:
    stream = io.BytesIO(pack([cpio.regular(path, data) for path, data in content.items()]) + b"next")
    found = {member.path: (stat.S_ISREG(member.mode), b"".join(member.content)) for member in cpio_reader.read(stream)}
    assert found == {path: (True, data) for path, data in content.items()}
    assert stream.read().lstrip(b"\0") == b"next", "the stream stands behind the trailer"


def test_content_that_nobody_takes_is_passed_over() -> None:
    stream = io.BytesIO(pack([cpio.regular("a", b"123"), cpio.regular("b", b"4")]))
    assert [(member.path, member.size) for member in cpio_reader.read(stream)] == [("a", 3), ("b", 1)]


def test_what_is_no_archive_is_refused() -> None:
    with pytest.raises(ValueError, match="no newc archive or member begins with b'070702'"):
        list(cpio_reader.read(io.BytesIO(b"070702" + bytes(200))))
