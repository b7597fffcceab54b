"""Bytes on their way are hashed, counted and never more than promised."""

from __future__ import annotations

import hashlib
import io

import pytest

from pipeline.progress import Progress
from pipeline.upkeep.transfer import Transfer


def test_bytes_arrive_hashed_and_counted() -> None:
    data = bytes(range(256)) * (3 << 12)  # 3 MiB
    told: list[Progress] = []
    sink = io.BytesIO()
    transfer = Transfer("copying", 2 * len(data), told.append)
    assert transfer.move(io.BytesIO(data + b"more"), len(data), sink) == hashlib.sha256(data).hexdigest()
    transfer.move(io.BytesIO(data), len(data))
    assert sink.getvalue() == data
    assert [progress.done >> 20 for progress in told] == [1, 2, 3, 4, 5, 6]
    assert {(progress.step, progress.total) for progress in told} == {("copying", 2 * len(data))}


def test_too_few_bytes_are_an_error() -> None:
    with pytest.raises(EOFError, match="1 of 5 bytes are missing"):
        Transfer("copying", 5, lambda _progress: None).move(io.BytesIO(b"four"), 5)
