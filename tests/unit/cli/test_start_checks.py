"""What a person wrote for a machine is checked before the machine is made or started."""

from __future__ import annotations

import builtins
import io
import itertools
import json
import re
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykickstart.parser  # noqa: F401 (here, as its imports try out a socket, which no unit test may)
import pytest
import zstandard

from cli import boot_verbs, lab_verbs, machine_life_verbs, machine_verbs, render_checks, start_checks
from cli.machine_options import HardwareWords
from cli.start_checks import require_documents
from contracts import document
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.orders import OrderKind
from contracts.report import InstallState, MachineStatus
from lab import journey, orders, target
from lab.lab import Lab
from lab.native import OwnAnswers
from lab.store import MachineRequest
from pipeline.errors import ConflictError, ExitCode, MissingProgramError, PrerequisiteError
from tests.fakes.lab_files import HOST_KEY, make_machine, write_definition

MACHINE = make_machine()
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {
        "hostname": {"type": "string"},
        "write_files": {"type": "array", "items": {"properties": {"path": {"type": "string"}}}},
    },
    "additionalProperties": False,
}
NETWORK_SCHEMA = {
    "type": "object",
    "properties": {"network": {"properties": {"ethernets": {"type": "object"}}}},
}
GOOD = "#cloud-config\nhostname: {{ machine.name | json }}\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    made = Lab.from_environment()
    for folder in (made.home.vms, made.home.templates, made.home.status):
        folder.mkdir(parents=True)
    write_rootfs(made.cache.root / "images/debian-12/x86_64/rootfs.tar.zst")
    return made


def write_rootfs(path: Path) -> None:
    """Write a root filesystem with the schemas of its cloud-init."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, schema in {"cloud-config-v1": SCHEMA, "network-config-v2": NETWORK_SCHEMA}.items():
            data = json.dumps(schema).encode()
            member = tarfile.TarInfo(f"./usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-{name}.json")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(zstandard.compress(raw.getvalue()))
    render_checks.read_schemas.cache_clear()


def native(kind: Installer, **more: Any) -> VmDefinition:
    sources = ("deb http://mirror.example/debian trixie main",)
    return make_machine(installer=kind, package_sources=sources, repository="http://mirror.example/os/", **more)


def refused(lab: Lab, machine: VmDefinition = MACHINE, answers: OwnAnswers | None = None) -> ConflictError:
    request = None if answers is None else MachineRequest(name="web1", distro="debian-12", answers=answers)
    with pytest.raises(ConflictError) as caught:
        require_documents(lab, machine, request=request)
    assert caught.value.exit_code is ExitCode.CONFLICT
    return caught.value


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "unknown key": ("user-data", "#cloud-config\nhostnme: a\n", r"document: .*'hostnme' was unexpected"),
    "wrong type": ("user-data", "#cloud-config\nhostname: [a]\n", r"hostname: \['a'\] is not of type 'string'"),
    "wrong type, deep": (
        "vendor-data", "#cloud-config\nwrite_files: [{path: /a}, {path: 7}]\n",
        r"write_files\.1\.path: 7 is not of type 'string'",
    ),
    "tab": ("user-data", "#cloud-config\nwrite_files:\n\t- path: /a\n", r"not YAML: .*line 3, column 1"),
    "not UTF-8": ("user-data", b"#cloud-config\nhostname: \xff\n", r"is not UTF-8: invalid start byte at byte 24"),
    "no header": ("user-data", "hostname: a\n", r"begins with neither #cloud-config nor"),
    "header after a blank": ("user-data", "\n#cloud-config\nhostname: a\n", r"begins with neither"),
    "syntax": ("user-data", "#cloud-config\n{% if %}\n", r"TemplateSyntaxError \(line 2\)"),
    "filter": ("user-data", "#cloud-config\n\na: {{ 1 | nothing }}\n", r"\(line 3\): No filter named 'nothing'"),
    "undefined": ("user-data", "#cloud-config\n\na: {{ machine.nme }}\n", r"UndefinedError \(line 3\): .*'nme'"),
    "loop": (
        "user-data", "#cloud-config\n{% for a in range(10 ** 9) %}{% endfor %}\n", r"loops take more than 100000 steps",
    ),
    "recursion": ("user-data", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", r"RecursionError"),
    "10 MB in one piece": (
        "user-data", "#cloud-config\na: {{ 'x' * 10000000 }}\n", r"\* makes more than 1048576 pieces",
    ),
    "10 MB in all": (
        "user-data", "#cloud-config\n{% for a in range(10000) %}# {{ 'x' * 1000 }}\n{% endfor %}",
        r"longer than 1048576 characters",
    ),
    "too long itself": ("user-data", "#cloud-config\n" + "# " * 200_000, r"is longer than 262144 bytes"),
    "no mapping": ("user-data", "#cloud-config\n- a\n", r"it is a list, not a mapping"),
    "nothing": ("user-data", "", r"begins with neither"),
    "no instance-id": ("meta-data", "local-hostname: a\n", r"no instance-id"),
    "no network version": ("network-config", "ethernets: {}\n", r"version: neither 1 nor 2"),
    "network": ("network-config", "version: 2\nethernets: [a]\n", r"network\.ethernets: \['a'\] is not of type"),
    "script": ("ipxe", "shell\n", r"does not begin with #!ipxe"),
    "ignition": ("ignition", "{}", r"ignition\.version is missing"),
    "ignition, no JSON": ("ignition", '{"ignition": {{ lan.domain }}}', r"does not make JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", ["{}.j2", "web1.{}.j2"])
def test_a_bad_template_is_refused_with_file_place_and_reason(lab: Lab, case: str, name: str) -> None:
    what, text, reason = BAD[case]
    path = lab.home.templates / name.format(what)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    write_definition(lab.home.vms, MACHINE)
    error = refused(lab)
    assert error.brief == f"web1 cannot be installed with {path.name}"
    assert error.details.startswith(f"{path.name}: ")
    assert any(re.search(reason, line) for line in error.details.splitlines()), error.details
    assert error.resolution == f"repair {path}; ./pvmlab render web1 --what {what} prints what it makes"


ANSWERS = {
    Installer.PRESEED: ("d-i netcfg/x string a\nnonsense\n", r"not OWNER QUESTION TYPE VALUE: nonsense"),
    Installer.AUTOINSTALL: ("#cloud-config\nautoinstall: {version: 2}\n", r"autoinstall\.version: not 1"),
    Installer.KICKSTART: ("nonsense --x\n", r"Unknown command: nonsense"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("source", ["template", "new file", "file"])
def test_a_bad_answer_file_is_refused(lab: Lab, kind: Installer, source: str) -> None:
    text, reason = ANSWERS[kind]
    if source == "template":
        (lab.home.templates / f"{kind}.j2").write_text(text)
        error = refused(lab, native(kind, distro="rocky-10"))
    else:
        machine = native(kind, distro="rocky-10", answer_file=AnswerFile.TEMPLATE)
        if source == "file":
            (lab.home.vms / "web1.answers").write_text(text)
        error = refused(lab, machine, OwnAnswers(text, AnswerFile.TEMPLATE) if source == "new file" else None)
        assert error.brief == "web1 cannot be installed with its answer file"
        assert error.resolution == ("repair it" if source == "new file" else f"repair {lab.home.vms / 'web1.answers'}")
    assert re.search(reason, error.details)


def test_an_answer_file_that_does_not_render_or_is_gone_is_refused(lab: Lab) -> None:
    machine = native(Installer.KICKSTART, answer_file=AnswerFile.TEMPLATE)
    error = refused(lab, machine, OwnAnswers("text\n{{ nonsense }}", AnswerFile.TEMPLATE))
    assert "the answer file of web1 cannot be used: UndefinedError (line 2)" in error.details
    assert "web1.answers cannot be read: No such file" in refused(lab, machine).details


def test_good_ones_of_all_kinds_are_taken(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_more: object) -> None:
        raise MissingProgramError(argv[0])  # debconf-set-selections: no unit test may start it

    monkeypatch.setattr(render_checks, "run", run)
    for name, text in {
        "user-data.j2": GOOD, "vendor-data.j2": "#!/bin/sh\ntrue\n", "meta-data.j2": "instance-id: a\n",
        "network-config.j2": "version: 2\n", "ipxe.j2": "#!ipxe\n", "ignition.j2": '{"ignition": {"version": "3.4.0"}}',
        "preseed.j2": "d-i a/b string c\n", "kickstart.j2": "text\n",
        "autoinstall.j2": "#cloud-config\nautoinstall: {version: 1, user-data: {hostname: a}}\n",
    }.items():  # fmt: skip
        (lab.home.templates / name).write_text(text)
    require_documents(lab, MACHINE)
    for kind in ANSWERS:
        require_documents(lab, native(kind))


def test_all_faults_are_told_at_once_and_no_secret(lab: Lab) -> None:
    (lab.home.templates / "user-data.j2").write_text(
        "#cloud-config\nhostname: [{{ machine.ssh_host_key.private | json }}]\nmore: 1\n"
    )
    (lab.home.templates / "web1.meta-data.j2").write_text("a: b\n")
    error = refused(lab)
    assert error.brief == "web1 cannot be installed with user-data.j2 and web1.meta-data.j2"
    assert len(error.details.splitlines()) == 3
    assert "THE-SECRET" not in error.details


def test_templates_for_others_do_not_count(lab: Lab) -> None:
    for name in ("web2.user-data.j2", "preseed.j2", "kickstart.j2", "user-data.txt"):
        (lab.home.templates / name).write_text("{{ nonsense }}")
    require_documents(lab, MACHINE)
    (lab.home.templates / "network-config.j2").write_text("{{ nonsense }}")
    require_documents(lab, native(Installer.AUTOINSTALL))  # its network is in its answers
    assert refused(lab).brief == "web1 cannot be installed with network-config.j2"


def test_a_template_that_takes_for_ever_is_broken_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks, "_WITHIN", 0.2)
    endless = "{% for a in [0] * 1000000 %}{% for b in [0] * 1000000 %}{% endfor %}{% endfor %}"
    (lab.home.templates / "user-data.j2").write_text(endless)
    assert "it takes longer than 0.2 s to render and to check" in refused(lab).details


def test_a_check_that_takes_for_ever_is_broken_off(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_checks, "_WITHIN", 0.2)
    monkeypatch.setattr(render_checks, "check_document", lambda *_: sum(1 for _ in itertools.count()))
    (lab.home.templates / "user-data.j2").write_text(GOOD)
    assert refused(lab).details == "user-data.j2: it takes longer than 0.2 s to render and to check"


def test_beside_the_main_thread_nothing_is_broken_off(lab: Lab) -> None:
    (lab.home.templates / "user-data.j2").write_text("{{ nonsense }}")
    found: list[ConflictError] = []
    thread = threading.Thread(target=lambda: found.append(refused(lab)))
    thread.start()
    thread.join()
    assert "UndefinedError" in found[0].details


def test_a_folder_of_templates_that_cannot_be_read_is_said(lab: Lab) -> None:
    lab.home.templates.rmdir()
    lab.home.templates.write_text("a file")
    with pytest.raises(PrerequisiteError, match="the folder of templates cannot be read: Not a directory"):
        require_documents(lab, MACHINE)


def test_without_the_root_filesystem_what_can_be_checked_is(lab: Lab) -> None:
    (lab.cache.root / "images/debian-12/x86_64/rootfs.tar.zst").unlink()
    (lab.home.templates / "user-data.j2").write_text("#cloud-config\nhostname: [a]\n")
    require_documents(lab, MACHINE)
    (lab.home.templates / "user-data.j2").write_text("#cloud-config\n\ta: b\n")
    assert "not YAML" in refused(lab).details


def test_a_machine_that_boots_its_disk_is_not_kept_from_it(lab: Lab) -> None:
    (lab.home.templates / "user-data.j2").write_text("{{ nonsense }}")
    write_definition(lab.home.vms, MACHINE)
    refused(lab)
    for state, resume in ((InstallState.INSTALLED, None), (InstallState.RESCUE, InstallState.INSTALLED)):
        status = MachineStatus(name="web1", uuid=MACHINE.uuid, state=state, resume=resume, installs=1)
        (lab.home.status / "web1.json").write_text(document.dumps(status))
        require_documents(lab, MACHINE)
    orders.give(lab, MACHINE, OrderKind.RESCUE)
    require_documents(lab, MACHINE)
    orders.give(lab, MACHINE, OrderKind.REINSTALL)
    refused(lab)


def test_a_machine_with_nothing_of_ones_own_loads_no_parser(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = ("jsonschema", "yaml", "pykickstart", "jinja2", "zstandard", "cli.render_checks")
    for name in list(sys.modules):
        if name.startswith(heavy):
            monkeypatch.delitem(sys.modules, name)
    really = builtins.__import__

    def load(name: str, *more: Any, **values: Any) -> Any:
        assert not name.startswith(heavy), f"{name} is imported"
        return really(name, *more, **values)

    monkeypatch.setattr(builtins, "__import__", load)
    for machine in (MACHINE, native(Installer.KICKSTART)):
        require_documents(lab, machine)


# What the verbs do with it.


@pytest.fixture
def bad_template(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    """A lab with a template at fault. :returns: what tells all files of the lab that are no keys or locks."""
    monkeypatch.setattr(target, "make_key", lambda *_, **__: HOST_KEY)
    monkeypatch.setattr(target, "_package_sources", lambda _: ())  # asks apt
    monkeypatch.setattr("lab.ssh.lab_key", lambda _: type("Key", (), {"read_public": lambda _: "ssh-ed25519 A x"})())
    (lab.home.templates / "user-data.j2").write_text("#cloud-config\nhostname: [a]\n")

    def files() -> set[str]:
        folders = (lab.home.vms, lab.home.disks, lab.home.status)
        return {
            path.name for folder in folders for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
        }

    return files


def test_nothing_is_created(lab: Lab, bad_template: Callable[[], set[str]]) -> None:
    before = bad_template()
    with pytest.raises(ConflictError, match=r"web1 cannot be installed with user-data\.j2") as caught:
        machine_verbs.create("web1", distro="debian-12", arch="x86_64", hardware=HardwareWords())
    assert caught.value.resolution == f"repair {lab.home.templates / 'user-data.j2'}"  # there is no web1 to render for
    with pytest.raises(ConflictError, match="web1 cannot be installed"):
        boot_verbs.adopt(["52:54:00:aa:bb:01"], name="web1", distro="debian-12", arch="x86_64", ip="")
    assert bad_template() == before


class Builder:
    """Notes what it is asked to build. :ivar then: is called when it is asked."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.asked, self.then = 0, then

    def ensure_for(self, *_: object) -> None:
        self.asked += 1
        self.then()

    def ensure_provisioner(self) -> None:
        raise AssertionError("a provisioner is built")


def test_nothing_is_built_or_started(
    lab: Lab, bad_template: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder()

    def up() -> None:
        journey.up(
            lab, name="web1", distro=None, reporter=None, artifacts=builder,  # type: ignore[arg-type]
            check=lambda machine: require_documents(lab, machine),
        )  # fmt: skip

    with pytest.raises(ConflictError, match="cannot be installed"):
        up()
    assert bad_template() == set()
    write_definition(lab.home.vms, MACHINE)
    with pytest.raises(ConflictError, match="cannot be installed"):
        up()
    monkeypatch.setattr(machine_verbs, "DoitArtifacts", lambda: builder)
    with pytest.raises(ConflictError, match="cannot be installed"):
        machine_verbs.start("web1", wait=False, timeout=None)
    assert builder.asked == 0


def test_a_running_machine_is_not_stopped_for_a_start_that_cannot_be(
    lab: Lab, bad_template: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise AssertionError("it is stopped")

    monkeypatch.setattr("lab.machine.Machine.stop", stop)
    write_definition(lab.home.vms, MACHINE)
    with pytest.raises(ConflictError, match="cannot be installed"):
        machine_life_verbs.restart("web1", force=False, wait=False, stop_timeout=1, timeout=None)


def test_a_lab_file_makes_nothing(
    lab: Lab, bad_template: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    builder = Builder()
    monkeypatch.setattr(lab_verbs, "DoitArtifacts", lambda *_: builder)
    file = tmp_path / "lab.yaml"
    file.write_text("version: 1\nnetwork: {subnet: 10.9.0.0/24}\nmachines: {web1: }\n")
    (lab.home.templates / "network-config.j2").write_text(
        "{% if lan.subnet != '10.9.0.0/24' %}{{ nonsense }}{% endif %}\nversion: 2\n"  # right in the file's network
    )
    before = bad_template()

    def up() -> ConflictError:
        with pytest.raises(ConflictError) as caught:
            lab_verbs.up([str(file)], recreate=False, prune=False, yes=False, jobs=0, timeout=None)
        return caught.value

    assert up().brief == "web1 cannot be installed with user-data.j2"
    (lab.home.templates / "user-data.j2").unlink()
    (lab.home.templates / "network-config.j2").unlink()
    file.write_text('version: 1\nmachines: {web1: {user-data: "#cloud-config\\nhostname: [a]\\n"}}\n')
    assert "its user-data: hostname: ['a'] is not of type 'string'" in up().details
    assert (builder.asked, bad_template()) == (0, before)


def test_what_can_be_checked_only_when_all_is_built_is_checked_then(
    lab: Lab, bad_template: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = lab.cache.root / "images/debian-12/x86_64/rootfs.tar.zst"
    archive.unlink()
    write_definition(lab.home.vms, MACHINE)
    builder = Builder(lambda: write_rootfs(archive))
    monkeypatch.setattr(machine_verbs, "DoitArtifacts", lambda: builder)
    with pytest.raises(ConflictError, match="cannot be installed"):
        machine_verbs.start("web1", wait=False, timeout=None)
    assert builder.asked == 1
    assert bad_template() == {"web1.json"}
