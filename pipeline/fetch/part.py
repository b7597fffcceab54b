"""The beginning of a download: ``<id>.part`` with what has come so far, ``<id>.json`` that says from where.

Both are in ``<cache>/downloads/parts/``, under the digest that was promised: one part for each file, whatever mirror it
comes from. What is in them is a guess until the digest of the whole was compared.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.commit import SUFFIX, publish_text
from pipeline.errors import UsageError
from pipeline.fetch.addresses import is_plain, require_url, scrubbed
from pipeline.fetch.asset import Algorithm
from pipeline.fetch.connection import Answer

_PIECE = 1 << 20
_LARGEST_NOTE = 1 << 16  # bytes
# RFC 9110, 8.8.3: an opaque tag in double quotes; one that begins with W/ is weak and says nothing about single bytes
_STRONG = re.compile(r'"[\x21\x23-\x7e]*"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Which answer a part is the beginning of.

    :ivar url: the mirror that was asked, scrubbed.
    :ivar source: who answered after redirects, None if it is the same or cannot be kept without a secret in it.
    :ivar etag: its strong ETag, None if it has none: then the part cannot be resumed.
    :ivar modified: its Last-Modified, for people. :ivar length: bytes of the whole, if the server said.
    """

    url: str
    source: str | None
    etag: str | None
    modified: str | None
    length: int | None

    @classmethod
    def of(cls, url: str, answer: Answer) -> Origin:
        """Return what *answer* (200) to a request for *url* says."""
        etag = answer.headers.get("ETag", "").strip()
        is_encoded = answer.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}
        return cls(
            url=scrubbed(url),
            source=answer.url if answer.url != url and is_plain(answer.url) else None,
            etag=etag if _STRONG.fullmatch(etag) and len(etag) < 1000 and not is_encoded else None,
            modified=answer.headers.get("Last-Modified"),
            length=answer.length,
        )


class Tally:
    """The digests of what has passed. :ivar size: in bytes."""

    def __init__(self, algorithms: Iterable[Algorithm]) -> None:
        self._hashes = {each: hashlib.new(each) for each in {Algorithm.SHA256, *algorithms}}
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        """Take *data* into account."""
        for each in self._hashes.values():
            each.update(data)
        self.size += len(data)

    def digests(self) -> dict[Algorithm, str]:
        """Return the digests in hex."""
        return {algorithm: each.hexdigest() for algorithm, each in self._hashes.items()}


class Part:
    """The part of one file.

    :ivar data: the bytes. :ivar note: where they are from.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.data = folder / f"{identity}.part"
        self.note = folder / f"{identity}.json"

    @property
    def size(self) -> int:
        """The bytes that are there."""
        try:
            return self.data.stat().st_size
        except FileNotFoundError:
            return 0

    def origin(self) -> Origin | None:
        """Return which answer the part is the beginning of, if it can be resumed."""
        try:
            if self.note.stat().st_size > _LARGEST_NOTE:
                return None
            origin = Origin(**json.loads(self.note.read_bytes()))
            if origin.etag is None or not _STRONG.fullmatch(origin.etag):
                return None
            if origin.source is not None:
                require_url(origin.source)
            if origin.length is not None and not 0 < self.size <= origin.length:
                return None
        except (OSError, ValueError, TypeError, RecursionError, UsageError):  # cut by a crash, or of another version
            return None
        return origin if self.size else None

    def begin(self, origin: Origin) -> None:
        """Throw away what is there and begin anew with *origin*.

        The bytes go first: a note is never about those of another answer.
        """
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.data.open("wb"):
            pass
        publish_text(self.note, json.dumps(dataclasses.asdict(origin), indent=1) + "\n")

    def forget(self) -> None:
        """Remove it, and the notes that killed processes had not finished. Only who holds the lock of the part may."""
        self.data.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        for unfinished in self.note.parent.glob(f".{self.note.name}.*{SUFFIX}"):
            unfinished.unlink(missing_ok=True)

    @contextlib.contextmanager
    def appending(self) -> Iterator[int]:
        """Yield a descriptor that writes at the end."""
        descriptor = os.open(self.data, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def pieces(self) -> Iterator[bytes]:
        """Yield what is there."""
        with self.data.open("rb", buffering=0) as stream:
            while piece := stream.read(_PIECE):
                yield piece
