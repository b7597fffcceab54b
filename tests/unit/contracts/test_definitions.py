"""Names, addresses, definitions: what is accepted, and each refusal."""

import dataclasses
import ipaddress
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import document
from contracts.arch import Arch
from contracts.document import DocumentError
from contracts.install import InstallerConfig, PayloadSource
from contracts.lan import LARGEST_POOL, Lan
from contracts.machine import (
    DiskBus,
    ExtraDisk,
    Label,
    NicModel,
    PortForward,
    PortProtocol,
    SshHostKey,
    VmDefinition,
)
from contracts.names import normalize_mac, validate_machine_name
from contracts.nocloud import DOCUMENTS
from contracts.report import Outcome, Phase, Report

HOST_KEY = SshHostKey(private="-----BEGIN OPENSSH PRIVATE KEY-----\nx\n", public="ssh-ed25519 AAAA host")
MACHINE = VmDefinition(
    name="web1", arch=Arch.X86_64, distro="debian-12", mac="52:54:00:00:00:01", ip="192.168.100.2",
    uuid="6f1c1b7e-0b6a-4f0e-9a53-0f6f3a3b1d2c", ssh_host_key=HOST_KEY,
    ssh_authorized_keys=("ssh-ed25519 AAAA me@here",),
)  # fmt: skip


@pytest.mark.parametrize("name", ["a", "web1", "a-b", "0", "x" * 63])
def test_machine_names(name: str) -> None:
    assert validate_machine_name(name) == name


@given(st.text(max_size=80))
def test_only_dns_labels_are_machine_names(name: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    good = 1 <= len(name) <= 63 and set(name) <= allowed and name[0] != "-" and name[-1] != "-"
    try:
        validate_machine_name(name)
    except ValueError:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a/b", "..", "a\n", "x" * 64, "ä", "--help"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a machine name"):
        validate_machine_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:aa:bb:cc",  # iPXE's ${net0/mac}
        "52-54-00-aa-bb-cc",  # iPXE's ${net0/mac:hexhyp}
        "525400aabbcc",  # iPXE's ${net0/mac:hexraw}
        "52:54:00:AA:bb:CC",
        "52-54-00-AA-BB-CC",  # Windows
        "525400AABBCC",
        "5254.00aa.bbcc",  # Cisco
        "5254-00AA-BBCC",  # Huawei
        "525400-aabbcc",  # HP
        "52.54.00.aa.bb.cc",
        "01-52-54-00-aa-bb-cc",  # PXELINUX
        " 52:54:00:aa:bb:cc ",
    ],
)
def test_macs_in_any_spelling(text: str) -> None:
    assert normalize_mac(text) == "52:54:00:aa:bb:cc"


@pytest.mark.parametrize(
    "text",
    [
        "", "52:54:00:aa:bb", "52:54:00:aa:bb:cg", "52:54:00:aa:bb:cc:dd", "01:00:5e:00:00:01", "00:00:00:00:00:00",
        "5:254:00:aa:bb:cc", "52:54-00:aa:bb:cc", "5254.00aa:bbcc", "52:54:00:aa:bb:cc\n52:54:00:aa:bb:cc",
        "52::54:00:aa:bb:cc", "52 54 00 aa bb cc", "06-52-54-00-aa-bb-cc", "0152540aabbcc0", "\u06652:54:00:aa:bb:cc",
    ],
)  # fmt: skip
def test_other_macs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MAC address"):
        normalize_mac(text)


@pytest.mark.parametrize("prefix", range(8, 29))
def test_reservations_and_pool_never_meet_and_stay_inside(prefix: int) -> None:
    lan = Lan(subnet=f"10.0.0.0/{prefix}")
    first, last = lan.pool
    assert lan.provisioner == ipaddress.IPv4Address("10.0.0.1")
    assert first <= last
    assert last in lan.network
    assert last != lan.network.broadcast_address
    assert lan.is_reservable(ipaddress.IPv4Address("10.0.0.2"))
    assert not lan.is_reservable(lan.provisioner)
    assert not lan.is_reservable(lan.network.network_address)
    assert not lan.is_reservable(first)
    assert lan.is_reservable(lan.last_reservable)
    assert not lan.is_reservable(lan.last_reservable + 1)
    assert int(last) - int(first) < LARGEST_POOL
    assert lan.most_leases >= int(lan.last_reservable) - int(lan.provisioner) + int(last) - int(first) + 1
    assert not lan.is_reservable(ipaddress.IPv4Address("11.0.0.2"))


@pytest.mark.parametrize("subnet", ["192.168.100.1/24", "192.168.100.0/29", "x", "::/64"])
def test_bad_subnets_are_refused(subnet: str) -> None:
    with pytest.raises(ValueError, match=r"192|subnet|Address|Expected|Only|octet|4"):
        Lan(subnet=subnet)


def test_a_definition_survives_the_way_there_and_back() -> None:
    assert document.loads(VmDefinition, document.dumps(MACHINE)) == MACHINE


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"schema": 2}, "schema 2 is unknown"),
        ({"name": "../x"}, "is not a machine name"),
        ({"mac": "52:54:00:00:00:0A"}, "must be written as 52:54:00:00:00:0a"),
        ({"ip": "192.168.100.02"}, "192.168.100.02"),
        ({"uuid": "6F1C1B7E-0B6A-4F0E-9A53-0F6F3A3B1D2C"}, "not in its canonical form"),
        ({"distro": "debian 12"}, "is not a distribution name"),
        ({"user": "root user"}, "is not a Unix account name"),
        ({"cpus": 0}, "cpus is 0, allowed are 1 to 255"),
        ({"memory_mib": 1}, "memory_mib is 1, allowed are 512"),
        ({"disk_gib": 1}, "disk_gib is 1, allowed are 2"),
        ({"source": "image", "installer": "preseed"}, "a machine from an image is not installed"),
        ({"image": "/srv/x.qcow2"}, "image is of machines with source image"),
        ({"source": "image", "image": "x.qcow2"}, "image 'x.qcow2' is not an absolute path"),
        ({"secure_boot": True, "firmware": "bios"}, "secure_boot is of UEFI machines"),
        ({"nic_model": "rtl8139"}, "'rtl8139' is none of virtio, e1000e"),
        ({"more_disks": [{"size_gib": 1}] * 16}, "more_disks holds 16 disks, at most 15"),
        ({"more_disks": [{"size_gib": 0}]}, "size_gib is 0, allowed are 1 to 65536"),
        ({"more_disks": [{"size_gib": 1, "bus": "sata"}] * 7}, "7 disks are on SATA, at most 6"),
        ({"labels": [{"key": "A", "value": ""}]}, "label key 'A' is not 1 to 63 of"),
        ({"labels": [{"key": "a", "value": "x" * 64}]}, "label a: its value is not at most 63 printable"),
        ({"labels": [{"key": "a", "value": "é"}]}, "label a: its value is not at most 63 printable"),
        ({"labels": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}, "two labels have the key a"),
        ({"labels": [{"key": f"k{n}", "value": ""} for n in range(65)]}, "there are 65 labels, at most 64"),
        ({"qemu_arguments": [""]}, "qemu_arguments: '' is empty"),
        ({"qemu_arguments": ["-device\n"]}, "too long or not printable"),
        ({"qemu_arguments": ["x" * 4097]}, "is empty, too long"),
        ({"forwards": [{"host": 0, "guest": 80}]}, "host is 0, allowed are 1 to 65535"),
        ({"forwards": [{"host": 80, "guest": 65536}]}, "guest is 65536, allowed are 1 to 65535"),
        (
            {"forwards": [{"host": 80, "guest": 80}, {"host": 80, "guest": 81}]},
            "two forwards have the host's port 80/tcp",
        ),
        ({"ssh_authorized_keys": ()}, "at least one one-line SSH public key"),
        ({"ssh_authorized_keys": ("ssh-ed25519 AAAA\nssh-rsa BBBB",)}, "at least one one-line SSH public key"),
    ],
)
def test_a_wrong_definition_says_what_is_wrong(change: dict[str, object], complaint: str) -> None:
    data = json.loads(document.dumps(MACHINE)) | document.encode(change)
    with pytest.raises(DocumentError, match="not a valid VmDefinition") as caught:
        document.decode(VmDefinition, data)
    assert complaint in str(caught.value)


def test_a_definition_of_an_older_version_has_the_usual_hardware() -> None:
    data = json.loads(document.dumps(MACHINE))
    for key in ("source", "image", "nic_model", "more_disks", "labels", "secure_boot", "tpm", "qemu_arguments",
                "forwards"):  # fmt: skip
        del data[key]
    assert document.decode(VmDefinition, data) == MACHINE


def test_a_definition_may_have_all_there_is() -> None:
    rich = dataclasses.replace(
        MACHINE,
        disk_bus=DiskBus.SATA,
        nic_model=NicModel.E1000E,
        more_disks=tuple(ExtraDisk(size_gib=1, bus=bus) for bus in [*[DiskBus.SATA] * 5, *[DiskBus.NVME] * 10]),
        labels=(Label(key="team.example/role-1", value="web, db"), Label(key="0", value="")),
        secure_boot=True,
        tpm=True,
        qemu_arguments=("-device", "edu,x=1"),
        forwards=(
            PortForward(host=8080, guest=80),
            PortForward(host=8080, guest=53, protocol=PortProtocol.UDP),
        ),
    )
    assert document.loads(VmDefinition, document.dumps(rich)) == rich
    assert rich.disk_bus.device == "/dev/sda"


@pytest.mark.parametrize("key", ["", "-a", "a-", "a" * 64, "a b", "a=b", ".a", "a/", "a\n"])
def test_other_label_keys_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="label key"):
        Label(key=key, value="")


def test_a_host_key_must_be_one() -> None:
    with pytest.raises(ValueError, match="private is not an OpenSSH private key"):
        dataclasses.replace(HOST_KEY, private="x")
    with pytest.raises(ValueError, match="public is not a one-line SSH public key"):
        dataclasses.replace(HOST_KEY, public="a b\nc d")


@pytest.mark.parametrize(
    ("url", "sha256", "size", "complaint"),
    [
        ("https://x/y", "0" * 64, 1, "is not an http URL"),
        ("file:///etc/passwd", "0" * 64, 1, "is not an http URL"),
        ("http://x/y", "0" * 63, 1, "is not a SHA-256 digest"),
        ("http://x/y", "0" * 64, 0, "size is 0"),
    ],
)
def test_a_doubtful_source_is_refused(url: str, sha256: str, size: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PayloadSource(url=url, sha256=sha256, size=size)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"disk": "/dev/sda; rm"}, "is not one the lab attaches"),
        ({"seed_url": "http://x/cloud-init/web1"}, "must end in a slash"),
        ({"schema": 2}, "schema 2 is unknown"),
        ({"initrd_tree": ""}, "is not a SHA-256 digest"),
        ({"modules_tree": "A" * 64}, "is not a SHA-256 digest"),
    ],
)
def test_a_doubtful_installer_configuration_is_refused(change: dict[str, object], complaint: str) -> None:
    good: dict[str, object] = {
        "name": "web1", "mac": MACHINE.mac, "arch": Arch.X86_64, "distro": "debian-12",
        "domain": "d", "disk": "/dev/vda",
        "rootfs": PayloadSource(url="http://x/y", sha256="0" * 64, size=1),
        "kernel": None, "initrd_tree": "1" * 64, "modules_tree": "2" * 64,
        "seed_url": "http://x/", "report_url": "http://x/r", "kernel_args": (),
    }  # fmt: skip
    InstallerConfig(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=complaint):
        InstallerConfig(**{**good, **change})  # type: ignore[arg-type]


def test_reports_are_bounded() -> None:
    with pytest.raises(ValueError, match="percent is 101"):
        Report(phase=Phase.DISK, outcome=Outcome.RUNNING, percent=101, message="")
    with pytest.raises(ValueError, match="lines holds 41 entries"):
        Report(phase=Phase.DISK, outcome=Outcome.FAILED, percent=1, message="", lines=("x",) * 41)
    assert [phase.number for phase in Phase] == [1, 2, 3, 4, 5, 6, 7]


def test_user_data_has_keys_but_no_password() -> None:
    text = DOCUMENTS["user-data"](MACHINE, Lan())
    assert text.startswith("#cloud-config\n{")
    data = json.loads(text.partition("\n")[2])
    (user,) = data["users"]
    assert user["ssh_authorized_keys"] == ["ssh-ed25519 AAAA me@here"]
    assert user["lock_passwd"] is True
    assert data["locale"] == "false"  # else cloud-init ends with an error: our systems have no update-locale
    assert data["ssh_keys"]["ed25519_private"] == HOST_KEY.private
    assert not {"password", "passwd", "chpasswd", "plain_text_passwd", "hashed_passwd"} & {*data, *user}


def test_the_other_documents() -> None:
    assert json.loads(DOCUMENTS["meta-data"](MACHINE, Lan())) == {
        "instance-id": f"iid-{MACHINE.uuid}",
        "local-hostname": "web1",
    }
    network = json.loads(DOCUMENTS["network-config"](MACHINE, Lan()))
    assert network["ethernets"]["lan0"]["match"] == {"macaddress": MACHINE.mac}
    assert DOCUMENTS["vendor-data"](MACHINE, Lan()) == "#cloud-config\n{}\n"


def test_every_field_of_a_definition_is_in_the_reference() -> None:
    page = Path(__file__).resolve().parents[3] / "docs/reference/machine-definition.md"
    described = {word for line in page.read_text().splitlines() if line.startswith("| `") for word in
                 re.findall(r"`(\w+)`", line.split("|")[1])}  # fmt: skip
    assert described == {field.name for field in dataclasses.fields(VmDefinition)}
