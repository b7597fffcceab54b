"""A pinned download: which bytes are wanted, and where they may be had."""

from __future__ import annotations

import dataclasses
import enum
import re

from pipeline.digests import bytes_digest
from pipeline.errors import UsageError

DEFAULT_MAX_SIZE = 16 << 30  # bytes
# What names a file in the store: nothing that a shell, a terminal or a tar takes for something else.
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~:%-]{0,199}")


class Algorithm(enum.StrEnum):
    """Digests that are trusted, by their names in :mod:`hashlib`."""

    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @property
    def digits(self) -> int:
        """Its length in hex digits."""
        return {Algorithm.SHA256: 64, Algorithm.SHA384: 96, Algorithm.SHA512: 128}[self]


@dataclasses.dataclass(frozen=True)
class Digest:
    """What the bytes must hash to. :ivar value: lower-case hex.

    :raises UsageError: if it is no such digest.
    """

    algorithm: Algorithm
    value: str

    def __post_init__(self) -> None:
        if not re.fullmatch(f"[0-9a-f]{{{self.algorithm.digits}}}", self.value):
            raise UsageError(f"{self.value[:140]!r} is no {self.algorithm} digest in lower-case hex")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asset:
    """A file that is wanted.

    :ivar name: of its file, also in the store; from our own data, never from a server.
    :ivar urls: where it may be had, in the order they are asked.
    :ivar digests: all of which it must have. At least one, but for an *unpinned* one.
    :ivar size: bytes; None if that was not promised. :ivar max_size: bytes; more is never taken.
    :ivar unpinned: nothing is known of it yet: what comes first is to be locked (:func:`store.fetch_unpinned`).
    :raises UsageError: if the name is no plain file name, there is no digest, or the size makes no sense.
    """

    name: str
    urls: tuple[str, ...]
    digests: tuple[Digest, ...]
    size: int | None = None
    max_size: int = DEFAULT_MAX_SIZE
    unpinned: bool = False

    def __post_init__(self) -> None:
        require_file_name(self.name)
        if not self.digests and not self.unpinned:
            raise UsageError(f"no digest of {self.name} is known", details="without one, nothing is downloaded")
        if len({digest.algorithm for digest in self.digests}) != len(self.digests):
            raise UsageError(f"two digests of one kind are given for {self.name}")
        if self.size is not None and not 0 < self.size <= self.max_size:
            raise UsageError(
                f"{self.name} cannot have {self.size:,} bytes", details=f"at most {self.max_size:,} are taken"
            )

    @property
    def sha256(self) -> str | None:
        """Its SHA-256 digest, if that is known before it is here."""
        return next((each.value for each in self.digests if each.algorithm is Algorithm.SHA256), None)

    @property
    def identity(self) -> str:
        """A name for these bytes, whatever they are called: 64 hex digits of a digest; of an unpinned one's address."""
        if self.unpinned:
            return bytes_digest("\n".join(self.urls).encode())
        return (self.sha256 or self.digests[0].value)[:64]

    @property
    def limit(self) -> int:
        """The bytes that are taken at most."""
        return self.size if self.size is not None else self.max_size


def require_file_name(name: str) -> str:
    """Return *name* if it is a plain file name: no folders, no control characters, not hidden.

    :raises UsageError: if it is not.
    """
    if not FILE_NAME.fullmatch(name):
        raise UsageError(
            f"{name[:200]!r} is no name for a downloaded file",
            details="letters, digits and _.+~:%- are, at most 200; folders belong into the address of the mirror",
        )
    return name
