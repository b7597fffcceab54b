"""Small files that have to be safe before an answer goes out, and in place a moment after it.

To put a file in place by rename is some ten calls of the file system, of which each is a message to the host on the
provisioner's shares. So what is to be kept is first one line that is added to a journal: from then on it survives the
end of this process and of the provisioner. A thread then puts all that waits in place, of each file only the newest,
and flushes it; what the journal held has done its service. Whoever starts finds what was not in place yet, and puts it
there before anything is read.

::

    keep ──> _journal.7 ──(a round begins, _journal.8 is next)──(all is in place and on the disk)──> removed

A person may remove any of these files at any time; one that is removed in the moment in which it waits comes back.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pxeboot_stack.publish import flush_directory, flush_file, publish_text, write_all

_LOG = logging.getLogger(__name__)
JOURNAL = "_journal."  # a number follows; an underscore is in no machine's name
_NAME = re.compile(r"(?:_[a-z]+/)?[A-Za-z0-9][A-Za-z0-9.-]*\Z")  # below the directory: nothing else was ever written
_LONGEST_PAUSE = 1.0  # seconds between two rounds while something waits
_PRIVATE = 0o700

Signature = tuple[int, int, int, int]


@dataclasses.dataclass(eq=False)
class _Waiting:
    text: str
    mode: int
    durable: bool
    placed: Callable[[Signature], None] | None = None


class WriteBehind:
    """Writes the files below one directory. This process is the only one that writes them.

    Until :meth:`start`, and after :meth:`stop`, each file is put in place at once.

    :raises OSError: if what an earlier process left cannot be put in place.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._journals: list[Path] = []
        self._descriptor: int | None = None  # of the last one, as long as it is written to
        self._size = 0  # its bytes
        self._number = 0
        self._waiting: dict[str, _Waiting] = {}
        self._lock = threading.Lock()  # of the journal and of what waits; nothing slow is done with it
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._complained = False
        self._recover()

    def keep(
        self,
        name: str,
        text: str,
        *,
        mode: int = 0o644,
        flush: bool = False,
        durable: bool = True,
        placed: Callable[[Signature], None] | None = None,
    ) -> None:
        """Make *text* the content of the file *name*, which is safe from the end of this process when this returns.

        :param name: below the directory. :param flush: wait for the disk as well: safe from a power failure, too.
        :param durable: whether it is to reach the disk soon in any case.
        :param placed: is told how the file looks (:func:`signature_of`) when it is in place; in another thread.
        :raises OSError: if it cannot be kept; all is then as it was.
        """
        item = _Waiting(text, mode, durable, placed)
        if self._thread is None:
            self._place(name, item, flush=flush)
            return
        line = json.dumps([name, mode, text], ensure_ascii=False).encode() + b"\n"
        with self._lock:
            self._append(line, flush=flush)
            self._waiting[name] = item
        self._wake.set()

    def start(self) -> None:
        """Begin to write behind."""
        self._closing.clear()
        self._thread = threading.Thread(target=self._run, name="write-behind", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Put in place what waits, as far as it can be, and end the thread."""
        if self._thread is not None:
            self._closing.set()
            self._wake.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            while self._journals:
                begun = time.monotonic()
                done = self._settle()
                # In a storm, what is kept again before it is in place is put there once, and answers come first.
                pause = min(time.monotonic() - begun, _LONGEST_PAUSE) if done else _LONGEST_PAUSE
                if self._closing.wait(pause) and not done:
                    return  # who starts next puts it in place

    def _append(self, line: bytes, *, flush: bool) -> None:
        fresh = self._descriptor is None
        if self._descriptor is None:
            self._number, self._size = self._number + 1, 0
            path = self._directory / f"{JOURNAL}{self._number}"
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._journals.append(path)
        try:
            write_all(self._descriptor, line)
            if flush:
                os.fdatasync(self._descriptor)
                if fresh:
                    flush_directory(self._directory)
        except OSError:
            os.ftruncate(self._descriptor, self._size)  # half a line would spoil the next one
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise
        self._size += len(line)

    def _settle(self) -> bool:
        """Put in place what waits; return whether all of it is."""
        with self._lock:
            batch, journals = dict(self._waiting), list(self._journals)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
        try:
            for name, item in batch.items():
                self._place(name, item, flush=False)
            for name in (name for name, item in batch.items() if item.durable):
                flush_file(self._directory / name)
            flush_directory(self._directory)
            self._forget(batch, journals)
        except OSError as error:
            if not self._complained:
                _LOG.error("files of %s cannot be put in place: %s", self._directory, error.strerror)
            self._complained = True
            return False
        self._complained = False
        return True

    def _forget(self, batch: dict[str, _Waiting], journals: list[Path]) -> None:
        for path in journals:
            path.unlink(missing_ok=True)
        with self._lock:
            del self._journals[: len(journals)]
            for name in [name for name, item in batch.items() if self._waiting[name] is item]:
                del self._waiting[name]

    def _place(self, name: str, item: _Waiting, *, flush: bool) -> None:
        path = self._directory / name
        try:
            publish_text(path, item.text, mode=item.mode, flush=flush)
        except FileNotFoundError:
            if path.parent == self._directory:
                raise
            path.parent.mkdir(mode=_PRIVATE)  # somebody emptied the directory: all in it is a person's to remove
            publish_text(path, item.text, mode=item.mode, flush=flush)
        if item.placed is not None:
            item.placed(signature_of(path))

    def _recover(self) -> None:
        """Put in place what an earlier process kept and could not put there."""
        found: dict[str, _Waiting] = {}
        journals = [path for path in self._directory.glob(f"{JOURNAL}*") if path.suffix[1:].isdecimal()]
        journals.sort(key=lambda path: int(path.suffix[1:]))
        for path in journals:
            for line in path.read_bytes().splitlines(keepends=True):
                try:
                    name, item = _parse(line)
                except (ValueError, TypeError):  # its writer was ended in the middle of it: nobody was answered
                    _LOG.warning("a line of %s is not whole, and is left out", path.name)
                else:
                    found[name] = item
        for name, item in found.items():
            self._place(name, item, flush=True)
        for path in journals:
            path.unlink(missing_ok=True)


def _parse(line: bytes) -> tuple[str, _Waiting]:
    """:raises ValueError: if it is not a line of ours, or half of one. :raises TypeError: the same."""
    name, mode, text = json.loads(line)
    if not line.endswith(b"\n") or not _NAME.match(name):
        raise ValueError(name)
    return name, _Waiting(str(text), int(mode), durable=True)


def signature_of(path: Path) -> Signature:
    """Return what tells a file from another one that is put in its place, or written into it.

    :raises OSError: if it cannot be looked at.
    """
    found = path.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
