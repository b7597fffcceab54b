"""lab.yaml: what it comes to, and that every fault is told, at once and with its place, while nothing is made."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import DiskBus, FirmwareKind, MachineSource, NicModel, VmDefinition
from distros.strict_yaml import MAX_SIZE
from lab import manifest_machines
from lab.bringup import Milestone
from lab.machine_request import MachineRequest
from lab.manifest import Manifest, ManifestError, load, read
from lab.manifest_schema import schema
from lab.provisioner_record import ProvisionerMode
from pipeline.errors import ExitCode, NotFoundError
from pipeline.workspace import REPOSITORY

GOOD = """\
version: 1
x-small: &small {cpus: 1, memory: 1G, disk-size: 4G}
network: {subnet: 10.7.0.0/24, domain: shop.test}
provisioner: {mode: host}
defaults:
  memory: 1536M
  labels: {lab: shop}
machines:
  db1:
    <<: *small
    ip: 10.7.0.20
    mac: 52-54-00-AA-BB-01
  web:
    replicas: 3
    after: {db1: ssh}
    user-data: {packages: [curl]}
    more-disks: [{size: 2G, bus: sata}, {size: 1G}]
  edge:
    disk: image.raw
    disk-size: 2G
    user-data: |
      #!/bin/sh
      echo hello
    after: {web: cloud-init, db1: started}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a lab.yaml and an image of a gibibyte, which is mostly a hole: a raw disk with a DOS table."""
    head = bytearray(512)
    head[446:462] = bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0])
    head[510:512] = b"\x55\xaa"
    with (tmp_path / "image.raw").open("wb") as stream:
        stream.write(head)
        stream.truncate(1 << 30)
    (tmp_path / "lab.yaml").write_text(GOOD)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def faults_of(text: str, folder: Path) -> list[str]:
    before = sorted(folder.iterdir())
    with pytest.raises(ManifestError) as caught:
        read(text, folder / "lab.yaml", Lan())
    assert caught.value.exit_code is ExitCode.USAGE
    assert sorted(folder.iterdir()) == before
    return caught.value.details.splitlines()[:-1]


def machines(body: str) -> str:
    return f"version: 1\nmachines:\n{body}"


def test_a_whole_file(folder: Path) -> None:
    found = load(folder / "lab.yaml", Lan())
    assert (found.network, found.mode) == ({"subnet": "10.7.0.0/24", "domain": "shop.test"}, ProvisionerMode.HOST)
    assert found.lan(Lan()) == Lan(subnet="10.7.0.0/24", domain="shop.test")
    by_name = {machine.name: machine for machine in found.machines}
    assert list(by_name) == ["db1", "web-1", "web-2", "web-3", "edge"]
    db1, web2, edge = (by_name[name].request for name in ("db1", "web-2", "edge"))
    assert (db1.cpus, db1.memory_mib, db1.disk_gib, db1.ip) == (1, 1024, 4, "10.7.0.20")
    assert (web2.memory_mib, web2.cpus) == (1536, 2)
    assert [(disk.size_gib, disk.bus) for disk in web2.more_disks] == [(2, DiskBus.SATA), (1, DiskBus.NVME)]
    assert web2.user_data == '#cloud-config\n{\n  "packages": [\n    "curl"\n  ]\n}\n'
    assert [(label.key, label.value) for label in web2.labels] == [("lab", "shop")]
    assert (edge.source, edge.image) == (MachineSource.IMAGE, str(folder / "image.raw"))
    assert edge.user_data == "#!/bin/sh\necho hello\n"
    assert [(one.name, one.condition) for one in by_name["edge"].after] == [
        ("web-1", Milestone.CLOUD_INIT), ("web-2", Milestone.CLOUD_INIT), ("web-3", Milestone.CLOUD_INIT),
        ("db1", Milestone.STARTED),
    ]  # fmt: skip


def test_user_data_and_answers_are_files_beside_it(folder: Path) -> None:
    (folder / "data.sh").write_text("#!/bin/sh\n")
    (folder / "answers.j2").write_text("d-i x/y string {{ machine.name }}\n")
    text = machines("  a: {user-data: data.sh}\n  b: {answer-file: answers.j2}\n")
    a, b = read(text, folder / "lab.yaml", Lan()).machines
    assert a.request.user_data == "#!/bin/sh\n"
    assert b.request.answers is not None
    assert b.request.installer.is_native  # as with vm.create, an answer file is for that one


def test_an_image_has_one_name_however_it_is_written(folder: Path) -> None:
    (folder / "latest").symlink_to("image.raw")
    for word in ("image.raw", "../" + folder.name + "/image.raw", "latest", str(folder / "image.raw")):
        (machine,) = read(machines(f"  a: {{disk: {word}}}\n"), folder / "lab.yaml", Lan()).machines
        assert machine.request.image == str(folder / "image.raw")


def test_replicas_are_numbered_even_if_there_is_one() -> None:
    found = read(machines("  web: {replicas: 1}\n"), Path("lab.yaml"), Lan())
    assert [machine.name for machine in found.machines] == ["web-1"]


def test_a_machine_may_be_all_defaults() -> None:
    assert isinstance(read(machines("  web:\n"), Path("lab.yaml"), Lan()), Manifest)


def test_a_missing_file_says_where_one_begins(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"lab\.yaml cannot be read") as caught:
        load(tmp_path / "lab.yaml", Lan())
    assert "docs/tutorial/lab-yaml.md" in caught.value.resolution


FAULTS = [
    ("", "1:1: it is empty"),
    ("a: b\n", "1:1: the key 'version' is missing"),
    ("version: 2\nmachines: {a: }\n", "1:10: version: it must be the version of this format: 1; it is '2'"),
    ("version: 1\nmachines: {}\n", "2:11: machines: it must be the machines, by their names; it is a mapping"),
    ("version: 1\nversion: 1\nmachines: {a: }\n", "2:1: the key 'version' is repeated"),
    ("version: 1\nmachnes: {a: }\nmachines: {a: }\n", "2:1: machnes: there is no such key here; there are: version"),
    (machines("  Web: \n"), "3:3: machines.Web: 'Web' is not a machine name"),
    (machines("  provisioner: \n"), "a machine cannot be called 'provisioner'"),
    (machines(f"  {'a' * 62}: {{replicas: 10}}\n"), f"'{'a' * 62}-10' is not a machine name"),
    (machines("  a: {replicas: 0}\n"), "3:17: machines.a.replicas: it must be how many there are"),
    (machines("  a: {replicas: 251}\n"), "machines.a.replicas: it must be how many there are"),
    (machines("  a: {replicas: 2, ip: 192.168.100.9}\n"), "machines.a.ip: 2 machines cannot have the same address"),
    (machines("  a: {replicas: 70}\n  b: {replicas: 70}\n"), "they have more LAN cards than 192.168.100.0/24 has ad"),
    (machines("  a: {replicas: 2}\n  a-2: \n"), "4:3: machines.a-2: its machine a-2 is one of a, too"),
    (machines("  a: {ip: 192.168.100.9}\n  b: {ip: 192.168.100.9}\n"), "the address 192.168.100.9 is taken by a"),
    (machines("  a: {ip: 192.168.100.1}\n"), "192.168.100.1 cannot be a machine's address"),
    (machines("  a: {ip: 10.0.0.1}\n"), "10.0.0.1 cannot be a machine's address"),
    (machines("  a: {mac: 52:54:00:00:00:01}\n  b: {mac: 52-54-00-00-00-01}\n"), "address 52:54:00:00:00:01 is taken"),
    (machines("  a: {mac: here}\n"), "'here' is not a MAC address"),
    (machines("  a: {ip: [192.168.100.9, 192.168.100.10], nics: 1}\n"), "addresses for 2 cards are given"),
    (machines("  a: {memory: much}\n"), "3:15: machines.a.memory: it must be a size, such as 1G or"),
    (machines("  a: {memory: 100M}\n"), "memory_mib is 100, allowed are 512 to"),
    (machines("  a: {disk-size: 1500M}\n"), "is not a whole number of GiB"),
    (machines("  a: {cpus: two}\n"), "3:13: machines.a.cpus: it must be a number of processors"),
    (machines("  a: {cpus: 1.5}\n"), "machines.a.cpus: it must be a number of processors"),
    (machines("  a: {cpus: 2.0}\n"), "3:13: machines.a.cpus: it must be a number of processors"),
    (machines("  a: {replicas: 2.0}\n"), "3:17: machines.a.replicas: it must be how many there are"),
    (machines("  a: {nics: 1e0}\n"), "3:13: machines.a.nics: it must be a number of LAN cards"),
    (machines(f"  a: {{memory: {'9' * 5000}G}}\n"), "machines.a.memory: it '99999999"),
    (machines("  a: {arch: riscv64}\n"), "machines.a.arch: it must be x86_64 or aarch64; it is 'riscv64'"),
    (machines("  a: {distro: debian-99}\n"), "3:15: machines.a.distro: there is no distribution 'debian-99'"),
    (machines("  a: {distro: 12}\n"), "machines.a.distro: it must be a distribution, such as debian-12; it is '12'"),
    (machines("  a: {firmware: bios}\n"), "pvmlab's own installer makes disks that only UEFI boots"),
    (machines("  a: {secure-boot: yes}\n"), "machines.a.secure-boot: it must be true or false; it is 'yes'"),
    (machines("  a: {installer: native, distro: alpine-3.24}\n"), "no installer of its own"),
    (machines("  a: {installer: native, user-data: {a: 1}}\n"), "user-data of one's own is for machines that pvmlab"),
    (machines("  a: {disk: true}\n"), "3:13: machines.a.disk: the definition of debian-12 names no cloud image"),
    (machines("  a: {disk: nowhere.qcow2}\n"), "cannot be read: No such file"),
    (machines("  a: {disk: ~nobody-of-that-name/x}\n"), "~nobody-of-that-name/x cannot be read: No such file"),
    (machines("  a: {disk: loop}\n"), "loop cannot be read: Too many levels of symbolic links"),
    (machines("  a: {disk: pipe}\n"), "pipe cannot be read: it is no regular file"),
    (machines("  a: {disk: .}\n"), "cannot be read: it is no regular file"),
    (machines("  a: {disk: lab.yaml}\n"), "the disk image lab.yaml is refused"),
    (machines("  a: {disk: image.raw, disk-size: 2G}\n  b: {after: {a: installed}}\n"), "is never installed"),
    (machines("  a: {user-data: nowhere}\n"), "machines.a.user-data: the user-data"),
    (machines("  a: {user-data: ~nobody-of-that-name/x}\n"), "machines.a.user-data: the user-data"),
    (machines(f"  a: {{user-data: {{a: {'x' * 300_000}}}}}\n"), "machines.a.user-data: it is longer than 256 KiB"),
    (machines("  a: {user-data: {a: [{permissions: 0644}]}}\n"), "a.user-data.a[0].permissions: 0644 may be read as"),
    (machines("  a: {user-data: {}}\n"), "machines.a.user-data: it must be for cloud-init"),
    (machines("  a: {answer-file: nowhere}\n"), "machines.a.answer-file: the answer file"),
    (machines("  a: {more-disks: [{bus: nvme}]}\n"), "3:20: machines.a.more-disks[0]: the key 'size' is missing"),
    (machines("  a: {labels: {UPPER: x}}\n"), "label key 'UPPER'"),
    (machines("  a: {after: {b: ssh}}\n"), "3:15: machines.a.after.b: there is no machine 'b'"),
    (machines("  a: {after: {b: soon}}\n  b: \n"), "it must be started, installed, ssh or cloud-init; it is 'soon'"),
    (machines("  a: {after: {a: ssh}}\n"), "machines.a: it waits for itself: a -> a"),
    (machines("  a: {after: {b: ssh}}\n  b: {after: {c: ssh}}\n  c: {after: {a: ssh}}\n"), "a -> b -> c -> a"),
    (machines("  a: {distro: alpine-3.24, installer: pvmlab, colour: red}\n"), "a.colour: there is no such key"),
    ("version: 1\nnetwork: {subnet: 192.168.7.1/24}\nmachines: {a: }\n", "2:10: network: 192.168.7.1/24 has host bits"),
    ("version: 1\nnetwork: {subnet: 8.8.8.0/24}\nmachines: {a: }\n", "is not for private use"),
    ("version: 1\nnetwork: {subnet: 10.0.2.0/24}\nmachines: {a: }\n", "the way out of the provisioner"),
    ("version: 1\nnetwork: {subnet: 10.1.1.0/30}\nmachines: {a: }\n", "is too small"),
    ("version: 1\nprovisioner: {mode: docker}\nmachines: {a: }\n", "2:21: provisioner.mode: it must be vm or host"),
    ("version: 1\ndefaults: {colour: red}\nmachines: {a: }\n", "2:12: defaults.colour: there is no such key"),
    ("version: 1\nmachines: {a: *x}\n", "no whole value above has the anchor &x"),
    ("version: 1\nmachines: [a]\n", "machines: it must be the machines, by their names; it is a list"),
    ("version: 1\nmachines: {a: 5}\n", "machines.a: it must be a machine; the keys are the"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FAULTS, ids=[said[:60] for _, said in FAULTS])
def test_what_cannot_be_is_refused_early(text: str, said: str, folder: Path) -> None:
    found = faults_of(text, folder)
    assert any(said in line for line in found), "\n".join(found)
    assert all(line.startswith("lab.yaml:") for line in found)


def test_beside_another_dhcp_server_each_machine_says_its_address() -> None:
    proxy = Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    with pytest.raises(ManifestError) as caught:
        read(machines("  a: {ip: 192.168.100.200}\n  b: \n"), Path("lab.yaml"), proxy)
    (fault,) = caught.value.faults
    assert (fault.line, fault.path) == (4, "machines.b")
    assert fault.what.startswith("the address of b must be said; --ip=ADDRESS, the one that it gives")


def test_a_network_that_is_there_may_be_written_down() -> None:
    office = Lan(dhcp=DhcpMode.PROXY, subnet="10.0.0.0/16", address="10.0.0.7")  # of host mode, which has no way out
    text = "version: 1\nnetwork: {subnet: 10.0.0.0/16}\nmachines: {a: {ip: 10.0.3.1}}\n"
    assert read(text, Path("lab.yaml"), office).lan(office) == office


def test_numbers_are_those_of_the_core_schema() -> None:
    text = machines("  a: {cpus: 0x2, memory: 0o2000, user-data: {a: [0x1f, 1.0, '0644', 0]}}\n")
    (machine,) = read(text, Path("lab.yaml"), Lan()).machines
    assert (machine.request.cpus, machine.request.memory_mib) == (2, 1024)
    assert json.loads((machine.request.user_data or "").partition("\n")[2]) == {"a": [31, 1.0, "0644", 0]}


def test_more_machines_than_there_is_room_for_are_not_even_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    trial = manifest_machines._trial

    def counted(one: MachineRequest, lan: Lan) -> VmDefinition:
        made.append(one.name)
        return trial(one, lan)

    monkeypatch.setattr(manifest_machines, "_trial", counted)
    body = "".join(f"  a{number}: {{replicas: 250}}\n" for number in range(300))
    with pytest.raises(ManifestError, match="lab file"):
        read(machines(body), Path("lab.yaml"), Lan())
    assert len(made) < 127 + 300


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load(Path("/dev/zero"), Lan())
    assert caught.value.faults[0].what == f"it is larger than {MAX_SIZE} bytes"
    (tmp_path / "lab.yaml").write_text(machines("  a:\n") + "# ä\n" * (MAX_SIZE // 5))  # bytes count, not characters
    with pytest.raises(ManifestError, match="broken"):
        load(tmp_path / "lab.yaml", Lan())


def test_all_faults_are_told_at_once(folder: Path) -> None:
    body = "  Web: \n  b: {memory: much, colour: red}\n  c: {after: {zz: ssh}}\n  d: {distro: none}\n  e: {cpus: 0}\n"
    lines = [int(line.split(":")[1]) for line in faults_of(machines(body), folder)]
    assert lines == [3, 4, 4, 5, 6, 7]


def test_a_fault_in_the_defaults_is_told_once(folder: Path) -> None:
    text = "version: 1\ndefaults: {memory: much}\nmachines: {a: , b: , c: }\n"
    assert len(faults_of(text, folder)) == 1


def test_no_value_of_user_data_gets_into_a_message(folder: Path) -> None:
    text = machines("  a:\n    user-data:\n      password: SECRET\n    cpus: 0\n    colour: x\n")
    assert "SECRET" not in "\n".join(faults_of(text, folder))


def test_the_schema_is_one_and_has_the_choices_that_the_code_has() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    machine = schema()["$defs"]["machine"]["properties"]
    assert machine["disk-bus"]["enum"] == list(map(str, DiskBus))
    assert machine["firmware"]["enum"] == list(map(str, FirmwareKind))
    assert machine["nic-model"]["enum"] == list(map(str, NicModel))
    assert machine["arch"]["enum"] == list(map(str, Arch))
    assert schema()["$defs"]["condition"]["enum"] == list(map(str, Milestone))
    assert schema()["properties"]["provisioner"]["properties"]["mode"]["enum"] == list(map(str, ProvisionerMode))


def test_every_option_of_vm_create_is_a_key() -> None:
    from tasks import namespace

    arguments = namespace["vm.create"].get_arguments()
    options = {argument.name.replace("_", "-") for argument in arguments} - {"name", "output"}
    plural = {"more-disk": "more-disks", "label": "labels", "qemu-arg": "qemu-args"}
    keys = set(schema()["$defs"]["machine"]["properties"])
    assert {plural.get(option, option) for option in options} == keys - {"replicas", "after"}
    json.dumps(schema())


@pytest.mark.parametrize("page", ["docs/tutorial/lab-yaml.md", "docs/reference/lab-yaml.md"])
def test_the_files_in_the_documentation_are_right(page: str, folder: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    assert blocks
    with (folder / "image.raw").open("rb") as image:  # of some GiB, nearly all of it a hole
        beginning = image.read(64 << 20)
    for place in ("img/cloud.qcow2", "images/edge.qcow2"):
        (folder / place).parent.mkdir()
        (folder / place).write_bytes(beginning)
    (folder / "edge.cfg").write_text("#cloud-config\n{}\n")
    for text in blocks:
        assert read(text, folder / "lab.yaml", Lan()).machines


def test_the_tutorials_broken_file_is_told_as_it_says(folder: Path) -> None:
    page = (REPOSITORY / "docs/tutorial/lab-yaml.md").read_text()
    said = [line.strip() for line in page.splitlines() if line.startswith("  bad.yaml:")]
    text = machines("  a: {memory: much}\n  b: {after: {c: ssh}}\n  c: {after: {b: ssh}, ip: 192.168.100.1}\n")
    assert [line.replace("lab.yaml", "bad.yaml") for line in faults_of(text, folder)] == said
