"""From a signed list of checksums to one file that is promised; and never back to an older list.

The time of the last list that was accepted is remembered in the cache's state, with what it promised: that is all that
is needed to find the file again without a network. A cache whose state was lost takes the next list it sees.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.digests import json_digest
from pipeline.errors import ChecksumError, PrerequisiteError, PvmlabError
from pipeline.fetch.addresses import scrubbed
from pipeline.fetch.asset import Algorithm, Digest
from pipeline.fetch.checksums import choose, parse_checksums
from pipeline.fetch.document import fetch_document
from pipeline.fetch.failure import MirrorError, NoMirrorError, StoppedError, all_failed
from pipeline.fetch.offline import OfflineError, is_offline
from pipeline.fetch.patience import Patience
from pipeline.fetch.signature import verify
from pipeline.state import State

_KIND = "signed-list"  # in the state
_FEW = 100  # bytes by which a list's name is known in an error


class RollbackError(ChecksumError):
    """A mirror has an older list than one that was accepted before: it is out of date, or somebody plays it back."""

    def __init__(self, name: str, *, signed: dt.datetime, accepted: dt.datetime) -> None:
        self.signed, self.accepted = signed, accepted
        super().__init__(
            f"{name} is older than the one that was accepted before",
            details=f"it was signed {signed:%Y-%m-%d %H:%M:%S} UTC, the last one {accepted:%Y-%m-%d %H:%M:%S} UTC",
            resolution="try again later, or put a mirror that is up to date first in the definition; if the "
            "distribution has taken its release back, put the digest of the medium into the lock (distros/lock.yaml)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignedList:
    """Where a list is, and who must have signed it.

    :ivar mirrors: base URLs with their final slash. :ivar file: which line is meant; may hold ``*``.
    :ivar name: the list, relative to a mirror. :ivar signature: its detached signature; None if it is clear-signed.
    :ivar keys: key files by fingerprint.
    """

    mirrors: tuple[str, ...]
    file: str
    name: str
    signature: str | None
    keys: Mapping[str, Path]

    @property
    def identity(self) -> str:
        """What must be the same for two of its lists to be compared."""
        return json_digest([self.file, self.name, self.signature, sorted(self.keys)])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """A file that is promised.

    :ivar size: bytes, if they are known. :ivar signed_by: fingerprint; empty if the promise is from our own lock.
    :ivar signed_at: when, in seconds since 1970.
    """

    file: str
    digests: tuple[Digest, ...]
    size: int | None = None
    signed_by: str = ""
    signed_at: int = 0

    def to_json(self) -> str:
        """Return it as it is kept."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Promise:
        """Return what :meth:`to_json` gave."""
        data: dict[str, Any] = json.loads(text)
        digests = tuple(Digest(Algorithm(each["algorithm"]), each["value"]) for each in data.pop("digests"))
        return cls(digests=digests, **data)


def read_promise(task: str, wanted: SignedList, state: State, *, patience: Patience | None = None) -> Promise:
    """Return what the list promises now, asking the mirrors in turn; without a network what it promised last.

    :param task: whose list it is, in the state.
    :raises OfflineError: if the network must not be used and nothing is remembered.
    :raises ChecksumError: if what a mirror has is not signed as it must be, older than before, or does not tell.
    :raises NoMirrorError: if no mirror has it.
    """
    known = remembered(task, wanted, state)
    if is_offline():
        if known is None:
            raise OfflineError(wanted.file, task=task)
        return known
    failures: list[PvmlabError] = []
    for mirror in wanted.mirrors:
        try:
            promise = _from(mirror, wanted, patience)
            if known is not None and promise.signed_at < known.signed_at:
                signed, accepted = (dt.datetime.fromtimestamp(each.signed_at, dt.UTC) for each in (promise, known))
                raise RollbackError(_list_name(mirror, wanted), signed=signed, accepted=accepted)
        except (StoppedError, PrerequisiteError):  # another mirror does not help
            raise
        except NoMirrorError as error:  # of this one mirror
            failures += error.failures
        except PvmlabError as error:
            failures.append(error)
        else:
            state.put(_KIND, task, promise.to_json(), wanted.identity)
            return promise
    raise _verdict(wanted, failures)


def remembered(task: str, wanted: SignedList, state: State) -> Promise | None:
    """Return what the last list promised that was accepted."""
    text = state.get(_KIND, task, wanted.identity)
    return Promise.from_json(text) if text is not None else None


def address(mirror: str, name: str) -> str:
    """Return the address of the file *name* on a mirror."""
    return urllib.parse.urljoin(mirror, urllib.parse.quote(name, safe="/~+"))


def _from(mirror: str, wanted: SignedList, patience: Patience | None) -> Promise:
    document = fetch_document([address(mirror, wanted.name)], patience=patience)
    signature = None
    if wanted.signature is not None:
        signature = fetch_document([address(mirror, wanted.signature)], patience=patience)
    signed = verify(_list_name(mirror, wanted), document, signature=signature, keys=wanted.keys)
    about = wanted.file if wanted.name.rpartition("/")[2].startswith(wanted.file) else None
    chosen = choose(parse_checksums(signed.content.decode(errors="replace"), about=about), wanted.file)
    return Promise(
        file=chosen.name, digests=chosen.digests, size=chosen.size,
        signed_by=signed.fingerprint, signed_at=int(signed.time.timestamp()),
    )  # fmt: skip


def _list_name(mirror: str, wanted: SignedList) -> str:
    return scrubbed(address(mirror, wanted.name))


def _verdict(wanted: SignedList, failures: list[PvmlabError]) -> PvmlabError:
    """Return what went wrong: if all mirrors have a list that is refused, why the first one is."""
    if failures and not any(isinstance(failure, MirrorError) for failure in failures):
        return failures[0]
    return all_failed(wanted.name[:_FEW], failures)
