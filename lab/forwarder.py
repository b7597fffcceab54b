"""The process that keeps the forwarded ports of one machine open, as long as its QEMU runs.

``python -m lab.forwarder NAME STATE``: for each forward in the machine's definition there is an ssh with ``-L``. It is
started again when it ends, so a machine may come up late or reboot; what is added to the definition or taken out of it
is noticed within a second. STATE is a file that says how each forward stands. When the machine's QEMU has ended, so do
all of these. An ssh runs ``cat`` in the machine, on a pipe from here: whatever ends this process ends them too.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import IO

from contracts.machine import PortForward, PortProtocol
from lab import ssh
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline import commit
from pipeline.errors import PvmlabError
from pipeline.run import PIPE, Popen, spawn

_LOOK = 0.5  # seconds between two looks at the definition, the machine and the ssh processes
_AGAIN = 3.0  # seconds from an ssh's end to its next try
_LAST_WORDS = 4096  # bytes
_LOOPBACK = "127.0.0.1"
_READY = "pvmlab-forward-ready"


class _Forward:
    """One forwarded port and its ssh."""

    def __init__(self, lab: Lab, name: str, forward: PortForward) -> None:
        self._argv = forward_arguments(ssh.config_path(lab), name, forward)
        self._process: Popen[bytes] | None = None
        self._next = 0.0
        self._said = b""  # the end of what its ssh said on standard error
        self.state = "waits"

    def look(self) -> None:
        """Start its ssh if there is none, and find out how it stands."""
        if self._process is not None:  # also while it runs: one whose pipe is full would stop
            self._said = (self._said + _read(self._process.stderr))[-_LAST_WORDS:]
        if self._process is not None and self._process.poll() is not None:
            said = (self._said + _read(self._process.stderr)).decode(errors="replace").strip()
            self.state = f"waits: {said.splitlines()[-1]}" if said else "waits"
            self._close()
            self._next = time.monotonic() + _AGAIN
        if self._process is None and time.monotonic() >= self._next:
            self._said = b""
            self._process = spawn(self._argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        if self._process is not None and _read(self._process.stdout):
            self.state = "open"

    def end(self) -> None:
        """End its ssh."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._close()

    def _close(self) -> None:
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._process = None


def _read(pipe: IO[bytes] | None) -> bytes:
    """Return what is there: its other end may be open in an ssh that outlives the one we started."""
    if pipe is None or not select.select([pipe], [], [], 0)[0]:
        return b""
    return os.read(pipe.fileno(), 65536)


def forward_arguments(config: Path, name: str, forward: PortForward) -> list[str]:
    """Return the words of the ssh that forwards one port. It says a word when the port is open."""
    place = f"{_LOOPBACK}:{forward.host}:{_LOOPBACK}:{forward.guest}"
    options = [
        "-T", "-L", place,
        "-o", "ExitOnForwardFailure=yes",
        "-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=3",
    ]  # fmt: skip
    return ssh.ssh_arguments(config, name, f"echo {_READY}; exec cat", options=options)


def serve(lab: Lab, name: str, state: Path) -> None:
    """Keep the forwards of the machine *name* open until its QEMU ends, or it has none any more."""
    machine, store = lab.machine(name), DefinitionStore(lab)
    open_now: dict[PortForward, _Forward] = {}
    told: dict[str, str] = {}
    try:
        while machine.process() is not None:
            with contextlib.suppress(PvmlabError):  # a broken definition: as before
                wanted = [each for each in store.load(name).forwards if each.protocol is PortProtocol.TCP]
                for gone in set(open_now) - set(wanted):
                    open_now.pop(gone).end()
                for new in wanted:
                    if new not in open_now:
                        open_now[new] = _Forward(lab, name, new)
            if not open_now:
                return
            for forward in open_now.values():
                forward.look()
            now = {str(key.host): forward.state for key, forward in open_now.items()}
            if now != told:
                with contextlib.suppress(OSError):  # a full disk closes no port
                    commit.publish_text(state, json.dumps(now) + "\n", mode=0o600)
                    told = now
            time.sleep(_LOOK)
    finally:
        for forward in open_now.values():
            forward.end()
        state.unlink(missing_ok=True)


def main(arguments: list[str]) -> None:
    """Serve until the machine ends, or SIGTERM."""
    name, state = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    serve(Lab.from_environment(), name, Path(state))


if __name__ == "__main__":
    main(sys.argv[1:])
