"""Small files that are read at once: lists of checksums, signatures."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import PvmlabError
from pipeline.fetch.addresses import scrubbed
from pipeline.fetch.answers import refusal, require_no_page
from pipeline.fetch.connection import ask
from pipeline.fetch.failure import MirrorError, StoppedError, all_failed
from pipeline.fetch.offline import require_online
from pipeline.fetch.patience import Patience

DEFAULT_LIMIT = 1 << 20  # bytes; the list of a whole Ubuntu or Fedora release has some kilobytes
_PIECE = 1 << 16


def fetch_document(urls: Sequence[str], *, limit: int = DEFAULT_LIMIT, patience: Patience | None = None) -> bytes:
    """Return the content of a small file from the first of *urls* that has it.

    Nothing says whether it is right: what is in it must be signed or compared.

    :param limit: bytes; more is refused while it comes.
    :raises OfflineError: if the network must not be used. :raises PvmlabError: if none has it, with what each did.
    """
    failures: list[PvmlabError] = []
    name = scrubbed(urls[0]).rpartition("/")[2] if urls else "a document"
    require_online(name)
    for url in urls:
        try:
            return _from(url, limit, patience or Patience())
        except MirrorError as error:
            failures.append(error)
    raise all_failed(name, failures)


def _from(url: str, limit: int, patience: Patience) -> bytes:
    for failures in range(1, patience.tries + 1):
        try:
            return _receive(url, limit, patience)
        except MirrorError as error:
            if patience.is_stopping():
                raise StoppedError(scrubbed(url)) from None
            if not error.is_passing or failures == patience.tries or (error.wait or 0) > patience.longest:
                raise
            patience.sleep(patience.delay(failures, error.wait))
    raise AssertionError("unreachable: the last try raises")


def _receive(url: str, limit: int, patience: Patience) -> bytes:
    with ask(url, patience) as answer:
        if answer.status != 200:
            raise refusal(answer)
        content = bytearray()
        while data := answer.read(min(_PIECE, limit + 1 - len(content))):
            content += data
            if len(content) > limit:
                raise MirrorError(url, f"it sends more than the {limit:,} bytes that are taken")
        require_no_page(answer, bytes(content))
        if answer.length is not None and answer.length != len(content):
            raise MirrorError(url, "it closed the connection before the end", is_passing=True)
        if not content:
            raise MirrorError(url, "it sends nothing")
        return bytes(content)
