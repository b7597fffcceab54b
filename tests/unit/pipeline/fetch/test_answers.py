"""What answers are worth, by their headers alone."""

from __future__ import annotations

import datetime as dt

import pytest
import requests

from pipeline.fetch.answers import is_at_the_end, refusal, require_no_page, require_rest, require_whole, retry_after
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.connection import Answer, Watch
from pipeline.fetch.failure import MirrorError
from pipeline.fetch.part import Origin
from pipeline.fetch.patience import Patience

_ASSET = Asset(name="x.iso", urls=(), digests=(Digest(Algorithm.SHA256, "0" * 64),), size=100)
_ORIGIN = Origin(url="http://h/", source=None, etag='"1"', modified=None, length=100)
_NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def answer(status: int = 200, **headers: str) -> Answer:
    response = requests.Response()
    response.status_code = status
    response.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return Answer("http://h/x.iso", response, Watch(Patience()))


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 40-99/100"}, {"Content_Range": "bytes 40-99/100", "ETag": '"1"'},
        {"Content_Range": " bytes 40-99/100 ", "Content_Length": "60", "Content_Encoding": "identity"},
    ],
)  # fmt: skip
def test_the_rest_is_taken(headers: dict[str, str]) -> None:
    assert require_rest(answer(206, **headers), _ORIGIN, 40, _ASSET) == 100


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"Content_Range": ""}, {"Content_Range": "bytes 40-99/*"}, {"Content_Range": "bytes */100"},
        {"Content_Range": "bytes 0-99/100"}, {"Content_Range": "bytes 39-99/100"}, {"Content_Range": "bytes 41-99/100"},
        {"Content_Range": "bytes 40-98/100"}, {"Content_Range": "bytes 40-100/100"},
        {"Content_Range": "bytes 40-100/101"},
        {"Content_Range": "items 40-99/100"}, {"Content_Range": "bytes 40-99/100, bytes 1-2/100"},
        {"Content_Range": "bytes=40-99/100"}, {"Content_Range": "bytes 99-40/100"}, {"Content_Range": "bytes -99/100"},
        {"Content_Range": "bytes 40-99/100", "ETag": '"2"'}, {"Content_Range": "bytes 40-99/100", "ETag": 'W/"1"'},
        {"Content_Range": "bytes 40-99/100", "Content_Length": "61"},
        {"Content_Range": "bytes 40-99/100", "Content_Encoding": "gzip"},
        {"Content_Range": "bytes 40-" + "9" * 30 + "/1" + "0" * 30},
    ],
)  # fmt: skip
def test_what_is_not_the_rest_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(MirrorError) as caught:
        require_rest(answer(206, **headers), _ORIGIN, 40, _ASSET)
    assert caught.value.is_passing


@pytest.mark.parametrize(
    ("status", "headers", "is_passing"),
    [
        (204, {}, False), (206, {}, False), (304, {}, False), (401, {}, False), (404, {}, False), (408, {}, True),
        (429, {}, True), (500, {}, True), (503, {}, True), (599, {}, True), (600, {}, False),
        (200, {"Content_Length": "99"}, False), (200, {"Content_Length": "101"}, False),
        (200, {"Content_Type": "text/html"}, False), (200, {"Content_Type": "Text/HTML; charset=x"}, False),
    ],
)  # fmt: skip
def test_what_is_not_the_whole_is_refused(status: int, headers: dict[str, str], is_passing: bool) -> None:
    with pytest.raises(MirrorError) as caught:
        require_whole(answer(status, **headers), _ASSET)
    assert caught.value.is_passing == is_passing


@pytest.mark.parametrize("length", ["", "x", "-5", "+100", "1e2", "\u0661", "1_00"])
def test_a_length_that_is_none_is_no_length(length: str) -> None:
    assert answer(Content_Length=length).length is None
    require_whole(answer(Content_Length=length), _ASSET)


def test_without_a_promised_size_the_largest_counts() -> None:
    unknown = Asset(name="x", urls=(), digests=_ASSET.digests, max_size=1000)
    require_whole(answer(Content_Length="1000"), unknown)
    for length in ("0", "1001", "9" * 40):
        with pytest.raises(MirrorError, match="at most 1,000 are taken"):
            require_whole(answer(Content_Length=length), unknown)


def test_the_end_is_known_by_its_place() -> None:
    assert is_at_the_end(answer(416, Content_Range="bytes */40"), 40)
    for text in ("bytes */41", "bytes */*", "bytes 0-39/40", ""):
        assert not is_at_the_end(answer(416, Content_Range=text), 40)


@pytest.mark.parametrize(
    "start",
    [b"<!DOCTYPE html>", b"<!doctype HTML PUBLIC>", b"\n\n <html lang=en>", b"\xef\xbb\xbf<html>", b"<HTML>", b"<head>",
     b'<?xml version="1.0"?>\n<!DOCTYPE html>', b"<!-- hello -->\n<html>", b"<body bgcolor=white>"],
)  # fmt: skip
def test_pages_are_known_by_their_beginning(start: bytes) -> None:
    with pytest.raises(MirrorError, match="web page"):
        require_no_page(answer(), start)


@pytest.mark.parametrize("start", [b"", b"\0" * 512, b"QFI\xfb", b"<htmlx", b"hash  <html>", b"\x1f\x8b<html>", b"<"])
def test_other_beginnings_are_no_pages(start: bytes) -> None:
    require_no_page(answer(), start)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("120", 120.0), ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0), ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("", None), ("soon", None), ("-5", None), ("1.5", None), ("9" * 400, 999_999_999.0),
        ("Thu, 99 Jan 2026 00:01:00 GMT", None), ("Thu, 01 Jan 99999 00:01:00 GMT", None),
    ],
)  # fmt: skip
def test_how_long_a_server_asks_us_to_wait(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}, _NOW) == seconds


def test_who_refuses_for_good_is_not_waited_for() -> None:
    assert refusal(answer(503, Retry_After="7")).wait == 7.0
    assert refusal(answer(404, Retry_After="7")).wait is None
