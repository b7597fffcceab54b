"""Throw-away OpenPGP keys, and texts signed with them by gpg."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from pipeline.run import run

_TIMEOUT = 60.0
_NOW = "20250701T120000"


class Signer:
    """Some keys in a folder of their own. A context manager's job is done by :meth:`close`: gpg's agent is ended."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="gpg")  # a short path: the agent's socket is in it
        self._home = Path(self._folder.name)

    def close(self) -> None:
        """End the agent, remove the keys."""
        run(["gpgconf", "--homedir", self._home, "--kill", "all"], timeout=_TIMEOUT, check=False)
        self._folder.cleanup()

    def make_key(self, name: str, *, expires: str = "never", subkey: bool = False) -> str:
        """Make a key, valid from 2020 on; return its fingerprint. :param subkey: with a second one that signs."""
        made = self._gpg("--quick-generate-key", name, "ed25519", "cert,sign", expires, at="20200101T000000")
        found = re.search(r"KEY_CREATED \w ([0-9A-F]{40})", made)
        assert found is not None, made
        fingerprint = found[1]
        if subkey:
            self._gpg("--quick-add-key", fingerprint, "ed25519", "sign", "never", at="20200101T000000")
        return fingerprint

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key."""
        certificate = (self._home / f"openpgp-revocs.d/{fingerprint}.rev").read_text().replace(":-----", "-----")
        (self._home / "revoke.asc").write_text(certificate)
        self._gpg("--import", str(self._home / "revoke.asc"))

    def export(self, fingerprint: str, folder: Path) -> Path:
        """Write the public key to ``<fingerprint>.asc`` in *folder*."""
        path = folder / f"{fingerprint}.asc"
        self._gpg("--yes", "--armor", "--output", str(path), "--export", fingerprint)
        return path

    def sign(self, text: bytes, *fingerprints: str, clear: bool = False, at: str = _NOW, digest: str = "SHA512",
             armor: bool = True) -> bytes:  # fmt: skip
        """Return a detached signature, or with *clear* the clear-signed text.

        :param at: when, as ``20250701T120000``.
        """
        plain, signed = self._home / "text", self._home / "signed"
        plain.write_bytes(text)
        users = [word for each in fingerprints for word in ("--local-user", each)]
        how = ["--clear-sign"] if clear else ["--detach-sign", *(["--armor"] if armor else [])]
        self._gpg("--yes", *users, "--digest-algo", digest, "--output", str(signed), *how, str(plain), at=at)
        return signed.read_bytes()

    def attach(self, text: bytes, fingerprint: str) -> bytes:
        """Return a binary message with *text* in it."""
        plain, signed = self._home / "text", self._home / "signed"
        plain.write_bytes(text)
        self._gpg("--yes", "--local-user", fingerprint, "--output", str(signed), "--sign", str(plain))
        return signed.read_bytes()

    def _gpg(self, *words: str, at: str = _NOW) -> str:
        options = [
            "--homedir", str(self._home), "--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback",
            "--passphrase", "", "--status-fd", "1", "--faked-system-time", f"{at}!", "--allow-weak-digest-algos",
        ]  # fmt: skip
        return run(["gpg", *options, *words], timeout=_TIMEOUT).stdout
