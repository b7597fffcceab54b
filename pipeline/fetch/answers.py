"""What an answer is worth: whether it is the file, the rest of the file, or something else. Nothing is written here."""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections.abc import Mapping

from pipeline.fetch.asset import Asset
from pipeline.fetch.connection import Answer
from pipeline.fetch.failure import MirrorError
from pipeline.fetch.part import Origin

_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")  # RFC 9110, 14.4
_PASSING = {408, 425, 429}  # and all of 5xx: RFC 9110, 15.5 and 15.6
_PAGES = ("text/html", "application/xhtml+xml")
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<(?:!--|\?xml)[^>]*>\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE
)
_LOOKED_AT = 1 << 10  # bytes


class ChangedError(MirrorError):
    """A part cannot be continued: what the mirror has now is something else, or it answers beside the question."""


def require_whole(answer: Answer, asset: Asset) -> None:
    """Take an answer that is to be the file from its first byte.

    :raises MirrorError: if by its header it is not.
    """
    if answer.status != 200:
        raise refusal(answer)
    require_no_page(answer)
    length = answer.length
    if length is None:
        return
    if asset.size is not None and length != asset.size:
        coded = answer.headers.get("Content-Encoding")
        how = f", {coded[:20]}-encoded although nobody asked for that" if coded else ""
        raise MirrorError(answer.url, f"it has another version: {length:,} bytes{how}; {asset.size:,} were promised")
    if not 0 < length <= asset.limit:
        raise MirrorError(answer.url, f"it offers {length:,} bytes: at most {asset.limit:,} are taken, and not none")


def require_rest(answer: Answer, origin: Origin, have: int, asset: Asset) -> int:
    """Take an answer (206) that is to be all after the first *have* bytes; return the bytes of the whole.

    :raises ChangedError: if it is something else.
    """
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None or found[1] is None or found[3] == "*":
        raise _changed(answer, "it does not say which part of the file it sends")
    first, last, whole = (int(number) for number in found.groups())
    etag = answer.headers.get("ETag", "").strip()
    if first != have or last != whole - 1:
        raise _changed(answer, f"it sends bytes {first} to {last} of {whole}, asked for were those from {have}")
    if etag and etag != origin.etag:
        raise _changed(answer, "it sends a part of another version")
    if whole not in {origin.length or whole, asset.size or whole} or whole > asset.limit:
        raise _changed(answer, "the file has another length now")
    if answer.length is not None and answer.length != whole - have:
        raise _changed(answer, "it contradicts itself about the length")
    if answer.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
        raise _changed(answer, "it sends a part of an encoded body")
    return whole


def is_at_the_end(answer: Answer, have: int) -> bool:
    """Return whether an answer (416) says that there is nothing after the first *have* bytes."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    return found is not None and found[1] is None and found[3] == str(have)


def require_no_page(answer: Answer, start: bytes = b"") -> None:
    """Refuse a page for people: an error, a login, a list of mirrors.

    :param start: the first bytes of the body, if they are here.
    :raises MirrorError: if it is one.
    """
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in _PAGES or _PAGE.match(start[:_LOOKED_AT]):
        raise MirrorError(answer.url, "it sends a web page instead of the file")


def refusal(answer: Answer) -> MirrorError:
    """Return the error for an answer that brings nothing."""
    status = answer.status
    if status in {404, 410}:
        return MirrorError(answer.url, "it does not have the file")
    is_passing = status in _PASSING or 500 <= status <= 599
    what = "is asked for something it does not do" if status in {501, 505} else "refuses"
    wait = retry_after(answer.headers) if is_passing else None
    return MirrorError(answer.url, f"it {what}: status {status}", is_passing=is_passing, wait=wait)


def retry_after(headers: Mapping[str, str], now: dt.datetime | None = None) -> float | None:
    """Return the seconds that a server asks us to wait (RFC 9110, 10.2.3), if it does.

    :param now: the time, with its zone.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        then = email.utils.parsedate_to_datetime(text)
        if then.tzinfo is None:
            then = then.replace(tzinfo=dt.UTC)
        return max(0.0, (then - (now or dt.datetime.now(dt.UTC))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _changed(answer: Answer, reason: str) -> ChangedError:
    return ChangedError(answer.url, reason, is_passing=True)
