"""What may be wanted, and how it is put when it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ExitCode, PvmlabError, UsageError
from pipeline.fetch.asset import Algorithm, Asset, Digest, require_file_name
from pipeline.fetch.failure import FullDiskError, MirrorError, NoMirrorError, WrongBytesError, all_failed, said_of
from pipeline.fetch.offline import OfflineError, is_offline
from pipeline.fetch.patience import Patience
from pipeline.fetch.signature import dearmor

_SHA256 = Digest(Algorithm.SHA256, "a" * 64)
_SHA512 = Digest(Algorithm.SHA512, "b" * 128)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/x", "a\\b", ".x", "-x", "x y", "x\n", "x\0", "\u00fc", "x" * 201, "$x", "x;y"],
)
def test_names_that_are_more_than_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a downloaded file"):
        require_file_name(name)
    with pytest.raises(UsageError):
        Asset(name=name, urls=(), digests=(_SHA256,))


@pytest.mark.parametrize("value", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 63 + "\n", "b" * 128])
def test_digests_that_are_none_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="is no sha256 digest"):
        Digest(Algorithm.SHA256, value)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="no digest of x is known"):
        Asset(name="x", urls=(), digests=())
    with pytest.raises(UsageError, match="two digests of one kind"):
        Asset(name="x", urls=(), digests=(_SHA256, Digest(Algorithm.SHA256, "b" * 64)))
    for size in (0, -1, 11):
        with pytest.raises(UsageError, match="x cannot have"):
            Asset(name="x", urls=(), digests=(_SHA256,), size=size, max_size=10)


def test_an_asset_is_known_by_its_best_digest() -> None:
    both = Asset(name="x", urls=(), digests=(_SHA512, _SHA256))
    assert (both.sha256, both.identity, both.limit) == (_SHA256.value, _SHA256.value, 16 << 30)
    only = Asset(name="x", urls=(), digests=(_SHA512,), size=5)
    assert (only.sha256, only.identity, only.limit) == (None, "b" * 64, 5)


def test_errors_say_what_each_mirror_did() -> None:
    failures = [
        MirrorError("http://u:canary@a/x?canary", "it is down"),
        MirrorError("http://b/x", "it does not have the file"),
    ]
    error = all_failed("x.iso", failures)
    assert isinstance(error, NoMirrorError)
    assert error.brief == "x.iso could not be downloaded"
    assert error.details == "http://a/x?...: it is down\nhttp://b/x: it does not have the file"
    assert "it goes on where it was" in error.resolution
    wrong = all_failed("x.iso", [*failures, WrongBytesError("http://c/x", "it sends other bytes")])
    assert wrong.exit_code is ExitCode.CHECKSUM
    assert "lock it again" in wrong.resolution


def test_a_full_disk_is_told_in_bytes() -> None:
    error = FullDiskError("x.iso", needed=3 << 30, free=1000)
    assert error.brief == "the disk is too full for x.iso: 3,221,225,472 more bytes are needed, 1,000 are free"
    assert "cache.prune" in error.resolution


def test_what_libraries_say_is_not_passed_on() -> None:
    inner = OSError(111, "http://user:canary@h/")
    outer = ValueError("http://user:canary@h/", inner)
    assert said_of(outer) == "connection refused"
    assert said_of(ValueError("canary")) == "it does not speak HTTP as it should"
    outer.__cause__ = outer  # causes may go round in circles
    assert said_of(outer) == "connection refused"


@pytest.mark.parametrize(("value", "is_set"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_offline_is_asked_for_by_a_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, is_set: bool) -> None:
    monkeypatch.delenv("PVMLAB_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("PVMLAB_OFFLINE", value)
    assert is_offline() is is_set


def test_offline_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_OFFLINE", "yes")
    with pytest.raises(UsageError, match="PVMLAB_OFFLINE is 'yes'"):
        is_offline()


def test_offline_says_how_to_bring_the_file() -> None:
    error = OfflineError("x.iso", size=1 << 20, task="fetch:a:b:iso")
    assert error.brief == "x.iso (1,048,576 bytes) is not here, and PVMLAB_OFFLINE is set"
    assert "`./pvmlab cache.export media.tar fetch:a:b:iso`" in error.resolution
    assert "`./pvmlab cache.import media.tar`" in error.resolution


def test_waits_grow_and_end() -> None:
    patience = Patience(pause=1.0, longest=60.0)
    for failures in range(1, 12):
        expected = min(2.0 ** (failures - 1), 60.0)
        assert expected / 2 <= patience.delay(failures, None) <= expected * 1.5
    assert patience.delay(1, 7.0) == 7.0
    assert patience.delay(1, 7000.0) == 60.0
    assert not Patience(is_stopping=lambda: True).sleep(1000.0)


def test_a_key_file_without_a_key_is_told(tmp_path: Path) -> None:
    path = tmp_path / "key.asc"
    for text in ("", "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n*\n-----END PGP PUBLIC KEY BLOCK-----\n"):
        path.write_text(text)
        with pytest.raises(PvmlabError, match=r"the key file key\.asc cannot be read"):
            dearmor(path)
    path.write_text(
        "-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\nComment: y\n\naGVs\nbG8=\n=abcd\n"
        "-----END PGP PUBLIC KEY BLOCK-----\n"
    )
    assert dearmor(path) == b"hello"
