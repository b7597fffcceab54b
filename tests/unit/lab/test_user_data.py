from __future__ import annotations

from pathlib import Path

import pytest

from contracts.nocloud import MAX_OWN_USER_DATA
from lab.user_data import read_user_data
from pipeline.errors import NotFoundError, UsageError


def test_it_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes("#!/bin/sh\necho grüezi\n".encode())
    assert read_user_data(path) == "#!/bin/sh\necho grüezi\n"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere cannot be read"):
        read_user_data(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"#!/bin/sh\0", "is no text"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"#" * (MAX_OWN_USER_DATA + 1), "is longer than 256 KiB"),
    ],
)
def test_what_cannot_be_user_data_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "data"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=said):
        read_user_data(path)
