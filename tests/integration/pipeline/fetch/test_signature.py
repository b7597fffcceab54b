"""Signatures made by gpg, looked at by gpgv: what is signed by a pinned key, and all that is not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ExitCode, PvmlabError
from pipeline.fetch.signature import SignatureError, Signed, dearmor, verify
from tests.fakes.signer import Signer

_TEXT = b"abc  x.iso\n- a line that begins with a dash\n-----BEGIN no armor\nlast\n"
_STRANGER = "0123456789ABCDEF0123456789ABCDEF01234567"


@pytest.fixture(name="signer", scope="module")
def make_signer() -> Iterator[Signer]:
    signer = Signer()
    yield signer
    signer.close()


@pytest.fixture(name="key", scope="module")
def make_key(signer: Signer) -> str:
    return signer.make_key("Media <media@example.org>", subkey=True)


@pytest.fixture(name="other", scope="module")
def make_other(signer: Signer) -> str:
    return signer.make_key("Other <other@example.org>")


@pytest.fixture(name="keys")
def export_keys(signer: Signer, key: str, tmp_path: Path) -> dict[str, Path]:
    return {key: signer.export(key, tmp_path)}


def refused(document: bytes, signature: bytes | None, keys: dict[str, Path]) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        verify("SHA256SUMS", document, signature=signature, keys=keys)
    assert caught.value.exit_code is ExitCode.CHECKSUM
    assert "distros/keys/" in caught.value.resolution
    return caught.value


@pytest.mark.parametrize("armor", [True, False])
def test_a_detached_signature_by_the_pinned_key_is_taken(
    signer: Signer, key: str, keys: dict[str, Path], armor: bool
) -> None:
    signature = signer.sign(_TEXT, key, at="20250304T050607", armor=armor)
    signed = verify("SHA256SUMS", _TEXT, signature=signature, keys=keys)
    time = dt.datetime(2025, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
    assert signed == Signed(content=_TEXT, fingerprint=key, time=time)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_of_a_clear_signed_text_only_what_is_signed_comes_out(
    signer: Signer, key: str, keys: dict[str, Path], line_end: bytes
) -> None:
    text = signer.sign(_TEXT, key, clear=True).replace(b"\n", line_end)
    around = b"123  evil.iso" + line_end + text + b"456  evil.iso" + line_end
    signed = verify("CHECKSUM", around, signature=None, keys=keys)
    assert signed.content.replace(b"\r", b"") == _TEXT
    assert signed.fingerprint == key


def test_text_between_the_armor_and_the_signed_text_is_not_signed(
    signer: Signer, key: str, keys: dict[str, Path]
) -> None:
    text = signer.sign(_TEXT, key, clear=True)
    for injected in (b"Comment: 123  evil.iso\n", b"123  evil.iso\n"):
        mixed = text.replace(b"Hash: SHA512\n", b"Hash: SHA512\n" + injected)
        try:
            signed = verify("CHECKSUM", mixed, signature=None, keys=keys)
        except SignatureError:
            continue
        assert b"evil" not in signed.content


def test_a_second_signer_who_is_not_known_does_no_harm(
    signer: Signer, key: str, other: str, keys: dict[str, Path]
) -> None:
    for order in ((key, other), (other, key)):
        signature = signer.sign(_TEXT, *order)
        assert verify("SHA256SUMS", _TEXT, signature=signature, keys=keys).fingerprint == key


def test_a_signing_key_may_be_pinned_itself_or_by_its_primary_key(signer: Signer, key: str, tmp_path: Path) -> None:
    signature = signer.sign(_TEXT, key)  # gpg takes the newest key that signs
    path = signer.export(key, tmp_path)
    signed = verify("SHA256SUMS", _TEXT, signature=signature, keys={key: path})
    assert signed.fingerprint == key
    assert "is not one of those that may sign it" in refused(_TEXT, signature, {_STRANGER: path}).brief


def test_a_changed_text_is_refused(signer: Signer, key: str, keys: dict[str, Path]) -> None:
    assert "changed after it was signed" in refused(_TEXT + b"x", signer.sign(_TEXT, key), keys).brief
    changed = signer.sign(_TEXT, key, clear=True).replace(b"abc", b"abd")
    assert "changed after it was signed" in refused(changed, None, keys).brief


def test_another_key_is_refused(signer: Signer, key: str, other: str, keys: dict[str, Path], tmp_path: Path) -> None:
    signature = signer.sign(_TEXT, other)
    assert f"the key {other} is not one of those" in refused(_TEXT, signature, keys).brief
    both = tmp_path / "both.asc"  # the file has the other key, but its fingerprint is not pinned
    both.write_bytes(keys[key].read_bytes() + signer.export(other, tmp_path).read_bytes())
    assert f"the key {other} is not one of those" in refused(_TEXT, signature, {key: both}).brief
    assert verify("x", _TEXT, signature=signer.sign(_TEXT, key), keys={key: both}).fingerprint == key


def test_an_expired_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    expired = signer.make_key("Old <old@example.org>", expires="20210101T000000")
    signature = signer.sign(_TEXT, expired, at="20200601T000000")
    assert "its key has expired" in refused(_TEXT, signature, {expired: signer.export(expired, tmp_path)}).brief


def test_a_revoked_key_is_refused(signer: Signer, tmp_path: Path) -> None:
    revoked = signer.make_key("Lost <lost@example.org>")
    signature = signer.sign(_TEXT, revoked)
    keys = {revoked: signer.export(revoked, tmp_path)}
    assert verify("x", _TEXT, signature=signature, keys=keys).fingerprint == revoked
    signer.revoke(revoked)
    assert "its key was revoked" in refused(_TEXT, signature, {revoked: signer.export(revoked, tmp_path)}).brief


def test_a_weak_digest_is_refused(signer: Signer, key: str, keys: dict[str, Path]) -> None:
    error = refused(_TEXT, signer.sign(_TEXT, key, digest="SHA1"), keys)
    assert "digest that can be forged" in error.brief


@pytest.mark.parametrize(
    "signature", [b"", b"x", b"<html>", b"-----BEGIN PGP SIGNATURE-----\n\n=AAAA\n-----END PGP SIGNATURE-----\n"]
)
def test_what_is_no_signature_is_refused(keys: dict[str, Path], signature: bytes) -> None:
    refused(_TEXT, signature, keys)


def test_a_message_is_no_detached_signature(signer: Signer, key: str, keys: dict[str, Path]) -> None:
    refused(_TEXT, signer.attach(b"something else", key), keys)
    refused(_TEXT, signer.sign(b"something else", key, clear=True), keys)


def test_what_is_not_one_clear_signed_text_is_refused(signer: Signer, key: str, keys: dict[str, Path]) -> None:
    one, two = signer.sign(_TEXT, key, clear=True), signer.sign(b"other\n", key, clear=True)
    for document in (b"", _TEXT, one + two, one[:-60], signer.attach(_TEXT, key), one.replace(b"SIGNED MESSAGE", b"X")):
        refused(document, None, keys)


def test_a_key_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / f"{_STRANGER}.asc"
    for content in (
        b"",
        b"<html>",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
    ):
        path.write_bytes(content)
        with pytest.raises(PvmlabError, match="cannot be read"):
            dearmor(path)
    with pytest.raises(PvmlabError, match="no key is named"):
        verify("x", b"", signature=b"", keys={})
    with pytest.raises(PvmlabError, match="no key is named"):
        verify("x", b"", signature=b"", keys={"abc": path})
