"""One GET request: redirects, the environment's proxies and certificates, and an end for whoever is too slow.

Redirects are followed here and not by requests, which would read their bodies whole, however long: a few, to http and
https, and never further inside than the address that was asked for (:class:`pipeline.fetch.addresses.Reach`): a mirror
on the internet must not have us ask a service of this host or this network. Where a connection leads is looked at when
it stands and before anything is asked, so a name that resolves differently the second time gains nothing. Behind a
proxy only names can be looked at.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from pipeline.errors import UsageError
from pipeline.fetch.addresses import Reach, reach_of_name, require_url
from pipeline.fetch.failure import NETWORK_ERRORS, MirrorError, let_go, may_pass, said_of
from pipeline.fetch.patience import Patience

_REDIRECTS = 8
_MOVED = {301, 302, 303, 307, 308}
_TICKS = 8  # looks in a window, at least
_HEADERS = {
    "User-Agent": "pvmlab",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # an encoded body cannot be resumed, and has other lengths
    "Connection": "close",
}


class Watch:
    """Ends a transfer that is too slow or no longer wanted, by shutting its socket: whoever reads from it wakes up.

    The time to the answer counts, so a server that sends its header byte by byte ends, too.

    :ivar verdict: why it was ended; None as long as it was not. :ivar is_stopped: whether because of Ctrl-C.
    """

    def __init__(self, patience: Patience) -> None:
        self.verdict: str | None = None
        self.is_stopped = False
        self._patience = patience
        self._received = 0
        self._lines: list[socket.socket] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="download watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        for line in self._lines:
            line.close()

    def hold(self, line: socket.socket) -> None:
        """Take note of a socket. A duplicate is kept: TLS takes the descriptor itself away from its socket."""
        self._lines.append(line.dup())
        if self.verdict is not None:
            self._shut()

    def count(self, size: int) -> None:
        """Take note of *size* bytes that came."""
        self._received += size

    def _look(self) -> None:
        patience = self._patience
        tick = min(0.25, patience.window / _TICKS)
        samples = collections.deque([(time.monotonic(), 0)])
        while not self._over.wait(tick):
            now = time.monotonic()
            while len(samples) > 1 and samples[1][0] <= now - patience.window:
                samples.popleft()
            (then, before), received = samples[0], self._received
            samples.append((now, received))
            if patience.is_stopping():
                self.is_stopped = True
                self.verdict = "stopped"
            elif now - then >= patience.window and received - before < patience.floor * patience.window:
                self.verdict = f"too slow: under {patience.floor:g} bytes a second over {patience.window:g} s"
            if self.verdict is not None:
                self._shut()
                return

    def _shut(self) -> None:
        for line in tuple(self._lines):
            with contextlib.suppress(OSError):  # it is not connected any more
                line.shutdown(socket.SHUT_RDWR)


class _Guard:
    """Looks where connections lead. :ivar allowed: how far inside they may; None for the first, which decides it."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self.allowed: Reach | None = None
        self.met = Reach.PUBLIC  # how far inside the last connection led
        self.is_refused = False

    def look(self, line: socket.socket, *, proxied: bool) -> None:
        """Take a connection, or close it.

        :raises OSError: if it leads too far inside.
        """
        if not proxied:
            self.met = Reach.of(line.getpeername()[0])
            if self.allowed is not None and self.met > self.allowed:
                self.is_refused = True
                line.close()
                raise OSError
        self._watch.hold(line)


class _Adapter(HTTPAdapter):
    """requests' transport, with the guard at each new connection."""

    def __init__(self, guard: _Guard) -> None:
        self._pools = _pools(guard)
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _pools(guard: _Guard) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            line = super()._new_conn()
            guard.look(line, proxied=self.proxy is not None)
            return line

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            line = super()._new_conn()
            guard.look(line, proxied=self.proxy is not None)
            return line

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class Answer:
    """What a server answered; the body is still to come.

    :ivar url: who answered, after redirects. :ivar headers: names in any case.
    """

    def __init__(self, url: str, response: requests.Response, watch: Watch) -> None:
        self.url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._watch = watch

    @property
    def length(self) -> int | None:
        """The bytes of the body that the server promises, if it does."""
        text = self.headers.get("Content-Length", "").strip()
        return int(text) if text.isascii() and text.isdigit() else None

    def read(self, size: int) -> bytes:
        """Return some bytes of the body, *size* at most; none at its end. Nothing is decoded.

        :raises MirrorError: if the connection breaks, stalls, or is too slow.
        """
        try:
            data: bytes = self._response.raw.read1(size, decode_content=False) or b""
        except NETWORK_ERRORS as error:
            raise self._broken(said_of(error)) from None
        self._watch.count(len(data))
        if not data and self._watch.verdict is not None:  # to us, a socket that was shut is at its end
            raise self._broken("")
        return data

    def _broken(self, reason: str) -> MirrorError:
        verdict = self._watch.verdict
        return MirrorError(self.url, verdict or reason, is_passing=verdict is None or self._watch.is_stopped)


@contextlib.contextmanager
def ask(url: str, patience: Patience, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask for *url*, following redirects, and yield the answer, whatever its status.

    :param headers: to be sent in addition.
    :raises MirrorError: if there is none. :raises UsageError: if *url* is none to be asked.
    """
    require_url(url)
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch(patience))
        guard = _Guard(watch)
        session = stack.enter_context(requests.Session())
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter(guard))
        address, allowed = url, None
        for _ in range(_REDIRECTS + 1):
            guard.met, guard.allowed = reach_of_name(address), allowed
            response = _send(session, address, patience, {**_HEADERS, **(headers or {})}, guard=guard, watch=watch)
            stack.callback(response.close)
            if response.status_code not in _MOVED:
                yield Answer(address, response, watch)
                return
            allowed = guard.met if allowed is None else allowed
            address = _next(url, address, response.headers.get("Location"), allowed)
        raise MirrorError(url, f"it redirects more than {_REDIRECTS} times")


def _send(
    session: requests.Session, url: str, patience: Patience, headers: Mapping[str, str], *, guard: _Guard, watch: Watch
) -> requests.Response:
    try:
        request = session.prepare_request(requests.Request("GET", url, headers=dict(headers)))
        assert request.url is not None  # noqa: S101 (it was prepared)
        settings: dict[str, Any] = dict(session.merge_environment_settings(request.url, {}, True, None, None))  # noqa: FBT003
        if settings["verify"] is True:  # requests knows variables of its own only
            settings["verify"] = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or True
        adapter = session.get_adapter(request.url)
        return adapter.send(request, **settings, timeout=(patience.connect, patience.read))
    except NETWORK_ERRORS as error:
        if guard.is_refused:
            raise _inside(url) from None
        verdict = watch.verdict
        passing = watch.is_stopped or (verdict is None and may_pass(error))
        reason = verdict or said_of(error)
        let_go(error)
        raise MirrorError(url, reason, is_passing=passing) from None


def _next(first: str, address: str, location: str | None, allowed: Reach) -> str:
    """Return where a redirect leads.

    :raises MirrorError: if that is no place to go.
    """
    if not location:
        raise MirrorError(first, "it redirects without saying where to")
    with contextlib.suppress(UnicodeError):  # http.client takes all for Latin-1
        location = location.encode("latin-1").decode()
    try:
        target = require_url(urllib.parse.urljoin(address, location))
    except (UsageError, ValueError) as error:
        why = error.details if isinstance(error, UsageError) else "it cannot be read"
        raise MirrorError(first, f"it redirects to an address that is not asked: {why}") from None
    if reach_of_name(target) > allowed:
        raise _inside(target)
    return target


def _inside(url: str) -> MirrorError:
    return MirrorError(url, "a mirror further outside redirects to this host or this network: write it into the "
                       "definition if that is right")  # fmt: skip
