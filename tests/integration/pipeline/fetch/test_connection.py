"""Where requests go, and where they do not: redirects, proxies, secrets in addresses, Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import run
from pipeline.errors import PvmlabError, UsageError
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.connection import ask
from pipeline.fetch.document import fetch_document
from pipeline.fetch.failure import MirrorError, NoMirrorError, StoppedError
from pipeline.fetch.offline import OfflineError
from pipeline.fetch.patience import Patience
from pipeline.fetch.store import Store, obtain
from pipeline.workspace import Cache
from tests.fakes.media_server import PAGE, Manner, MediaServer

_SECRET = "hunter2canary"
_NONE = "0" * 64
_INSIDE = (
    "http://127.0.0.1:{port}/trap", "http://localhost:{port}/trap", "http://127.1:{port}/trap", "http://0:{port}/trap",
    "http://[::1]:{port}/trap", "http://[::ffff:127.0.0.1]:{port}/trap", "http://2130706433:{port}/trap",
    "http://0x7f.1:{port}/trap", "http://0177.0.0.1:{port}/trap", "http://0.0.0.0:{port}/trap", "http://[::]:{port}/",
    "http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "http://10.0.0.1/", "http://192.168.1.1/",
    "http://172.16.0.1/", "http://100.64.0.1/", "http://[fd00::1]/", "http://localhost.:{port}/trap",
    "http://a.localhost:{port}/trap", "http://[64:ff9b::7f00:1]:{port}/", "http://user@127.0.0.1:{port}/trap",
    "http://[2002:7f00:1::]:{port}/", "http://224.0.0.1/", "//127.0.0.1:{port}/trap",
)  # fmt: skip


@pytest.fixture(name="server")
def start_server() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


@pytest.fixture(name="trap")
def start_trap() -> Iterator[MediaServer]:
    with MediaServer({"/trap": Manner(data=b"secret")}) as trap:
        yield trap


def asset(*urls: str) -> Asset:
    return Asset(name="x.iso", urls=urls, digests=(Digest(Algorithm.SHA256, _NONE),))


@pytest.mark.parametrize("location", _INSIDE)
def test_a_mirror_outside_cannot_send_us_inside(
    server: MediaServer, trap: MediaServer, monkeypatch: pytest.MonkeyPatch, hasty: Patience, location: str
) -> None:
    """The mirror outside is one behind a proxy; what is inside would be asked without it."""
    monkeypatch.setenv("http_proxy", server.url())
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost,10.0.0.0/8,::1")
    server.answer("/x", Manner(status=302, location=location.format(port=trap.port)))
    with pytest.raises(MirrorError, match="redirects to this host or this network"), ask("http://m.invalid/x", hasty):
        pass
    assert trap.connections == 0
    assert len(server.requests) == 1


def test_a_name_outside_that_leads_inside_is_not_asked(
    server: MediaServer, trap: MediaServer, monkeypatch: pytest.MonkeyPatch, hasty: Patience
) -> None:
    """As with a name that resolves to another address the second time. It is connected to, and nothing is sent."""
    resolve = socket.getaddrinfo

    def inside(host: str, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "rebound.invalid" else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", inside)
    monkeypatch.setenv("http_proxy", server.url())
    monkeypatch.setenv("no_proxy", "rebound.invalid")
    server.answer("/x", Manner(status=302, location=f"http://rebound.invalid:{trap.port}/trap"))
    with pytest.raises(MirrorError, match="redirects to this host or this network"), ask("http://m.invalid/x", hasty):
        pass
    assert trap.requests == []


def test_a_mirror_inside_may_redirect_inside(server: MediaServer, trap: MediaServer, hasty: Patience) -> None:
    server.answer("/x", Manner(status=302, location=trap.url("/trap")))
    with ask(server.url("/x"), hasty) as answer:
        assert (answer.url, answer.read(99)) == (trap.url("/trap"), b"secret")


def test_the_body_of_a_redirect_is_not_read(server: MediaServer, trap: MediaServer, hasty: Patience) -> None:
    headers = {"Location": trap.url("/trap")}
    server.answer("/x", Manner(data=b"x", endless=True, headers=headers, status=200))
    with ask(server.url("/x"), hasty) as answer:
        assert answer.status == 200
    server.answer("/y", Manner(status=302, headers={**headers, "Content-Length": "9" * 15}))
    with ask(server.url("/y"), hasty) as answer:
        assert answer.read(9) == b"secret"


def test_files_and_other_schemes_are_not_asked(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(_SECRET)
    for url in (secret.as_uri(), str(secret), "ftp://127.0.0.1/x", "FILE:///etc/passwd", "file://localhost/etc/passwd",
                "unix:///run/x", "data:,x", "//127.0.0.1/x", "http:/x", "http://", "https://:80/", "http://a b/",
                "http://a\\@b/", "http://a\nb/", "http://[::1", "http://a:b/", "http://a:0/", "", "x"):  # fmt: skip
        with pytest.raises(UsageError, match="is no address to download from"):
            obtain(asset(url), store=store)
    assert not store.root.exists()


def test_no_secret_of_an_address_is_told_or_kept(
    server: MediaServer, store: Store, hasty: Patience, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    host = f"127.0.0.1:{server.port}"
    server.answer(f"/cut?token={_SECRET}", Manner(data=b"x" * 5000, cut=500))
    server.answer(f"/moved?token={_SECRET}", Manner(status=302, location=f"/cut?token={_SECRET}"))
    server.answer(f"/far?token={_SECRET}", Manner(status=302, location=f"ftp://u:{_SECRET}@x/{_SECRET}?{_SECRET}"))
    urls = [f"http://user:{_SECRET}@{host}/{path}?token={_SECRET}" for path in ("cut", "moved", "far", "gone")]
    urls += [
        f"http://user:{_SECRET}@127.0.0.1:1/?{_SECRET}",
        f"https://{_SECRET}@{host}/",
        f"http://{_SECRET}@x.invalid/",
    ]
    with pytest.raises(NoMirrorError) as caught:
        obtain(asset(*urls), store=store, patience=hasty)
    told = [caught.value.brief, caught.value.details, caught.value.resolution, caplog.text, str(caught.value)]
    with pytest.raises(UsageError) as refused:
        obtain(asset(f"ftp://user:{_SECRET}@x/?{_SECRET}#{_SECRET}"), store=store)
    told += [refused.value.brief, refused.value.details]
    monkeypatch.setenv("http_proxy", f"http://user:{_SECRET}@127.0.0.1:1")
    with pytest.raises(NoMirrorError, match="could not be downloaded") as proxied:
        obtain(asset("http://m.invalid/x"), store=store, patience=hasty)
    told += [proxied.value.details]
    assert _SECRET not in "\n".join(told)
    store.state.close()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or _SECRET.encode() not in path.read_bytes()
    assert server.requests[0].headers["authorization"].startswith("Basic ")  # and yet it was sent, to whom it is for
    assert all("authorization" in request.headers for request in server.requests if request.path.startswith("/gone"))


def test_a_password_does_not_follow_to_another_host(server: MediaServer, trap: MediaServer, hasty: Patience) -> None:
    server.answer("/x", Manner(status=302, location=trap.url("/trap")))
    with ask(f"http://user:{_SECRET}@127.0.0.1:{server.port}/x", hasty) as answer:
        assert answer.status == 200
    assert "authorization" not in trap.requests[0].headers


def test_what_is_asked_is_the_file_as_it_is(server: MediaServer, hasty: Patience) -> None:
    with ask(server.url("/x"), hasty):
        pass
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert server.requests[0].headers["user-agent"] == "pvmlab"


def test_certificates_are_checked_against_the_ones_that_are_trusted(
    store: Store, hasty: Patience, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    run.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=mirror", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        timeout=60.0,
    )  # fmt: skip
    data = b"x" * 200_000
    wanted = Digest(Algorithm.SHA256, hashlib.sha256(data).hexdigest())
    with MediaServer(certificate=(certificate, key)) as server:
        server.answer("/x.iso", [Manner(data=data, stall=150_000), Manner(data=data)])
        order = Asset(name="x.iso", urls=(server.url("/x.iso"),), digests=(wanted,))
        with pytest.raises(NoMirrorError) as caught:
            obtain(order, store=store, patience=hasty)
        assert "its certificate is not trusted (self-signed certificate)" in caught.value.details
        assert (server.requests, server.connections) == ([], 1)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert obtain(order, store=store, patience=hasty).path.read_bytes() == data
        assert server.requests[-1].headers["range"] == "bytes=150000-"
        server.answer("/slow", Manner(data=data, trickle=0.01))
        with ask(server.url("/slow"), hasty) as answer, pytest.raises(MirrorError, match="too slow"):
            list(iter(functools.partial(answer.read, 99), b""))


def test_ctrl_c_ends_a_download_in_a_thread(server: MediaServer, store: Store) -> None:
    """Signals reach the main thread only, which says :func:`pipeline.run.end_all`."""
    server.answer("/x", Manner(data=b"x" * 5000, stall=4000))
    errors: list[BaseException] = []

    def download() -> None:
        try:
            obtain(asset(server.url("/x")), store=store)
        except PvmlabError as error:
            errors.append(error)

    thread = threading.Thread(target=download)
    thread.start()
    part = store.parts / f"{_NONE}.part"
    while thread.is_alive() and not (part.exists() and part.stat().st_size == 4000):
        thread.join(0.01)
    run.end_all()
    try:
        assert run.is_ending()
        thread.join(5.0)  # the read timeout would be 30 s
        assert not thread.is_alive()
    finally:
        run.resume()
        thread.join()
    assert [type(error) for error in errors] == [StoppedError]
    assert part.stat().st_size == 4000


def test_a_document_is_small_and_no_page(server: MediaServer, hasty: Patience) -> None:
    server.answer("/d", [Manner(data=b"abc", cut=1), Manner(status=503), Manner(data=b"abc")])
    assert fetch_document([server.url("/none"), server.url("/d")], patience=hasty) == b"abc"
    for manner, why in (
        (Manner(data=b"x" * 1001), "more than the 1,000"), (Manner(data=b"x", endless=True), "more than the 1,000"),
        (Manner(data=PAGE), "web page"), (Manner(data=b""), "sends nothing"), (Manner(status=500), "status 500"),
    ):  # fmt: skip
        server.answer("/d", manner)
        with pytest.raises(NoMirrorError) as caught:
            fetch_document([server.url("/d")], limit=1000, patience=hasty)
        assert why in caught.value.details


def test_a_document_is_not_asked_for_offline(server: MediaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="SHA256SUMS is not here"):
        fetch_document([server.url("/SHA256SUMS")])
    assert server.connections == 0


def connections_to(port: int) -> list[socket.socket]:
    """Return what is open to a port of this host: our end of it."""
    found = []
    for each in gc.get_objects():
        if isinstance(each, socket.socket) and each.fileno() >= 0:
            with contextlib.suppress(OSError):  # not connected
                if each.family == socket.AF_INET and each.getpeername()[1] == port:
                    found.append(each)
    return found


def test_an_answer_whose_header_contradicts_itself_is_closed_at_once(
    server: MediaServer, tmp_path: Path, hasty: Patience
) -> None:
    server.answer("/odd/x.iso", [Manner(data=b"12345", headers={"Content-Length": "5, 6"})])
    server.answer("/good/x.iso", [Manner(data=b"12345")])
    store = Store(Cache(tmp_path / "cache"))
    wanted = Asset(
        name="x.iso",
        urls=(server.url("/odd/x.iso"), server.url("/good/x.iso")),
        digests=(Digest(Algorithm.SHA256, hashlib.sha256(b"12345").hexdigest()),),
    )
    gc.disable()
    try:
        obtain(wanted, store=store, patience=hasty)
        assert connections_to(server.port) == []
    finally:
        gc.enable()
        store.state.close()
