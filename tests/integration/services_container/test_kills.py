"""Services of the running container that are killed at random, and one that is killed until all is given up."""

from __future__ import annotations

import contextlib
import functools
import random
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest

from pipeline.errors import CommandError
from pxeboot_stack import container, supervisor
from tests.fakes import wire
from tests.fakes.namespaces import CLIENT
from tests.integration.services_container.conftest import MACHINE, Host

pytestmark = [pytest.mark.artifacts, pytest.mark.nightly]

ROUNDS = 40
WINDOW = supervisor.FLAPPING_WINDOW + 10  # seconds: the supervisor learns of a death a moment after we ordered it


@pytest.fixture
def running(host: Host) -> Iterator[Host]:
    """The container, kept when it ends."""
    host.remove()
    host.run([word for word in container.docker_run_arguments() if word != "--rm"])
    host.wait("the services answer", host.answers)
    yield host
    host.remove()


def test_whatever_is_killed_a_machine_boots_soon_after(running: Host) -> None:
    chance, deaths = random.Random(7), defaultdict[str, list[float]](list)
    for _ in range(ROUNDS):
        now = time.monotonic()
        recent = {name: [at for at in times if now - at < WINDOW] for name, times in deaths.items()}
        services = {name: entry for name, entry in running.services().items() if entry["pid"] is not None}
        spared = [name for name in services if len(recent.get(name, [])) < supervisor.FLAPPING_DEATHS - 1]
        if not spared:
            time.sleep(5)
            continue
        name, number = chance.choice(spared), chance.choice(["KILL", "STOP", "TERM", "SEGV"])
        deaths[name].append(now)
        running.execute("sh", "-c", f"kill -{number} {services[name]['pid']}")
        running.wait(f"a boot after {number} for {name}", functools.partial(boots, running), seconds=30)


def boots(host: Host) -> bool:
    lease = host.client.call(wire.dhcp, CLIENT, MACHINE.mac, arch=7)
    if lease is None or lease.address != MACHINE.ip:
        return False
    script = host.client.ask(f"/ipxe?mac={MACHINE.mac}", source=MACHINE.ip)
    return bool(script.status == 200 and "web1 installs debian-12" in script.text)


def test_one_that_dies_again_and_again_fails_the_container(running: Host) -> None:
    seen: set[int] = set()
    with contextlib.suppress(CommandError):  # it is over
        while len(seen) < supervisor.FLAPPING_DEATHS:
            pid = running.services()["nginx"]["pid"]
            if pid is not None and pid not in seen:
                seen.add(pid)
                running.execute("sh", "-c", f"kill -KILL {pid}")
            time.sleep(0.1)
    running.wait("the container to fail", lambda: running.inspect(".State.Status") == "exited")
    assert running.inspect(".State.ExitCode") == 1
    assert "pxeboot_stack failed: nginx ended 5 times within 60 s" in running.logs()
