"""Host mode on hosts with other accounts than Debian's: their /etc/passwd and /etc/group are seen in the namespaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.names import PROVISIONER_NAME
from lab import provisioner, ssh
from lab.lab import Lab
from lab.machine import MachineState
from lab.provisioner import ProvisionerError, ProvisionerState
from lab.wait import Deadline
from pipeline.run import find_program
from tests.fakes.web_client import wait_for
from tests.integration.host_mode.conftest import NO_ACCELERATOR, start_services

# Users with their numbers and groups, groups with theirs.
FEDORA = ({"root": (0, 0), "nobody": (65534, 65534), "dnsmasq": (986, 985), "nginx": (984, 983)},
          {"root": 0, "nobody": 65534, "dnsmasq": 985, "nginx": 983})  # fmt: skip
ARCH = ({"root": (0, 0), "nobody": (65534, 65534), "dnsmasq": (979, 979), "http": (33, 33)},
        {"root": 0, "nobody": 65534, "dnsmasq": 979, "http": 33})  # fmt: skip
BARE = ({"root": (0, 0), "nobody": (65534, 65534)}, {"root": 0, "nogroup": 65534})
EMPTY = ({"root": (0, 0)}, {"root": 0})
Accounts = tuple[dict[str, tuple[int, int]], dict[str, int]]

_UNSHARE = """\
#!/bin/sh
while [ "$1" != -- ]; do words="$words $1"; shift; done
shift
exec {unshare} $words -- sh -ec \
'for file in passwd group nsswitch.conf; do mount --bind {folder}/$file /etc/$file; done; exec "$@"' sh "$@"
"""


def become_host_with(accounts: Accounts, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the namespaces of host mode see *accounts*."""
    users = [f"{name}:x:{user}:{own}::/:/bin/sh\n" for name, (user, own) in accounts[0].items()]
    (folder / "passwd").write_text("".join(users))
    (folder / "group").write_text("".join(f"{name}:x:{number}:\n" for name, number in accounts[1].items()))
    (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\n")  # nss-systemd makes a nogroup up
    program = folder / "unshare"
    program.write_text(_UNSHARE.format(unshare=find_program("unshare"), folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("accounts", "dnsmasq", "nginx"),
    [(FEDORA, (986, 985), (984, 983)), (ARCH, (979, 979), (33, 33)), (BARE, (65534, 65534), (65534, 65534))],
    ids=["Fedora", "Arch", "nobody and nogroup"],
)
def test_services_give_up_root_to_the_accounts_of_the_host(
    host_lab: Lab,
    accounts: Accounts,
    dnsmasq: tuple[int, int],
    nginx: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    become_host_with(accounts, tmp_path, monkeypatch)
    start_services(host_lab)
    words = ["ps", "-e", "-o", "uid=,gid=,comm="]
    said = {
        tuple(line.split()) for line in ssh.run_on(host_lab, PROVISIONER_NAME, words, timeout=20).stdout.splitlines()
    }
    assert (*map(str, dnsmasq), "dnsmasq") in said
    assert {entry for entry in said if entry[2] == "nginx"} == {("0", "0", "nginx"), (*map(str, nginx), "nginx")}


def test_a_host_without_any_such_account_is_told(
    host_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    become_host_with(EMPTY, tmp_path, monkeypatch)
    provisioner.start(host_lab, NO_ACCELERATOR)
    with pytest.raises(ProvisionerError) as caught:
        provisioner.wait_until(host_lab, ProvisionerState.READY, deadline=Deadline(20))
    assert "no account for dnsmasq, none of dnsmasq, nobody" in caught.value.details
    assert "useradd --system --no-create-home dnsmasq" in caught.value.details
    wait_for("it has ended", lambda: host_lab.provisioner.state() is MachineState.CRASHED)
