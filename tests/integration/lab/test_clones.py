"""Clones: real overlays, real file systems, real keys; nothing boots here (tests/e2e does that)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from contracts import document, nocloud
from contracts.lan import DhcpMode, Lan
from contracts.machine import ExtraDisk, Installer, MachineSource, PortForward, VmDefinition
from contracts.report import InstallState
from lab import clones, identity, layers, ssh, target
from lab.clones import CloneRequest
from lab.snapshots import take
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError, UsageError
from tests.fakes.idle_machines import IdleLab
from tests.fakes.installed_disks import read_files, system_files, write_installed_disk


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


def documents_of(place: IdleLab, definition: VmDefinition) -> dict[str, str]:
    return {kind: render(definition, place.lab.lan) for kind, render in nocloud.DOCUMENTS.items()}


def install(place: IdleLab, definition: VmDefinition, *, mounted: bool = False) -> int:
    """Put a system on the machine's disk."""
    files = system_files(definition.name, documents_of(place, definition))
    return write_installed_disk(target.disk_path(place.lab, definition.name), files, mounted=mounted)


def make_clone(place: IdleLab, source: str, name: str, **more: object) -> clones.Clone:
    def documents(definition: VmDefinition) -> Mapping[str, str]:
        return documents_of(place, definition)

    return clones.clone(place.lab, CloneRequest(source=source, name=name, **more), documents=documents)  # type: ignore[arg-type]


def test_a_clone_has_the_disks_and_an_identity_of_its_own(place: IdleLab) -> None:
    source = place.make("web1", more_disks=(ExtraDisk(size_gib=2),), forwards=(PortForward(host=8080, guest=80),))
    begin = install(place, source)
    target.variables_path(place.lab, "web1").write_text("boot entries")

    made = make_clone(place, "web1", "a-much-longer-name-than-that").definition

    store = DefinitionStore(place.lab)
    assert store.load(made.name) == made
    for field in ("uuid", "mac", "ip", "ssh_host_key"):
        assert getattr(made, field) != getattr(source, field), field
    same = {"cpus", "memory_mib", "disk_bus", "more_disks", "distro", "firmware"}
    assert all(getattr(made, field) == getattr(source, field) for field in same)
    assert made.forwards == ()  # the source has that port of the host
    assert target.variables_path(place.lab, made.name).read_text() == "boot entries"
    status = target.read_status(place.lab, made)
    assert (status.state, status.installs) == (InstallState.INSTALLED, 1)
    assert [event.text for event in status.events] == ["cloned from web1"]
    assert made.name in (place.lab.home.ssh / "known_hosts").read_text() or ssh.config_path(place.lab).exists()
    for before, after in zip(
        target.disk_paths(place.lab, source), target.disk_paths(place.lab, made), strict=True
    ):  # fmt: skip
        assert layers.chain(before)[0] == layers.chain(after)[0]
        assert layers.chain(before)[0].stat().st_mode & 0o777 == 0o400

    expected = system_files(made.name, documents_of(place, made))
    found = read_files(target.disk_path(place.lab, made.name), begin, expected)
    machine_id = found.pop("etc/machine-id")
    assert re.fullmatch(r"[0-9a-f]{32}\n", machine_id)
    assert machine_id != expected.pop("etc/machine-id")
    assert found == {name: text.rstrip("\n") + "\n" for name, text in expected.items()}
    assert json.loads(found[f"{identity.SEED_FOLDER}/meta-data"])["instance-id"] == f"iid-{made.uuid}"
    original = system_files("web1", documents_of(place, source))
    assert read_files(target.disk_path(place.lab, "web1"), begin, original) == original


def test_clones_of_clones_and_the_end_of_the_source(place: IdleLab) -> None:
    begin = install(place, place.make("web1"))
    make_clone(place, "web1", "web2")
    third = make_clone(place, "web2", "web3").definition
    target.clean(place.lab, "web1")
    target.clean(place.lab, "web2")
    found = read_files(target.disk_path(place.lab, "web3"), begin, {"etc/hostname": ""})
    assert found == {"etc/hostname": "web3\n"}
    target.clean(place.lab, third.name)
    assert not list(layers.layers_folder(place.lab.home).iterdir())


def test_a_running_machine_is_cloned_by_its_snapshot(place: IdleLab) -> None:
    source = place.make("web1")
    begin = install(place, source, mounted=True)
    place.start("web1", runs=True)
    with pytest.raises(ConflictError, match="web1 is running") as caught:
        make_clone(place, "web1", "web2")
    assert "vm.snapshot web1" in caught.value.resolution
    take(place.lab, source, "now")
    made = make_clone(place, "web1", "web2", snapshot="now").definition
    assert read_files(target.disk_path(place.lab, made.name), begin, {"etc/hostname": ""}) == {"etc/hostname": "web2\n"}


def test_a_name_that_does_not_fit_into_an_unclean_file_system_is_refused_and_leaves_nothing(place: IdleLab) -> None:
    install(place, place.make("web1"), mounted=True)
    with pytest.raises(ConflictError, match="cannot get an identity of its own: the file system was not unmounted"):
        make_clone(place, "web1", "a-much-longer-name")
    assert DefinitionStore(place.lab).names() == ["web1"]
    assert [path.name for path in place.lab.home.disks.glob("*.qcow2")] == ["web1.qcow2"]


def test_what_cannot_be_cloned_is_refused(place: IdleLab) -> None:
    source = place.make("web1")
    with pytest.raises(NotFoundError, match="there is no machine 'nope'"):
        make_clone(place, "nope", "web2")
    with pytest.raises(ConflictError, match="there is a machine 'web1' already"):
        make_clone(place, "web1", "web1")
    with pytest.raises(ConflictError, match="the disk of web1 holds no system that pvmlab installed"):
        make_clone(place, "web1", "web2")
    with pytest.raises(NotFoundError, match="web1 has no snapshot 'x'"):
        make_clone(place, "web1", "web2", snapshot="x")
    settings = place.lab.home.config / "lab.json"
    settings.write_text(document.dumps(Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")))
    with pytest.raises(UsageError, match="the address of web2 must be said"):
        make_clone(place, "web1", "web2")
    settings.unlink()
    target.status_path(place.lab, "web1").unlink()
    before = layers.chain(target.disk_path(place.lab, "web1"))
    with pytest.raises(ConflictError, match=r"web1 has no system to clone: it is not installed \(new\)"):
        make_clone(place, "web1", "web2")
    assert layers.chain(target.disk_path(place.lab, "web1")) == before  # its disk was not even frozen
    DefinitionStore(place.lab).rewrite(dataclasses.replace(source, managed=False))
    with pytest.raises(ConflictError, match="web1 was adopted"):
        make_clone(place, "web1", "web2")
    assert DefinitionStore(place.lab).names() == ["web1"]


def test_a_system_that_pvmlab_does_not_know_is_cloned_as_it_is_only_if_one_insists(place: IdleLab) -> None:
    source = place.make("web1", installer=Installer.PRESEED, repository="http://example.org/debian")
    with pytest.raises(ConflictError, match="installed by the distribution's own installer"):
        make_clone(place, "web1", "web2")
    made = make_clone(place, "web1", "web2", keep_identity=True)
    assert made.warning == "its system believes to be web1: never let both run at once"
    assert made.definition.ssh_host_key == source.ssh_host_key


def test_a_cloud_image_machine_gets_its_identity_from_its_seed_disc(place: IdleLab) -> None:
    source = place.make("web1", source=MachineSource.IMAGE, image="/images/cloud.qcow2")
    DefinitionStore(place.lab).write_user_data("web1", "#cloud-config\n{}\n")
    begin = install(place, source)
    made = make_clone(place, "web1", "web2")
    assert made.warning == ""
    assert DefinitionStore(place.lab).find_user_data("web2") == "#cloud-config\n{}\n"
    found = read_files(target.disk_path(place.lab, "web2"), begin, {"etc/machine-id": "", "etc/hostname": ""})
    assert found["etc/machine-id"] != "0123456789abcdef0123456789abcdef\n"
    assert found["etc/hostname"] == "web1\n"  # cloud-init's task: it sees a new instance-id

    place.make("empty", source=MachineSource.IMAGE)
    assert "its /etc/machine-id is that of empty" in make_clone(place, "empty", "web3").warning


def test_a_clone_that_fails_late_leaves_nothing(place: IdleLab, monkeypatch: pytest.MonkeyPatch) -> None:
    install(place, place.make("web1"))

    def fail(_store: DefinitionStore, _definition: VmDefinition) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DefinitionStore, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            make_clone(place, "web1", "web2")
    assert not list(place.lab.home.root.rglob("web2*"))
    make_clone(place, "web1", "web2")
