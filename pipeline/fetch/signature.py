"""OpenPGP signatures of small documents, checked by gpgv against keys that are pinned by their fingerprints.

Decided by what gpgv says on its status channel (doc/DETAILS of GnuPG), never by how it ends: a second signer whose key
is not known makes it fail, and it does not mind an expired or revoked key.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import datetime as dt
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline.errors import ChecksumError, PvmlabError
from pipeline.run import run

_TIMEOUT = 60.0
_FINGERPRINT = re.compile(r"[0-9A-F]{40}")
_HASHES = {"8", "9", "10", "11"}  # SHA-256, -384, -512, -224: RFC 4880, 9.4. Not MD5, SHA-1, RIPEMD-160
_DOCUMENT, _TEXT = "00", "01"  # signature classes: RFC 4880, 5.2.1
_ARMOR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)\r?\n-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL
)
_BEGIN, _MIDDLE, _END = (
    b"-----BEGIN PGP SIGNED MESSAGE-----", b"-----BEGIN PGP SIGNATURE-----", b"-----END PGP SIGNATURE-----",
)  # fmt: skip
_SPOILT = {
    "EXPKEYSIG": "its key has expired",
    "REVKEYSIG": "its key was revoked",
    "EXPSIG": "the signature itself has expired",
    "BADSIG": "the text was changed after it was signed",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signed:
    """A document whose signature is good.

    :ivar content: what was signed, nothing else. :ivar fingerprint: the pinned one, of the key or its primary key.
    :ivar time: when it was signed, in UTC.
    """

    content: bytes
    fingerprint: str
    time: dt.datetime


class SignatureError(ChecksumError):
    """A document is not signed by whom it must be."""

    def __init__(self, name: str, why: str, *, details: str = "") -> None:
        self.name, self.why = name, why
        super().__init__(
            f"{name} is not signed as it must be: {why}",
            details=details,
            resolution="do not use it. If the distribution has a new key: compare its fingerprint with the one on the "
            "distribution's own pages, add the key (distros/keys/<fingerprint>.asc) and name it in the definition",
        )


def verify(name: str, document: bytes, *, signature: bytes | None, keys: Mapping[str, Path]) -> Signed:
    """Return what of *document* is signed by one of *keys*.

    :param name: what people call it. :param signature: its detached signature; None if it is clear-signed.
    :param keys: files with armored public keys by their fingerprints: 40 hex digits, upper case.
    :raises SignatureError: if it is not signed by any of them, or the key has expired or was revoked.
    :raises PvmlabError: if a key file cannot be read. :raises MissingProgramError: without gpgv.
    """
    if not keys or not all(map(_FINGERPRINT.fullmatch, keys)):
        raise PvmlabError(f"no key is named that signs {name}", details="fingerprints have 40 hex digits, upper case")
    text = document if signature is not None else _signed_block(name, document)
    with tempfile.TemporaryDirectory(prefix="pvmlab-gpgv-") as folder:
        place = Path(folder)
        (place / "keyring.gpg").write_bytes(b"".join(dearmor(path) for path in keys.values()))
        (place / "document").write_bytes(text)
        (place / "signature").write_bytes(signature or b"")
        options: list[str | Path] = ["--homedir", place, "--keyring", place / "keyring.gpg", "--status-fd", "1"]
        files = [place / "signature"] if signature is not None else ["--output", place / "content"]
        done = run(["gpgv", *options, *files, place / "document"], timeout=_TIMEOUT, check=False)
        content = document if signature is not None else _read(place / "content")
    status = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] ")]
    fingerprint, seconds = _judge(name, status, keys)
    return Signed(content=content, fingerprint=fingerprint, time=dt.datetime.fromtimestamp(seconds, dt.UTC))


def dearmor(path: Path) -> bytes:
    """Return the public keys in an armored file (RFC 4880, 6.2) as gpgv wants them: binary.

    :raises PvmlabError: if there is none, or it is damaged.
    """
    try:
        blocks = _ARMOR.findall(path.read_bytes())
        keys = [_block(block) for block in blocks]
    except (OSError, ValueError, binascii.Error) as error:
        raise _bad_key(path, str(error)) from error
    if not keys:
        raise _bad_key(path, "there is no public key block in it")
    return b"".join(keys)


def _block(block: bytes) -> bytes:
    """Return what is in an armored block, without its header and its checksum."""
    lines = [line.strip() for line in block.splitlines()]
    while lines and b":" in lines[0]:
        del lines[0]
    body = [line for line in lines if line and not line.startswith(b"=")]
    return base64.b64decode(b"".join(body), validate=True)


def _bad_key(path: Path, why: str) -> PvmlabError:
    return PvmlabError(f"the key file {path.name} cannot be read", details=f"{path}: {why}")


def _signed_block(name: str, document: bytes) -> bytes:
    """Return the one clear-signed text in *document*: what stands around it may be anybody's.

    :raises SignatureError: if there is not exactly one.
    """
    lines = document.splitlines(keepends=True)
    marks = [(number, line.rstrip()) for number, line in enumerate(lines) if line.rstrip() in {_BEGIN, _MIDDLE, _END}]
    if [mark for _, mark in marks] != [_BEGIN, _MIDDLE, _END]:
        raise SignatureError(name, "it is not one clear-signed text")
    return b"".join(lines[marks[0][0] : marks[2][0] + 1])


def _judge(name: str, status: Sequence[Sequence[str]], keys: Mapping[str, Path]) -> tuple[str, int]:
    """Return the pinned fingerprint of a good signature and its time in seconds since 1970.

    :raises SignatureError: if there is none.
    """
    faults = []
    for signature in _signatures(status):
        valid = signature.get("VALIDSIG", [])
        signer = next((each for each in (valid[:1] + valid[9:10]) if each in keys), None)
        spoilt = next((why for word, why in _SPOILT.items() if word in signature), None)
        if spoilt is not None:
            faults.append(spoilt)
        elif "ERRSIG" in signature or len(valid) < 9:
            missing = signature.get("ERRSIG", ["of unknown name"])
            stranger = missing[-1] if len(missing) > 6 else missing[0]  # GnuPG before 2.2.7: half the fingerprint
            faults.append(f"the key {stranger} is not one of those that may sign it")
        elif "GOODSIG" not in signature or signer is None:
            faults.append(f"the key {valid[0]} is not one of those that may sign it")
        elif valid[7] not in _HASHES or valid[8] not in {_DOCUMENT, _TEXT}:
            faults.append("it is signed by way of a digest that can be forged, or as something else than a document")
        else:
            return signer, int(valid[2])
    raise SignatureError(name, faults[0] if faults else "there is no signature", details="\n".join(faults[1:]))


def _signatures(status: Sequence[Sequence[str]]) -> Iterator[dict[str, list[str]]]:
    """Yield for each signature what gpgv says of it, by keyword."""
    current: dict[str, list[str]] | None = None
    for keyword, *words in (line for line in status if line):
        if keyword == "NEWSIG":
            if current is not None:
                yield current
            current = {}
        elif current is not None:
            current.setdefault(keyword, list(words))
    if current is not None:
        yield current


def _read(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
