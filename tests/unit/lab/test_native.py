from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.answers import MAX_OWN_BYTES
from contracts.arch import Arch
from contracts.machine import AnswerFile, Installer, SshHostKey, VmDefinition
from contracts.report import InstallState, MachineStatus, Phase
from distros.family import Family
from distros.release import Checksums, Locked, Medium, MediumKind, Release, Sources
from lab import hardware, native, target
from lab.follow import PACES, Follower
from lab.lab import Lab
from lab.progress import Reporter
from lab.spec import Accelerator, AcceleratorKind
from lab.store import DefinitionStore, MachineRequest
from lab.wait import Deadline
from pipeline.debian.apt_sources import Mirror
from pipeline.errors import NotFoundError, PrerequisiteError, UsageError, WaitTimeoutError

ARCH = Arch.X86_64
TCG = Accelerator(AcceleratorKind.TCG, "max", "for the test", 5)
ISO = Medium(
    kind=MediumKind.ISO,
    mirrors=("http://mirror.example/",),
    file="a.iso",
    checksums=Checksums(file="SUMS", signature=None, keys=()),
)
KEY = "ssh-ed25519 AAAAuser pvmlab"
SOURCES = ("deb http://mirror.example/debian trixie main",)
Make = Callable[..., VmDefinition]
Write = Callable[[MachineStatus], None]


def release(family: Family, sources: Sources, **more: object) -> Release:
    values = {"name": "some-1", "title": "Some 1", "family": family, "sources": {ARCH: sources}}
    return Release(**(values | more))  # type: ignore[arg-type]


WITH_PACKAGE = Sources(installer_package="debian-installer-13-netboot-amd64")
WITH_ISO = Sources(media={MediumKind.ISO: ISO})


def native_machine(make_definition: Make, kind: Installer, **more: object) -> VmDefinition:
    return dataclasses.replace(make_definition(), installer=kind, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("family", "sources", "kind"),
    [
        (Family.DEBIAN, WITH_PACKAGE, Installer.PRESEED),
        (Family.UBUNTU, WITH_ISO, Installer.AUTOINSTALL),
        (Family.FEDORA, WITH_ISO, Installer.KICKSTART),
    ],
)
def test_each_family_has_its_installer(family: Family, sources: Sources, kind: Installer) -> None:
    assert native.native_installer(release(family, sources), ARCH) is kind


@pytest.mark.parametrize(
    ("family", "sources"), [(Family.ALPINE, WITH_ISO), (Family.SUSE, WITH_ISO), (Family.FEDORA, Sources())]
)
def test_what_cannot_be_driven_is_refused(family: Family, sources: Sources) -> None:
    with pytest.raises(UsageError, match="some-1 has no installer of its own for x86_64"):
        native.native_installer(release(family, sources), ARCH)


def test_answer_files_are_read(tmp_path: Path) -> None:
    verbatim, template = tmp_path / "preseed.cfg", tmp_path / "ks.cfg.j2"
    verbatim.write_text("d-i a/b string {% c\n")
    template.write_text("text\n{{ machine.name }}\n")
    assert native.read_answers(verbatim) == native.OwnAnswers("d-i a/b string {% c\n", AnswerFile.VERBATIM)
    assert native.read_answers(template).kind is AnswerFile.TEMPLATE


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a", b"\xff\xfe", "is not UTF-8: .* at byte 0"),
        ("a", b"", "is empty"),
        ("a", b" \n", "is empty"),
        ("a", b"a\0b", "is no text"),
        ("a", b"x" * (MAX_OWN_BYTES + 1), "is longer than 256 KiB"),
        ("a.j2", b"a\n{% if %}", "is no Jinja2 template: line 2"),
    ],
)
def test_what_is_no_answer_file_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(UsageError, match=message):
        native.read_answers(path)


def test_an_answer_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing cannot be read"):
        native.read_answers(tmp_path / "nothing")


def test_an_answer_file_as_long_as_may_be_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * MAX_OWN_BYTES)
    assert len(native.read_answers(tmp_path / "a").text) == MAX_OWN_BYTES


@pytest.mark.parametrize(("text", "tells"), [("curl http://x/answers/a/report.sh | sh", True), ("version: 1", False)])
def test_an_answer_file_that_reports_is_known(text: str, tells: bool) -> None:
    assert native.OwnAnswers(text, AnswerFile.VERBATIM).tells_its_end is tells


def test_debian_needs_a_mirror_by_http(make_definition: Make) -> None:
    with pytest.raises(PrerequisiteError, match="needs a Debian mirror"):
        native.require_sources(native_machine(make_definition, Installer.PRESEED))
    native.require_sources(native_machine(make_definition, Installer.PRESEED, package_sources=SOURCES))
    native.require_sources(native_machine(make_definition, Installer.PRESEED, answer_file=AnswerFile.VERBATIM))


def test_anaconda_needs_a_repository(make_definition: Make) -> None:
    with pytest.raises(PrerequisiteError, match="names no repository"):
        native.require_sources(native_machine(make_definition, Installer.KICKSTART))
    native.require_sources(native_machine(make_definition, Installer.KICKSTART, repository="http://mirror.example/os/"))


def test_the_repository_is_the_architectures() -> None:
    made = release(Family.FEDORA, WITH_ISO, repository="https://mirror.example/9/{arch}/os/")
    assert native.find_repository(made, ARCH) == "https://mirror.example/9/x86_64/os/"
    assert native.find_repository(release(Family.DEBIAN, WITH_PACKAGE), ARCH) == ""


@pytest.mark.parametrize("kind", [Installer.AUTOINSTALL, Installer.KICKSTART])
def test_memory_must_hold_what_the_installer_keeps_there(lab: Lab, make_definition: Make, kind: Installer) -> None:
    made = release(Family.UBUNTU if kind is Installer.AUTOINSTALL else Family.FEDORA, WITH_ISO)
    name = {Installer.AUTOINSTALL: "install.iso", Installer.KICKSTART: "images/install.img"}[kind]
    path = lab.cache.image(made.name, ARCH, f"native/{name}")
    path.parent.mkdir(parents=True)
    with path.open("wb") as stream:
        stream.truncate((700 << 20) + 1)  # takes no room
    machine = native_machine(make_definition, kind, memory_mib=2748)
    with pytest.raises(
        UsageError, match="web1 has 2748 MiB of memory, and the installer of some-1 needs 2749"
    ) as caught:
        native.require_memory(machine, lab.cache, made)
    assert "--memory=3G" in caught.value.resolution
    native.require_memory(dataclasses.replace(machine, memory_mib=2749), lab.cache, made)


def test_memory_is_checked_before_the_download_where_the_lock_has_the_size(lab: Lab, make_definition: Make) -> None:
    locked = {(ARCH, MediumKind.ISO): Locked(file="a.iso", sha256="0" * 64, size=3 << 30)}
    machine = native_machine(make_definition, Installer.AUTOINSTALL, memory_mib=4096)
    with pytest.raises(UsageError, match="needs 5120 MiB"):
        native.require_memory(machine, lab.cache, release(Family.UBUNTU, WITH_ISO, locked=locked))
    native.require_memory(machine, lab.cache, release(Family.UBUNTU, WITH_ISO))
    kickstart = native_machine(make_definition, Installer.KICKSTART, memory_mib=4096)
    native.require_memory(kickstart, lab.cache, release(Family.FEDORA, WITH_ISO, locked=locked))  # the ISO is not kept


def test_pvmlabs_installer_needs_no_such_memory(lab: Lab, make_definition: Make) -> None:
    native.require_memory(make_definition(), lab.cache, release(Family.UBUNTU, WITH_ISO))


def test_an_own_answer_file_is_kept_beside_the_definition_and_goes_with_it(lab: Lab, host_key: SshHostKey) -> None:
    store = DefinitionStore(lab)
    answers = native.OwnAnswers("secret: 1\n", AnswerFile.TEMPLATE)
    request = MachineRequest(name="web1", distro="debian-13", installer=Installer.PRESEED, answers=answers)
    definition = store.plan(request, host_key=host_key, authorized_key=KEY)
    assert (definition.installer, definition.answer_file) == (Installer.PRESEED, AnswerFile.TEMPLATE)
    store.write(definition, answers)
    path = store.answers_path("web1")
    assert (path.name, path.read_text(), path.stat().st_mode & 0o777) == ("web1.answers", "secret: 1\n", 0o600)
    assert store.names() == ["web1"]
    assert store.strays() == []
    store.delete("web1")
    assert list(store.folder.iterdir()) == []


def test_an_answer_file_that_a_killed_create_left_is_not_taken_for_a_new_machines(
    lab: Lab, make_definition: Make
) -> None:
    store = DefinitionStore(lab)
    store.answers_path("web1").write_text("stale")
    make_definition()
    assert not store.answers_path("web1").exists()


def create(lab: Lab, monkeypatch: pytest.MonkeyPatch, made: Release, **request: object) -> VmDefinition:
    for module in (target, hardware):
        monkeypatch.setattr(module, "require_release", lambda _name, _arch: made)
    monkeypatch.setattr(target, "make_key", lambda *_a, **_k: SshHostKey(
        private="-----BEGIN OPENSSH PRIVATE KEY-----\nfake\n-----END OPENSSH PRIVATE KEY-----\n", public=KEY
    ))  # fmt: skip
    monkeypatch.setattr(target, "host_mirror", lambda: Mirror("http://mirror.example/debian", None))
    monkeypatch.setattr(target, "create_empty_disk", lambda path, size: path.write_text(f"empty {size}"))
    monkeypatch.setattr("lab.ssh.lab_key", lambda _lab: type("Key", (), {"read_public": lambda _: KEY})())
    monkeypatch.setattr("lab.ssh.write_files", lambda *_: None)
    values = {"name": "web1", "distro": made.name} | request
    return target.create(lab, MachineRequest(**values))  # type: ignore[arg-type]


def test_a_debian_machine_is_told_the_hosts_mirror(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    made = release(Family.DEBIAN, WITH_PACKAGE, suite="trixie")
    definition = create(lab, monkeypatch, made, installer=Installer.PRESEED)
    assert definition.package_sources[0] == "deb http://mirror.example/debian trixie main"
    assert definition.repository == ""


def test_a_fedora_machine_is_told_its_repository(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    made = release(Family.FEDORA, WITH_ISO, repository="https://mirror.example/{arch}/os/")
    definition = create(lab, monkeypatch, made, installer=Installer.KICKSTART, memory_mib=4096)
    assert definition.repository == "https://mirror.example/x86_64/os/"


def test_nothing_is_left_of_a_machine_that_cannot_be(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrerequisiteError, match="names no repository"):
        create(lab, monkeypatch, release(Family.FEDORA, WITH_ISO), installer=Installer.KICKSTART)
    assert DefinitionStore(lab).names() == []
    assert not (lab.home.disks / "web1.qcow2").exists()


@pytest.mark.parametrize("kind", list(Installer))
@pytest.mark.parametrize("answers", list(AnswerFile))
def test_cloud_init_is_waited_for_where_it_is(
    lab: Lab, make_definition: Make, reporter: Reporter, kind: Installer, answers: AnswerFile
) -> None:
    if kind is Installer.PVMLAB and answers is not AnswerFile.LAB:
        with pytest.raises(ValueError, match="answer_file is for a distribution's own installer"):
            native_machine(make_definition, kind, answer_file=answers)
        return
    follower = Follower(lab, native_machine(make_definition, kind, answer_file=answers), reporter, 1.0, Deadline(60))
    has_it = kind in {Installer.PVMLAB, Installer.AUTOINSTALL} and answers is AnswerFile.LAB
    assert follower.has_cloud_init() is has_it


def test_what_an_own_installer_does_is_shown(
    lab: Lab, make_definition: Make, reporter: Reporter, monkeypatch: pytest.MonkeyPatch, write_status: Write,
    mark_running: Callable[[str], None], announce: Callable[..., None],
) -> None:  # fmt: skip
    for name in ("web1", "provisioner"):
        mark_running(name)
    announce("ready")
    definition = native_machine(make_definition, Installer.PRESEED)
    now = MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLING, phase=Phase.SYSTEM,
                        percent=25, message="Unpacking libc6")  # fmt: skip
    write_status(now)
    done = dataclasses.replace(now, state=InstallState.INSTALLED, installs=1)
    monkeypatch.setattr("lab.follow.time.sleep", lambda _: write_status(done))
    Follower(lab, definition, reporter, 1.0, Deadline(60)).wait_for_install()
    assert reporter.shown == [("web1: 5/7 system: Unpacking libc6", 25)]  # type: ignore[attr-defined]


def test_an_own_installer_that_falls_silent_may_ask(
    lab: Lab, make_definition: Make, reporter: Reporter, write_status: Write, mark_running: Callable[[str], None],
    announce: Callable[..., None],
) -> None:  # fmt: skip
    for name in ("web1", "provisioner"):
        mark_running(name)
    announce("ready")
    definition = native_machine(make_definition, Installer.PRESEED)
    write_status(MachineStatus(name="web1", uuid=definition.uuid, state=InstallState.INSTALLING, phase=Phase.DISK))
    with pytest.raises(WaitTimeoutError, match=r"fell silent in phase 4 of 7, disk, .*; it may ask something"):
        Follower(lab, definition, reporter, 0.0, Deadline(60)).wait_for_install()


def test_every_installer_has_its_pace() -> None:
    assert set(PACES) == set(Installer)
    ours = PACES[Installer.PVMLAB]
    assert all(pace.total >= ours.total and pace.silence >= ours.silence for pace in PACES.values())
    assert all(pace.silence < pace.total for pace in PACES.values())
