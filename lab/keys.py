"""SSH key pairs: the lab's own, and the host keys of its machines, all ed25519 and without passphrase."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from contracts.machine import SshHostKey
from lab.sockets import ensure_private
from pipeline import commit
from pipeline.errors import CommandError, ConflictError
from pipeline.run import run

_TIMEOUT = 30.0  # seconds; making a key takes milliseconds


@dataclasses.dataclass(frozen=True)
class KeyPair:
    """A key pair in two files. The public one is there whenever the private one is."""

    private: Path

    @property
    def public(self) -> Path:
        """The one-line public key."""
        return self.private.with_name(self.private.name + ".pub")

    def read_public(self) -> str:
        """Return the public key, one line without its end."""
        return self.public.read_text().strip()


def make_key(comment: str, *, scratch: Path) -> SshHostKey:
    """Return a new key.

    :param scratch: a private folder of ours to make it in; nothing stays there.
    """
    ensure_private(scratch)
    with tempfile.TemporaryDirectory(prefix=".key.", dir=scratch) as folder:
        path = Path(folder) / "key"
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path], timeout=_TIMEOUT)
        return SshHostKey(private=path.read_text(), public=KeyPair(path).read_public())


def ensure_key_pair(private: Path, *, comment: str) -> KeyPair:
    """Return the key pair at *private*, made if there is none.

    The private key is published last: whenever it is there the pair is whole. A lost public key is made again from
    the private one, as machines trust the old one.

    :raises ConflictError: if the private key cannot be read as one.
    """
    pair = KeyPair(private)
    if private.exists():
        if not pair.public.exists():
            commit.publish_text(pair.public, _public_of(private))
        return pair
    key = make_key(comment, scratch=private.parent)
    commit.publish_text(pair.public, f"{key.public}\n")
    commit.publish_text(private, key.private, mode=0o600)
    return pair


def _public_of(private: Path) -> str:
    try:
        return run(["ssh-keygen", "-y", "-P", "", "-f", private], timeout=_TIMEOUT).stdout
    except CommandError as error:
        raise ConflictError(
            f"{private} is not a usable SSH key",
            details=error.details,
            resolution="put the right file back; or ./pvmlab clean --keys, which makes machines and keys anew",
        ) from None
