"""A boot handler that is killed in a storm of machines, and what the next one knows."""

from __future__ import annotations

import http.client
import itertools
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from contracts import document
from contracts.lan import Lan
from contracts.machine import VmDefinition
from contracts.report import InstallState, MachineStatus
from pipeline.run import Popen, spawn
from pipeline.workspace import REPOSITORY
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.boot_handler.write_behind import JOURNAL
from tests.fakes.lab_files import make_settings, write_artifacts
from tests.fakes.web_client import PATIENCE, Reply, end, find_free_port, request, wait_for
from tests.integration.boot_handler.conftest import SUBNET, machine_of

MACHINES, CLIENTS, KILLS = 100, 8, 3
ANSWERS = 100  # before each kill


class Killed:
    """The boot handler alone, asked as nginx does. :ivar settings: its lab."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.settings = make_settings(folder, Lan(subnet=SUBNET))
        self._address = f"127.0.0.1:{find_free_port()}"
        self._log = log
        self.process: Popen[bytes] | None = None

    def start(self) -> None:
        root, port = self.settings.vms.parent, self._address.partition(":")[2]
        with self._log.open("ab") as sink:
            argv = [sys.executable, "-m", "tests.fakes.handler_process", str(root), port, SUBNET]
            self.process = spawn(argv, cwd=REPOSITORY, stdout=sink, stderr=sink)
        wait_for("the boot handler answers", lambda: request(self._address, "/healthz").status == 200)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=5)

    def ask(self, machine: VmDefinition, path: str) -> Reply:
        return request(self._address, path, headers={"X-Real-IP": machine.ip})


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[Killed]:
    with tempfile.TemporaryDirectory(prefix="pvmlab-bh-") as folder:
        made = Killed(Path(folder), tmp_path / "log")
        write_artifacts(made.settings)
        yield made
        if made.process is not None:
            end(made.process)


def test_whoever_was_answered_is_known_after_a_kill(killed: Killed) -> None:
    machines = [machine_of(number) for number in range(MACHINES)]
    for machine in machines:
        (killed.settings.vms / f"{machine.name}.json").write_text(document.dumps(machine))
    tokens: dict[str, str] = {}
    left = 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(KILLS):
            killed.start()
            answered = threading.Semaphore(0)
            clients = [pool.submit(boot_all, killed, machines[n::CLIENTS], tokens, answered) for n in range(CLIENTS)]
            for _ in range(ANSWERS):
                assert answered.acquire(timeout=PATIENCE)
            killed.kill()
            for client in clients:
                client.result()
            left += any(killed.settings.status.glob(f"{JOURNAL}*"))
    assert left > 0  # it was killed while something waited
    killed.start()
    assert not any(killed.settings.status.glob(f"{JOURNAL}*"))
    known = [machine for machine in machines if machine.name in tokens]
    assert len(known) > ANSWERS / 2
    for machine in known:
        assert state(killed.settings, machine) is InstallState.BOOTING
        assert killed.ask(machine, f"/m/{tokens[machine.name]}/config").status == 200


def boot_all(
    killed: Killed, machines: list[VmDefinition], tokens: dict[str, str], answered: threading.Semaphore
) -> None:
    """Ask for the scripts of *machines* again and again, until nobody answers; note the last token of each."""
    for machine in itertools.cycle(machines):
        try:
            script = killed.ask(machine, f"/ipxe?mac={machine.mac}").text
        except (OSError, http.client.HTTPException):
            tokens.pop(machine.name, None)  # there may be a newer one, which nobody has seen
            return
        (tokens[machine.name],) = set(re.findall(r"/m/([0-9a-f]{32})/", script))
        answered.release()


def state(settings: Settings, machine: VmDefinition) -> InstallState:
    return document.loads(MachineStatus, (settings.status / f"{machine.name}.json").read_bytes()).state
