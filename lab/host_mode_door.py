"""The door into the namespaces of host mode: a socket of this host that gives out connections made in there.

Who connects says one line: ``connect HOST PORT``, and gets a connected TCP socket as a descriptor (``SCM_RIGHTS``,
unix(7)): nothing is copied on the way. ``stop`` ends the services. Only the lab's owner can reach the socket.

Run as a program, with the door's path, host and port, it is ssh's ``ProxyCommand`` with ``ProxyUseFdpass``
(ssh_config(5)). It starts once for each ssh, so it needs the standard library only, and little of it.
"""

from __future__ import annotations

import array
import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

STOP = "stop"
CONNECT_LIMIT = 20.0  # seconds for a connection in there
_LONGEST = 512  # bytes of a request or of an answer
_DONE = b"ok"


def ask(door: Path, request: str, *, timeout: float) -> socket.socket | None:
    """Say *request* at the *door*; return the connection that comes with the answer, if one does.

    :param timeout: seconds. :raises OSError: if nobody is there, or it is refused.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(timeout)
        link.connect(str(door))
        link.sendall(f"{request}\n".encode())
        answer, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 1)
        if answer != _DONE:
            raise OSError(answer.decode(errors="replace") or "the door was closed")
        return socket.socket(fileno=descriptors[0]) if descriptors else None


def connect(door: Path, host: str, port: int, *, timeout: float = CONNECT_LIMIT + 5) -> socket.socket:
    """Return a TCP connection to *host* in the private network.

    :raises OSError: if there is none to be had.
    """
    made = ask(door, f"connect {host} {port}", timeout=timeout)
    if made is None:
        raise OSError("the door gave no connection")
    return made


class Door:
    """The inner side: answers whoever connects to *listener*, each in a thread. :param stop: called on ``stop``."""

    def __init__(self, listener: socket.socket, *, stop: Callable[[], None]) -> None:
        self._listener = listener
        self._stop = stop

    def serve(self) -> None:
        """Answer until the listener is closed."""
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError):  # it hung up
            link.settimeout(CONNECT_LIMIT)
            words = _read_line(link).split()
            try:
                match words:
                    case ["stop"]:
                        link.sendall(_DONE)
                        self._stop()
                    case ["connect", host, port] if port.isdecimal():
                        with socket.create_connection((host, int(port)), timeout=CONNECT_LIMIT) as made:
                            made.settimeout(None)  # the descriptor's own state: its new owner's reads shall wait
                            socket.send_fds(link, [_DONE], [made.fileno()])
                    case []:  # somebody only looked whether the door is open
                        pass
                    case _:
                        link.sendall(b"the door does not understand this")
            except (OSError, OverflowError) as error:
                link.sendall(f"no connection to {' '.join(words[1:])}: {error}".encode()[:_LONGEST])


def _read_line(link: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\n") and len(data) < _LONGEST:
        more = link.recv(_LONGEST)
        if not more:
            break
        data += more
    return data.decode(errors="replace")


def main(arguments: list[str]) -> None:
    """Get a connection and hand it to ssh, which listens on our standard output."""
    door, host, port = arguments
    try:
        made = connect(Path(door), host, int(port))
        with made, socket.socket(fileno=1) as ssh:
            # One byte goes with it, as OpenSSH's mm_receive_fd() wants.
            ssh.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
    except OSError as error:
        sys.exit(f"the private network is out of reach: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
