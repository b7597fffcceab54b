from __future__ import annotations

import pytest

from lab.sizes import parse_size
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("2G", "m", 2048), ("512MiB", "m", 512), ("512", "m", 512), ("1t", "g", 1024), ("8", "g", 8),
        ("1024M", "g", 1), ("2 GB", "g", 2), ("2048k", "m", 2),
    ],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, unit: str, size: int) -> None:
    assert parse_size(text, unit=unit, option="--memory") == size


@pytest.mark.parametrize("text", ["", "G", "two", "-1G", "1.5G", "2X", "2GG"])
def test_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory .* is not a size"):
        parse_size(text, unit="m", option="--memory")


def test_part_of_a_unit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not a whole number of GiB"):
        parse_size("1536M", unit="g", option="--disk-size")
