"""A Docker engine of a test's own: its own network and ``/mnt/host``, nothing of the host's images."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pipeline.run import Completed, find_program, run, spawn
from tests.fakes.web_client import end, wait_for

_SETTINGS = {"iptables": False, "ip6tables": False, "bridge": "none"}
_START = """
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/host
mount --bind "$1" /mnt/host
shift
exec dockerd "$@"
"""


@dataclasses.dataclass(frozen=True)
class Engine:
    """A running engine.

    :ivar socket: where it listens. :ivar host: what it takes for ``/mnt/host``. :ivar pid: its process.
    """

    socket: Path
    host: Path
    pid: int

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def docker(self, arguments: Sequence[str | Path], *, check: bool = True, timeout: float = 120) -> Completed:
        return run(["docker", "--host", self.url, *arguments], timeout=timeout, check=check)


@contextlib.contextmanager
def running_engine(folder: Path, *, namespace: str | None = None) -> Iterator[Engine]:
    """Run an engine whose files are in *folder*.

    :param namespace: the network namespace it runs in; to its containers that is the host's network.
    """
    if os.geteuid() != 0:
        pytest.skip("dockerd needs root")
    for program in ("dockerd", "docker", "nsenter"):
        if find_program(program) is None:
            pytest.skip(f"{program} is not installed: ./pvmlab test installs it")
    host, socket, settings = folder / "host", folder / "docker.sock", folder / "daemon.json"
    host.mkdir()
    settings.write_text(json.dumps(_SETTINGS))
    arguments = [f"--config-file={settings}", f"--host=unix://{socket}", f"--data-root={folder}/data",
                 f"--exec-root={folder}/run", f"--pidfile={folder}/pid"]  # fmt: skip
    # Not by ip-netns(8), which would hide the control groups: it mounts another /sys.
    prefix = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    with (folder / "log").open("wb") as log:
        argv = [*prefix, "unshare", "--mount", "sh", "-euc", _START, "sh", str(host), *arguments]
        process = spawn(argv, stdout=log, stderr=log)
    engine = Engine(socket, host, process.pid)
    try:
        wait_for("the Docker engine answers", lambda: process.poll() is None and _answers(engine))
        yield engine
    finally:
        end(process, patience=60)


def _answers(engine: Engine) -> bool:
    return engine.socket.exists() and engine.docker(["version"], check=False).returncode == 0
