"""The store: every download under its digest, ``<cache>/downloads/<sha256>/<file>``, fetched once however many want it.

A file gets its name there when its size and its digests are those that were promised, and not before. Who fetches holds
a lock of the kernel on ``parts/<id>.lock`` (flock), so it vanishes with the process; the others wait and find the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.commit import publish
from pipeline.errors import PvmlabError, UsageError
from pipeline.fetch.addresses import require_url, scrubbed
from pipeline.fetch.asset import DEFAULT_MAX_SIZE, Algorithm, Asset
from pipeline.fetch.failure import MirrorError, StoppedError, WrongBytesError, all_failed
from pipeline.fetch.offline import require_online
from pipeline.fetch.part import Part
from pipeline.fetch.patience import Patience
from pipeline.fetch.transfer import Arrived, Transfer
from pipeline.progress import Progress, ProgressListener, ignore_progress
from pipeline.state import State, state_of
from pipeline.workspace import Cache

PARTS = "parts"  # the folder of parts in that of downloads
_OLD = 14 * 86400.0  # seconds after which a part is no longer worth its room
_SUFFIXES = (".part", ".json", ".lock")
_LOOK = 0.1  # seconds between two looks whether a lock is free
_SHA256_OF = "sha256-of"  # what is remembered: by another digest, the SHA-256 under which the file is


@dataclasses.dataclass(frozen=True)
class Store:
    """The downloads of one cache."""

    cache: Cache

    @property
    def root(self) -> Path:
        """Where they are."""
        return self.cache.root / "downloads"

    @property
    def parts(self) -> Path:
        """Where those are that have begun."""
        return self.root / PARTS

    @property
    def state(self) -> State:
        """What the cache remembers."""
        return state_of(self.cache)

    def place(self, sha256: str, name: str) -> Path:
        """Return where a file is, if it is there."""
        return self.root / sha256 / name

    def find(self, asset: Asset) -> Path | None:
        """Return the file of *asset* if it is there and whole. A damaged one is removed."""
        sha256 = asset.sha256 or self.state.get(_SHA256_OF, asset.digests[0].value)
        if sha256 is None:
            return None
        path = self.place(sha256, asset.name)
        known = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
        for found in [path, *(other for other in known if other != path and not other.name.startswith("."))]:
            if found.is_file() and not found.is_symlink():
                if self.state.digest_of(found) != sha256:
                    found.unlink()
                elif asset.size in {None, found.stat().st_size}:
                    return found
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
    """A file in the store.

    :ivar url: the mirror it came from now, scrubbed; empty if it was there. :ivar size: in bytes.
    """

    path: Path
    sha256: str
    size: int
    url: str = ""


def ensure_asset(
    asset: Asset, *, store: Store, listener: ProgressListener = ignore_progress, patience: Patience | None = None
) -> Path:
    """Return the file of *asset* in the store, downloading it if it is not there.

    :raises PvmlabError: see :func:`obtain`.
    """
    return obtain(asset, store=store, listener=listener, patience=patience).path


def obtain(
    asset: Asset,
    *,
    store: Store,
    listener: ProgressListener = ignore_progress,
    patience: Patience | None = None,
    task: str | None = None,
) -> Stored:
    """Return the file of *asset* in the store, downloading it from the first mirror that has it, if it is not there.

    :param task: whose file it is, for the words of errors.
    :raises OfflineError: if it must be downloaded and the network must not be used.
    :raises NoMirrorError: if no mirror gives it. :raises WrongMirrorsError: if what they have is not what was promised.
    :raises UsageError: if an address is none. :raises StoppedError: on Ctrl-C; what has arrived is kept.
    :raises FullDiskError: if there is no room. :raises HostError: if the store cannot be written.
    """
    patience = patience or Patience()
    if asset.unpinned:
        raise UsageError(f"no digest of {asset.name} is known", details="without one, nothing is downloaded")
    if (found := store.find(asset)) is not None:
        return _stored(found)
    require_online(asset.name, size=asset.size, task=task)
    for url in asset.urls:
        require_url(url)
    with _only_one(asset, store, patience, listener):
        if (found := store.find(asset)) is not None:  # the one we waited for has brought it
            return _stored(found)
        stored = _fetch(asset, store, patience, listener)
        sweep_parts(store)
        return stored


def fetch_unpinned(
    name: str,
    urls: Sequence[str],
    *,
    store: Store,
    max_size: int = DEFAULT_MAX_SIZE,
    listener: ProgressListener = ignore_progress,
    patience: Patience | None = None,
) -> Stored:
    """Return a file of which nothing is known yet, in the store under what it turned out to be, to be locked.

    Whoever controls the mirror, or an http connection to it, decides what comes. It is downloaded each time.

    :raises PvmlabError: see :func:`obtain`.
    """
    asset = Asset(name=name, urls=tuple(urls), digests=(), max_size=max_size, unpinned=True)
    patience = patience or Patience()
    require_online(name)
    for url in asset.urls:
        require_url(url)
    with _only_one(asset, store, patience, listener):
        return _fetch(asset, store, patience, listener)


def sweep_parts(store: Store, *, older_than: float = _OLD) -> list[Path]:
    """Remove parts that nobody works on, and nobody has for *older_than* seconds; return what was removed."""
    swept: list[Path] = []
    names = {path.stem for path in store.parts.glob("*") if path.suffix in _SUFFIXES}
    for name in sorted(names):
        files = [path for suffix in _SUFFIXES if (path := store.parts / f"{name}{suffix}").exists()]
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            newest = max((path.stat().st_mtime for path in files), default=time.time())
            if time.time() - newest < older_than:
                continue
            with _try_lock(store.parts / f"{name}.lock") as is_free:
                if is_free:
                    for path in files:
                        path.unlink(missing_ok=True)
                    (store.parts / f"{name}.lock").unlink(missing_ok=True)
                    swept += files
    return swept


def _fetch(asset: Asset, store: Store, patience: Patience, listener: ProgressListener) -> Stored:
    part, failures = Part(store.parts, asset.identity), list[PvmlabError]()
    for url in asset.urls:
        try:
            arrived = _right_bytes(url, asset, part, patience, listener)
        except MirrorError as error:
            failures.append(error)
            continue
        sha256 = arrived.digests[Algorithm.SHA256]
        path = store.place(sha256, asset.name)
        with publish(path) as temporary:
            part.data.replace(temporary)
        part.forget()
        store.state.learn_digest(path, sha256)
        if asset.sha256 is None and asset.digests:
            store.state.put(_SHA256_OF, asset.digests[0].value, sha256)
        return Stored(path=path, sha256=sha256, size=arrived.size, url=scrubbed(url))
    raise all_failed(asset.name, failures)


def _right_bytes(url: str, asset: Asset, part: Part, patience: Patience, listener: ProgressListener) -> Arrived:
    """Have *part* hold the asset.

    :raises WrongBytesError: if the mirror has something else; nothing of it is kept.
    """
    for may_repeat in (True, False):
        arrived = Transfer(url, asset, part, patience=patience, listener=listener).run()
        wrong = [each for each in asset.digests if arrived.digests[each.algorithm] != each.value]
        if not wrong and (arrived.is_whole or not asset.unpinned):
            return arrived
        part.forget()
        # the beginning may be from before a crash, or the end was none: the same mirror once more, from the start
        if not wrong:
            raise WrongBytesError(url, "it does not say how long the file is, so nobody can tell whether that was all")
        if arrived.is_certain or not may_repeat:
            algorithm, promised = wrong[0].algorithm, wrong[0].value
            got = f"their {algorithm} digest is {arrived.digests[algorithm]}, promised was {promised}"
            raise WrongBytesError(url, f"it sends other bytes: {got}")
    raise AssertionError("unreachable: the second time raises")


def _stored(path: Path) -> Stored:
    return Stored(path=path, sha256=path.parent.name, size=path.stat().st_size)


@contextlib.contextmanager
def _only_one(asset: Asset, store: Store, patience: Patience, listener: ProgressListener) -> Iterator[None]:
    """Be the only one who fetches *asset* while the block runs.

    :raises StoppedError: on Ctrl-C while waiting for another.
    """
    store.parts.mkdir(parents=True, exist_ok=True)
    path = store.parts / f"{asset.identity}.lock"
    while True:
        with _try_lock(path) as is_free:
            if is_free:
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return
        listener(Progress(step=f"waiting for another process that fetches {asset.name}"))
        if not patience.sleep(_LOOK):
            raise StoppedError(asset.name)


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Yield whether we hold the lock *path* now. Only who holds it may remove it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours, there = os.fstat(descriptor), path.stat()
            # else it was removed between our opening and our locking: others lock a new one
            is_held = (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev)
        except (BlockingIOError, FileNotFoundError):
            is_held = False
        yield is_held
    finally:
        os.close(descriptor)
