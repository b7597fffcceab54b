"""HTTP as the installer needs it: small documents, small posts, one large body. Bounded in time and in size."""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from installer.errors import InstallError

_ATTEMPT_TIMEOUT = 10.0  # seconds without a byte
RESTART_WITHIN = 180.0  # seconds in which the provisioner is back if it was restarted; emulated, it takes 70
_FIRST_PAUSE = 0.25  # seconds; doubles with every attempt
_LONGEST_PAUSE = 4.0


class HttpError(InstallError):
    """The server answered, and not with what was asked for. :ivar status: its status code."""

    def __init__(self, url: str, *, status: int, sentence: str) -> None:
        self.status = status
        super().__init__(f"{url} answered {status}: {sentence or 'no explanation'}")

    @property
    def is_final(self) -> bool:
        """Whether asking again cannot help."""
        return 400 <= self.status < 500


class UnreachableError(InstallError):
    """The server did not answer within the time there was."""


@contextlib.contextmanager
def open_url(
    url: str, *, method: str = "GET", body: bytes | None = None, offset: int = 0, timeout: float = _ATTEMPT_TIMEOUT
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and yield the answer, its status 200, or 206 if an *offset* was asked for.

    :raises HttpError: for any other status.
    :raises OSError: and http.client.HTTPException, if the connection fails.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    with contextlib.closing(connection):
        connection.request(method, f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}", body, headers)
        with connection.getresponse() as response:  # the connection forgets it when the server closes
            if response.status != (206 if offset else 200):
                sentence = response.read(400).decode(errors="replace").strip().partition("\n")[0]
                raise HttpError(url, status=response.status, sentence=sentence)
            yield response


def fetch(url: str, *, limit: int, within: float) -> bytes:
    """Return the body at *url*, trying again while the server is away or says it is its own fault (5xx).

    :param limit: longest body taken, in bytes. :param within: seconds for all attempts together.
    :raises HttpError: if the server refuses.
    :raises UnreachableError: if it did not answer in time.
    :raises InstallError: if the body is longer than *limit*.
    """
    deadline = time.monotonic() + within
    for pause in pauses():
        remaining = max(0.1, deadline - time.monotonic())
        try:
            with open_url(url, timeout=min(_ATTEMPT_TIMEOUT, remaining)) as response:
                data = response.read(limit + 1)
        except HttpError as error:
            if error.is_final or time.monotonic() + pause > deadline:
                raise
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() + pause > deadline:
                raise UnreachableError(f"no answer from {url} within {within:g} s, last: {describe(error)}") from None
        else:
            if len(data) > limit:
                raise InstallError(f"{url} is longer than the {limit} bytes such a document may have")
            return data
        time.sleep(pause)
    raise AssertionError("unreachable: pauses never end")


def post(url: str, body: bytes, *, timeout: float) -> None:
    """Post *body* once.

    :raises HttpError: if the server does not take it.
    :raises OSError: and http.client.HTTPException, if the connection fails.
    """
    with open_url(url, method="POST", body=body, timeout=timeout) as response:
        response.read(4096)


def pauses() -> Iterator[float]:
    """Yield the seconds to wait after each failed attempt: growing, then constant."""
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)


def describe(error: BaseException) -> str:
    """Return what to tell people of a failed connection."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
