from __future__ import annotations

import json
import logging

import pytest

from pxeboot_stack.logs import JsonFormatter, mask_tokens

TOKEN = "0123456789abcdef0123456789abcdef"


def line(message: str, *arguments: object, **extra: object) -> dict[str, object]:
    record = logging.LogRecord("name", logging.WARNING, "file", 1, message, arguments, None)
    record.__dict__.update(extra)
    text = JsonFormatter("watcher").format(record)
    assert len(text.splitlines()) == 1
    data: dict[str, object] = json.loads(text)
    return data


def test_a_line_is_one_object() -> None:
    data = line("%s\nis %d", "web1", 3, machine="web1", client="192.168.100.11", password="x")
    assert str(data.pop("time")).endswith("Z")
    assert data == {
        "level": "warning", "service": "watcher", "message": "web1\nis 3", "machine": "web1",
        "client": "192.168.100.11",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"GET /m/{TOKEN}/config", "GET /m/TOKEN/config"),
        (f"GET /m/{TOKEN[:-1]}/config: 403", "GET /m/TOKEN/config: 403"),
        (f"the token {TOKEN} is unknown", "the token TOKEN is unknown"),
        ("/m/nonsense", "/m/TOKEN"),
        ("a" * 64, "a" * 64),  # a digest
        ("00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000002"),
    ],
)
def test_tokens_are_masked(text: str, masked: str) -> None:
    assert mask_tokens(text) == masked
    assert line(text)["message"] == masked
    assert line("x", document=text)["document"] == masked


def test_a_traceback_is_in_the_line_without_tokens() -> None:
    with pytest.raises(ValueError, match="invalid literal") as caught:
        int(f"/m/{TOKEN}/config")
    data = line("failed", exc_info=(caught.type, caught.value, caught.tb))
    assert "ValueError: invalid literal for int() with base 10: '/m/TOKEN/config'" in str(data["error"])
