"""Bridge and taps of the real kernel, in a network namespace made for the test."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.bridge import TUN
from pipeline.run import Completed, run
from pipeline.workspace import REPOSITORY

_SELF = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
_OWN_NETWORK = ["unshare", *_SELF, "--net", "--mount", "--"]
# the kernel shows the interfaces of whoever mounted it
_SEE_IT = "mount -t sysfs sysfs /sys && ip link set lo up && "


def in_own_network(script: str, *words: str | Path, timeout: float = 60) -> Completed:
    return run(
        [*_OWN_NETWORK, "sh", "-c", f"{_SEE_IT}{script}", "sh", *words], timeout=timeout, check=False, cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _kernel_with_bridges() -> None:
    """Skip where the kernel, or who runs the tests, has no bridges and taps."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        pytest.skip(f"{TUN} cannot be opened here")
    tried = in_own_network("ip link add br0 type bridge && ip tuntap add dev t0 mode tap")
    if tried.returncode != 0:
        pytest.skip(f"no bridges and taps here: {tried.stderr.strip()}")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may reach."""
    made = Path(tempfile.mkdtemp(prefix="pvmlab-bridge-"))
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize(
    "scenario",
    [
        "taps_are_kept",
        "many_at_once",
        "a_tap_in_use_is_nobody_elses",
        "frames",
        "the_host_stays_out",
        "host_address",
        "after_a_crash",
    ],
)
def test_bridge(scenario: str, folder: Path) -> None:
    done = in_own_network(f'exec "$1" -P -m tests.fakes.bridge_scenarios {scenario} "$2"', sys.executable, folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
@pytest.mark.parametrize("name", ["ordinary_user", "ordinary_users_address", "labs_of_others"])
def test_an_ordinary_user_is_told_what_root_has_to_do(name: str, folder: Path) -> None:
    open_to_all = 'mkdir "$2/dev" && mknod -m 666 "$2/dev/tun" c 10 200 && mount --bind "$2/dev/tun" /dev/net/tun'
    scenario = f'exec "$1" -P -m tests.fakes.bridge_scenarios {name} "$2/lab"'
    (folder / "lab").mkdir()
    folder.chmod(0o755)
    done = in_own_network(f"{open_to_all} && {scenario}", sys.executable, folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.vm
def test_machines_get_their_addresses_over_the_bridge(folder: Path) -> None:
    done = in_own_network(
        'exec "$1" -P -m tests.fakes.bridge_scenarios two_machines "$2"', sys.executable, folder, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr


def verb(script: str, folder: Path, *words: str) -> Completed:
    command = f'{script}PVMLAB_HOME="$2/home" PVMLAB_CACHE="$2/cache" exec "$1" -P -m cli "${{@}}"'
    return in_own_network(command.replace('"${@}"', " ".join(words)), sys.executable, folder)


def test_create_makes_nothing_that_stays_and_remove_goes_back(folder: Path) -> None:
    done = verb("", folder, "net.create", "--kind", "bridge", "--subnet", "10.77.0.0/24", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert '"kind": "bridge"' in done.stdout
    assert '"machines": [\n    "10.77.0.2",\n    "10.77.0.127"\n  ]' in done.stdout
    assert (folder / "home/config/network.json").exists()
    assert verb("", folder, "net.remove").returncode == 0
    assert not (folder / "home/config/network.json").exists()


_NO_BRIDGES = (  # what a kernel without them says through ip
    'mkdir "$2/bin" && printf "#!/bin/sh\\necho Error: Unknown device type. >&2; exit 2\\n" >"$2/bin/ip" && '
    'chmod +x "$2/bin/ip" && export PATH="$2/bin:$PATH" && '
)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("mount -t tmpfs none /dev/net && ", "this host has no /dev/net/tun"),
        (_NO_BRIDGES, "this host refuses a bridge or its taps"),
    ],
)
def test_a_host_without_bridges_is_told(folder: Path, script: str, message: str) -> None:
    done = verb(script, folder, "net.create", "--kind", "bridge")
    assert done.returncode == 5
    assert message in done.stderr
    assert "net.create --kind switch needs none of it" in done.stderr
    assert not (folder / "home/config/network.json").exists()


def test_a_subnet_of_this_host_is_refused_for_an_address_of_its_own(folder: Path) -> None:
    taken = "ip link add name d0 type bridge && ip address add 10.77.0.9/16 dev d0 && ip link set d0 up && "
    words = ["net.create", "--kind", "bridge", "--subnet", "10.77.3.0/24", "--host-address", "10.77.3.5"]
    done = verb(taken, folder, *words)
    assert done.returncode == 4, done.stderr
    assert "10.77.0.0/16 on d0" in done.stderr
    assert not (folder / "home").exists()
