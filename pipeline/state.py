"""What a cache remembers from run to run: digests of files, versions of tools, doit's own notes.

Nothing here is the only copy of anything: what is built, and from what, stands in the sidecars; a digest can be read
off its file again. So a state file that is damaged is set aside and begun anew, and one that cannot be written is done
without. Each entry carries a seal over itself: a damaged one is no entry.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.commit import set_aside
from pipeline.digests import file_digest, json_digest
from pipeline.workspace import Cache

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_SCHEMA = """
    CREATE TABLE IF NOT EXISTS entry (
        kind TEXT NOT NULL, name TEXT NOT NULL, stamp TEXT NOT NULL, value TEXT NOT NULL, seal TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) WITHOUT ROWID
"""
# WAL: a commit is one append, readers are never in the way. NORMAL: a power cut may lose the last commits, which costs
# a digest read again; it never damages the file (https://www.sqlite.org/pragma.html#pragma_synchronous).
_PRAGMAS = ("page_size = 1024", "journal_mode = WAL", "synchronous = NORMAL")
_BUSY_TIMEOUT = 5.0  # seconds
# The state file is sound, but cannot be used now: by its primary result code (https://www.sqlite.org/rescode.html)
_UNUSABLE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
}  # fmt: skip
# A file may change again within one tick of the file system's clock (4 ms at 250 Hz) without a sign in its stat.
_TICK = 20_000_000  # nanoseconds
_WORTH_WAITING = 8 << 20  # bytes: to read them again takes as long as to let the clock go on


class State:
    """The state file of one cache. Threads may share it; other processes may have it open.

    :ivar path: the SQLite file.
    """

    def __init__(self, cache: Cache) -> None:
        self.path = cache.state
        self._root = cache.root
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._begun_anew = False
        self._fallback: dict[tuple[str, str], tuple[str, str]] | None = None

    def get(self, kind: str, name: str, stamp: str = "") -> str | None:
        """Return the value kept under *kind* and *name*, if it was kept with the same *stamp*."""
        if self._fallback is not None:
            kept = self._fallback.get((kind, name))
            return kept[1] if kept is not None and kept[0] == stamp else None

        def read(connection: sqlite3.Connection) -> str | None:
            query = "SELECT stamp, value, seal FROM entry WHERE kind = ? AND name = ?"
            row = connection.execute(query, (kind, name)).fetchone()
            if row is None or row[0] != stamp or not isinstance(row[1], str):  # a flipped bit can make it bytes
                return None
            return row[1] if row[2] == _seal(kind, name, stamp, row[1]) else None

        return self._do(read, lambda: self.get(kind, name, stamp))

    def put(self, kind: str, name: str, value: str, stamp: str = "") -> None:
        """Keep *value*; it is in the file when this returns."""
        if self._fallback is not None:
            self._fallback[kind, name] = (stamp, value)
            return
        row = (kind, name, stamp, value, _seal(kind, name, stamp, value))

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", row)

        self._do(write, lambda: self.put(kind, name, value, stamp))

    def remove(self, kind: str, name: str | None = None) -> None:
        """Forget one entry, or with no *name* all of its kind."""
        if self._fallback is not None:
            for key in [key for key in self._fallback if key[0] == kind and name in {None, key[1]}]:
                del self._fallback[key]
            return

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM entry WHERE kind = ? AND (? IS NULL OR name = ?)", (kind, name, name))

        self._do(delete, lambda: self.remove(kind, name))

    def digest_of(self, path: Path) -> str:
        """Return the SHA-256 of the file's content, read only if the file was changed since it was last read.

        Size, times of modification and of change, and inode are the short cut. The time of change cannot be set back,
        so neither a restored modification time nor an equal size hides other content.

        :raises OSError: if it cannot be read.
        """
        before = stamp_of(path)
        if (known := self.get("digest", self._name(path), before)) is not None:
            return known
        digest = file_digest(path)
        self._remember(path, digest, before)
        return digest

    def learn_digest(self, path: Path, digest: str) -> None:
        """Take note of the digest of a file that was just published, so that it need not be read again."""
        stamp = stamp_of(path)
        too_young_for = _TICK - _age(path)
        if path.stat().st_size >= _WORTH_WAITING and 0 < too_young_for <= _TICK:
            time.sleep(too_young_for / 1e9)
        self._remember(path, digest, stamp)

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _remember(self, path: Path, digest: str, stamp: str) -> None:
        """Keep *digest*, unless the file has changed meanwhile or is so young that its stat may not show the next."""
        if _age(path) >= _TICK and stamp_of(path) == stamp:
            self.put("digest", self._name(path), digest, stamp)

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else str(path)

    def _do(self, action: Callable[[sqlite3.Connection], _Result], again: Callable[[], _Result]) -> _Result:
        """Do *action* in a transaction of its own; on damage begin a new file, or do without one, and do it *again*."""
        with self._lock:
            try:
                return action(self._open())
            except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a message that quotes damaged text
                self._give_up(error)
            return again()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # autocommit: each statement is its own transaction
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            self._inode = self.path.stat().st_ino
            connection.execute(_SCHEMA)
            # A flipped bit in a key hides what is stored behind it for ever, and no statement fails.
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        return self._connection

    def _give_up(self, error: Exception) -> None:
        self.close()
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        writable = os.access(self.path if self.path.exists() else self.path.parent, os.W_OK)
        # a file that is shorter than it says is damaged, whatever else cannot be read or written is the disk's fault
        is_disk = code & 0xFF == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_SHORT_READ
        if code & 0xFF in _UNUSABLE or is_disk or not writable or self._begun_anew:
            self._fallback = {}
            if writable:
                _log.warning("the state file %s cannot be used (%s): this run does without it", self.path, error)
            return
        self._begun_anew = True
        try:
            if self._inode in {0, self.path.stat().st_ino}:  # else another process has begun a new one
                kept = set_aside(self.path, companions=("-wal", "-shm"))
                _log.warning(
                    "the state file was damaged (%.80r): it was set aside as %s and begun anew; "
                    "what is built is known from the sidecars", str(error), kept.name,
                )  # fmt: skip
            self._inode = 0
        except OSError as problem:
            self._fallback = {}
            _log.warning("the damaged state file %s stays (%s): this run does without it", self.path, problem)


@functools.cache
def state_of(cache: Cache) -> State:
    """Return the state of *cache*: one for each process."""
    return State(cache)


def stamp_of(path: Path) -> str:
    """Return what changes when the file's content does: size, times of modification and change, inode.

    :raises OSError: if it is not there.
    """
    stat = path.stat()
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"


def _age(path: Path) -> int:
    """Return the nanoseconds since the file was changed; negative for a time in the future."""
    return time.time_ns() - path.stat().st_ctime_ns


def _seal(kind: str, name: str, stamp: str, value: str) -> str:
    return json_digest([kind, name, stamp, value])[:16]
