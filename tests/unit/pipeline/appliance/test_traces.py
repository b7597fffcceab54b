"""What a machine must not inherit from the image it was installed from."""

from __future__ import annotations

import pytest

from pipeline.appliance.traces import without_traces
from pipeline.media.member import Member, MemberKind


def member(path: str, kind: MemberKind = MemberKind.FILE) -> Member:
    content = (b"x",) if kind is MemberKind.FILE else ()
    return Member(path=path, kind=kind, mode=0o644, size=len(content), content=content)


@pytest.mark.parametrize(
    "path",
    ["etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_ed25519_key.pub", "var/lib/dbus/machine-id",
     "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/cloud/instances/i-1",
     "var/lib/cloud/instances/i-1/user-data.txt", "var/lib/cloud/instance", "var/lib/cloud/sem/config_scripts",
     "var/lib/cloud/data/instance-id", "var/lib/dhcp/dhclient.eth0.leases", "var/lib/NetworkManager/secret_key",
     "root/.ssh/authorized_keys", "root/.bash_history"],
)  # fmt: skip
def test_it_is_left_out(path: str) -> None:
    assert list(without_traces([member(path)])) == []


@pytest.mark.parametrize(
    "path",
    ["etc/ssh/sshd_config", "var/lib/cloud", "var/lib/cloud/instances", "var/lib/cloud/seed/nocloud/user-data",
     "etc/cloud/cloud.cfg", "etc/machine-id.d/x", "usr/lib/systemd/random-seed", "var/lib/dhcp", "root/.ssh"],
)  # fmt: skip
def test_it_stays(path: str) -> None:
    one = member(path)
    assert list(without_traces([one])) == [one]


def test_the_machine_id_is_emptied() -> None:
    (left,) = without_traces([member("etc/machine-id")])
    assert (left.path, left.size, list(left.content), left.mode) == ("etc/machine-id", 0, [], 0o644)


def test_a_machine_id_that_is_a_link_stays_one() -> None:
    link = member("etc/machine-id", MemberKind.SYMLINK)
    assert list(without_traces([link])) == [link]
