"""What can go wrong with a download, as errors people read.

No message of a library is passed on: it may hold a secret.
"""

from __future__ import annotations

import os
import ssl
import traceback
from collections.abc import Sequence

import requests
import urllib3.exceptions

from pipeline.errors import ChecksumError, PvmlabError, UsageError
from pipeline.fetch.addresses import scrubbed

# What requests and urllib3 raise for an answer or a connection that is not as it must be. OSError is among them by way
# of requests.RequestException; LocationParseError and UnicodeError are ValueErrors.
NETWORK_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError, OSError)
_CAUSES: tuple[tuple[type[Exception], str], ...] = (
    (urllib3.exceptions.NameResolutionError, "its name cannot be resolved"),
    (urllib3.exceptions.ConnectTimeoutError, "it does not answer: no connection in time"),
    (urllib3.exceptions.ReadTimeoutError, "it sent nothing for too long"),
    (requests.ConnectTimeout, "it does not answer: no connection in time"),
    (requests.ReadTimeout, "it sent nothing for too long"),
    (urllib3.exceptions.IncompleteRead, "it closed the connection before the end"),
    (requests.exceptions.ProxyError, "the proxy does not let us through"),
    (urllib3.exceptions.InvalidHeader, "it contradicts itself about the length"),
    (requests.exceptions.InvalidHeader, "it contradicts itself about the length"),
    (requests.exceptions.InvalidURL, "its address cannot be used"),
)
_DEPTH = 12  # causes of causes


class MirrorError(PvmlabError):
    """One mirror did not give what was asked for.

    :ivar url: which, scrubbed. :ivar reason: why, in half a sentence.
    :ivar is_passing: whether asking the same mirror again may help.
    :ivar wait: how many seconds it asks us to wait before, if it does.
    """

    def __init__(self, url: str, reason: str, *, is_passing: bool = False, wait: float | None = None) -> None:
        self.url, self.reason, self.is_passing, self.wait = scrubbed(url), reason, is_passing, wait
        super().__init__(f"{self.url}: {reason}")


class WrongBytesError(MirrorError):
    """A mirror sent all of a file, and it is another one than was promised."""


class StoppedError(PvmlabError):
    """The download was stopped from our side: Ctrl-C."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the download of {name} was stopped", details="what has arrived is kept; the next run goes on"
        )


class FullDiskError(PvmlabError):
    """There is no room for the rest of a download.

    :ivar needed: bytes that are still to come, None if nobody knows. :ivar free: bytes that are free.
    """

    def __init__(self, name: str, *, needed: int | None, free: int) -> None:
        self.needed, self.free = needed, free
        amount = f"{needed:,} more bytes are needed" if needed is not None else "more room is needed"
        super().__init__(
            f"the disk is too full for {name}: {amount}, {free:,} are free",
            resolution="free some space (./pvmlab cache.prune; PVMLAB_CACHE moves the cache), then run the same "
            "command again: it goes on where it was",
        )


class NoMirrorError(PvmlabError):
    """No mirror gave a file. :ivar failures: what each of them did."""

    def __init__(self, name: str, failures: Sequence[PvmlabError]) -> None:
        self.failures = tuple(failures)
        super().__init__(
            f"{name} could not be downloaded",
            details=_listed(failures),
            resolution="look whether the network and the mirrors are up, then run the same command again: it goes on "
            "where it was; another mirror can be written first into the definition of the distribution",
        )


class WrongMirrorsError(ChecksumError):
    """No mirror has the file that was promised, and at least one sent another. :ivar failures: what each did."""

    def __init__(self, name: str, failures: Sequence[PvmlabError]) -> None:
        self.failures = tuple(failures)
        super().__init__(
            f"{name} is not on any mirror as it was promised; what they sent instead was thrown away",
            details=_listed(failures),
            resolution="if the distribution has published it anew, its lock entry is out of date: lock it again "
            "(`./pvmlab distro.add`); if not, do not trust that mirror",
        )


def all_failed(name: str, failures: Sequence[PvmlabError]) -> PvmlabError:
    """Return the error that says that no mirror gave the file *name*."""
    if not failures:
        return UsageError(f"there is no mirror to download {name} from", resolution="name one in its definition")
    wrong = any(isinstance(failure, ChecksumError | WrongBytesError) for failure in failures)
    return (WrongMirrorsError if wrong else NoMirrorError)(name, failures)


def said_of(error: BaseException) -> str:
    """Return in half a sentence why a connection failed, without a word of an address."""
    chain = _chain(error)
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({each.verify_message})"
    for each in chain:
        if sentence := next((text for kind, text in _CAUSES if isinstance(each, kind)), None):
            return sentence
    for each in chain:
        if isinstance(each, ssl.SSLError):
            return "it does not speak TLS as it should"
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno).lower()
    return "it does not speak HTTP as it should"


def may_pass(error: BaseException) -> bool:
    """Return whether what :func:`said_of` tells may be otherwise in a moment."""
    return not any(
        isinstance(each, ssl.SSLCertVerificationError | requests.exceptions.InvalidURL) for each in _chain(error)
    )


def let_go(error: BaseException) -> None:
    """Let go of what was at work when *error*, which was dealt with, was raised.

    urllib3 leaves an answer whose header contradicts itself to the garbage collector, with its connection.
    """
    for each in _chain(error):
        traceback.clear_frames(each.__traceback__)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error with its causes, and those that libraries put into their arguments."""
    chain: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending and len(chain) < _DEPTH:
        each = pending.pop(0)
        if each is not None and each not in chain:
            chain.append(each)
            inner = [part for part in (getattr(each, "reason", None), *each.args) if isinstance(part, BaseException)]
            pending += [*inner, each.__cause__, each.__context__]
    return chain


def _listed(failures: Sequence[PvmlabError]) -> str:
    return "\n".join(failure.brief + (f" ({failure.details})" if failure.details else "") for failure in failures)
