"""The one-time tokens of the machines' boots: made, kept as digests, checked, ended.

A token is 128 random bits, made with each boot script that leads to an install. It ends with the machine's next
script, with the end of the install, or ``LIFETIME`` after it was made. Whoever shows it must ask from one of the
machine's reserved addresses.

Each document is handed out once. Answers get lost and clients ask again, so for :data:`REPEAT_WINDOW` the machine may
have it again, from any of its addresses: which of its cards an installer asks by is up to the installer.

- our installer tries for a minute;
- debian-installer's fetch-url and our wget in it try four times, 30 s each;
- cloud-init reads each NoCloud document once a boot, in tries of some seconds, and keeps what it has read;
- Anaconda's dracut module reads the kickstart once for each card that comes up, and keeps it for stage 2, which reads
  it again only if it was not kept: some minutes later, as stage 2 is loaded in between, under emulation ten.

Reports, and the script that makes them (it holds nothing but its URL), may be had and posted as long as the install
lasts; reports also for :data:`REPEAT_WINDOW` after its end, because the answer to the last one can get lost too.
A failed install does not end the token: a person may help it on from the machine's console.

What is kept of a token is on the host: a provisioner that is ended in the middle of an install knows its machine when
it is back. It is the token's digest and the names of the documents that were handed out; who reads it can show no
token, and who could write it could write the machine's definition, too. It is removed when it opens nothing any more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import logging
import secrets
import stat
import time
from collections.abc import Callable, Container
from pathlib import Path

from contracts import document as documents
from contracts.answers import REPORT
from contracts.machine import VmDefinition
from contracts.tokens import LIFETIME, TOKEN, Given, Record, record_name
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.write_behind import WriteBehind

_LOG = logging.getLogger(__name__)
REPEAT_WINDOW = 900.0  # seconds after its first reading in which a document may be read again
MAX_DOCUMENTS = 64  # of one token; there are ten or so
REPORTING = "report"  # what :meth:`TokenStore.require` calls the posting of a report
REPEATABLE = frozenset({REPORTING, f"answers/{REPORT}"})
_PRIVATE = 0o700
_PRUNE_BUDGET = 0.02  # seconds


class TokenStore:
    """Keeps one token for each machine, in memory and in a directory: no restart ends one.

    :param directory: is made, mode 0700, if it is not there. This is the only writer; the host may remove files.
    :param files: who writes below its parent; without, each file is put in place at once.
    :param clock: seconds; the same after a restart (not since the start of a process).
    :raises OSError: if the directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, files: WriteBehind | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:  # fmt: skip
        self._directory = directory
        self._files = files or WriteBehind(directory.parent)
        self._clock = clock
        self._by_uuid: dict[str, Record] = {}
        self._by_digest: dict[str, str] = {}
        self._gone: set[str] = set()
        directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        _close(directory)
        for path in sorted(directory.iterdir()):
            if path.name.startswith("."):  # a writer was ended in the middle of it
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                self._load(path)

    def issue(self, machine: VmDefinition) -> str:
        """Return a fresh token for *machine*; the one it had before is worth nothing from now on.

        :raises Refusal: 503 if it cannot be kept.
        """
        token = secrets.token_hex(16)
        self._keep(Record(uuid=machine.uuid, digest=_digest(token), issued=self._clock()))
        return token

    def find(self, token: str) -> str | None:
        """Return the UUID of the machine that *token* was made for, also if it has ended since; None if for none."""
        if not TOKEN.match(token):
            return None
        digest = _digest(token)
        record = self._by_uuid.get(self._by_digest.get(digest, ""))
        # The look-up above is by a digest, which tells nobody who measures it how near a guess was; nor does this.
        return record.uuid if record is not None and hmac.compare_digest(record.digest, digest) else None

    def require_uuid(self, token: str, *, document: str, client: str | None) -> str:
        """Return what :meth:`find` does.

        :raises Refusal: 403 if the token is none of ours; that is logged.
        """
        uuid = self.find(token)
        if uuid is None:
            why = "its token is unknown, or has ended" if TOKEN.match(token) else "its token is not a token"
            _LOG.warning("refused: %s asked for %s: %s", client, _plain(document), why)
            raise Refusal(403, f"no machine may have this: {why}")
        return uuid

    def require(self, machine: VmDefinition, token: str, *, document: str, client: str | None) -> None:
        """Check that *client*, who shows *token*, may have *document* of *machine* now; take note that it has.

        :param document: its path below the token, as ``config`` or ``answers/ks.cfg``; :data:`REPORTING` for a report.
        :param client: the address that the request came from, None if it is not known.
        :raises Refusal: 403 if not, which is logged without the token; 503 if it cannot be noted.
        """
        record = self._by_uuid.get(machine.uuid)
        why = self._find_reason(machine, record, token, document=document, client=client)
        if why:
            _LOG.warning("refused: %s asked for %s of %s: %s", client, _plain(document), machine.name, why)
            raise Refusal(403, f"{_plain(document)} of {machine.name} is for {machine.name} only: {why}")
        if record is None or document in REPEATABLE or _find_given(record, document):
            return
        first = Given(document=document, time=self._clock())
        self._keep(dataclasses.replace(record, given=(*record.given, first)))

    def end(self, machine: VmDefinition) -> None:
        """Let the machine's token open nothing any more: its install has ended. Without one, do nothing.

        :raises Refusal: 503 if it cannot be kept.
        """
        record = self._by_uuid.get(machine.uuid)
        if record is not None and record.ended is None:
            self._keep(dataclasses.replace(record, ended=self._clock()))

    def prune(self, machines: Container[str] | None) -> None:
        """Remove what opens nothing any more, as far as there is time for: the rest goes at the next call.

        :param machines: the UUIDs of all machines of the lab; None if they are not known for certain. One that is not
            among them twice in a row is gone: between two looks, an editor may be putting its definition back.
        """
        end, now, before = time.monotonic() + _PRUNE_BUDGET, self._clock(), self._gone
        absent = {uuid for uuid in self._by_uuid if uuid not in machines} if machines is not None else set[str]()
        self._gone = absent - before
        for uuid, record in list(self._by_uuid.items()):
            if (uuid in absent and uuid in before) or _is_over(record, now=now):
                self._remove(record)
            if time.monotonic() > end:
                self._gone |= absent & before
                return

    def _find_reason(
        self, machine: VmDefinition, record: Record | None, token: str, *, document: str, client: str | None
    ) -> str:
        """Return why not; nothing if *client* may."""
        if client is None or client not in addresses_of(machine):
            return f"{client} is not its address"
        if not TOKEN.match(token):
            return "the token is not a token"
        if record is None or not hmac.compare_digest(record.digest, _digest(token)):
            return "the token is not the one of its last boot"
        now = self._clock()
        if now - record.issued > LIFETIME:
            return f"the token was made more than {LIFETIME / 3600:g} hours ago"
        if record.ended is not None and not (document == REPORTING and now - record.ended <= REPEAT_WINDOW):
            return "its install has ended"
        return "" if document in REPEATABLE else _find_repetition(record, document, now=now)

    def _keep(self, record: Record) -> None:
        # Not flushed to the disk: what the host's kernel has outlives the provisioner, and who loses the host's power
        # loses the machines as well. An empty file, which that may leave, counts as broken.
        name = f"{self._directory.name}/{record_name(record.uuid)}"
        try:
            self._files.keep(name, documents.dumps_line(record), mode=0o600, durable=False)
        except OSError as error:
            raise Refusal(503, f"the token cannot be kept: {error.strerror}") from None
        self._remember(record)

    def _load(self, path: Path) -> None:
        """Take over what an earlier process kept. What cannot be read opens nothing: its machine has to boot again."""
        try:
            record = _read(path)
        except (OSError, documents.DocumentError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"{error}; it is removed"
            _LOG.error("the token in %s cannot be read; its machine has to boot again: %s", _plain(path.name), reason)
            if isinstance(error, documents.DocumentError):
                with contextlib.suppress(OSError):
                    path.unlink()
            return
        self._remember(record)
        if _is_over(record, now=self._clock()):
            self._remove(record)

    def _remove(self, record: Record) -> None:
        try:
            self._path(record.uuid).unlink(missing_ok=True)
        except OSError as error:  # it opens nothing, there or not
            _LOG.warning("the token of %s cannot be removed: %s", record.uuid, error.strerror)
        del self._by_uuid[record.uuid]
        self._by_digest.pop(record.digest, None)

    def _path(self, uuid: str) -> Path:
        return self._directory / record_name(uuid)

    def _remember(self, record: Record) -> None:
        old = self._by_uuid.get(record.uuid)
        if old is not None:
            self._by_digest.pop(old.digest, None)
        self._by_uuid[record.uuid] = record
        self._by_digest[record.digest] = record.uuid


def addresses_of(machine: VmDefinition) -> frozenset[str]:
    """Return the addresses that are reserved for *machine*, of all its cards."""
    return frozenset(address for card in machine.cards for address in (card.ip, card.ipv6) if address)


def _close(directory: Path) -> None:
    """Let nobody but its owner into *directory*.

    It may be the host's, made by the person who runs the lab: the container's root may not change the mode of other
    people's files (it has no CAP_FOWNER). Then it stays as it is, for who reads it learns the SHA-256 of 128 random
    bits and names of documents. Where it is made by us it is closed from the first moment.
    """
    if stat.S_IMODE(directory.stat().st_mode) == _PRIVATE:
        return
    try:
        directory.chmod(_PRIVATE)
    except PermissionError:
        _LOG.warning("%s is open to others, and stays so: it is somebody else's", directory)


def _read(path: Path) -> Record:
    """:raises OSError: if it cannot be read. :raises DocumentError: if it is not the record that its name says."""
    record = documents.loads(Record, path.read_bytes())
    if path.name != record_name(record.uuid):
        raise documents.DocumentError("Record", [f"uuid: {record.uuid!r} is another machine's"])
    return record


def _is_over(record: Record, *, now: float) -> bool:
    """Tell whether nothing can be had with the token any more, not even its last answer."""
    return now - record.issued > LIFETIME or (record.ended is not None and now - record.ended > REPEAT_WINDOW)


def _find_repetition(record: Record, document: str, *, now: float) -> str:
    """Return why *document* may not be handed out (again); nothing if it may."""
    given = _find_given(record, document)
    if given is None:
        too_many = len(record.given) >= MAX_DOCUMENTS
        return f"{MAX_DOCUMENTS} documents were handed out already" if too_many else ""
    if now - given.time > REPEAT_WINDOW:
        return f"it was handed out more than {REPEAT_WINDOW / 60:g} minutes ago"
    return ""


def _find_given(record: Record, document: str) -> Given | None:
    return next((given for given in record.given if given.document == document), None)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _plain(text: str) -> str:
    """Return *text*, which may come from a request, as it may stand in a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:80])
