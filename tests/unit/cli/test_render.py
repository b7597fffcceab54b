"""``render``: what a machine would get, on the host; and whether its reader would take it."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pykickstart.parser  # noqa: F401 (here, as its imports try out a socket, which no unit test may)
import pytest
import zstandard

from cli import render_checks, render_verbs
from cli.render_checks import check_document
from contracts.machine import Installer, VmDefinition
from contracts.templates import What
from lab.lab import Lab
from pipeline.errors import ConflictError, MissingProgramError, NotFoundError, PrerequisiteError, UsageError
from pxeboot_stack.boot_handler import documents
from tests.fakes.lab_files import make_machine, write_artifacts, write_definition

SOURCES = ("deb http://mirror.example/debian trixie main",)
SCHEMA = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {"hostname": {"type": "string"}, "users": {"anyOf": [{"type": "array"}, {"type": "string"}]}},
    "additionalProperties": {"type": ["boolean", "array", "object", "string"]},
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    lab = Lab.from_environment()
    for folder in (lab.home.vms, lab.home.templates):
        folder.mkdir(parents=True)
    write_artifacts(render_verbs.settings_of(lab))
    define(lab, make_machine())
    return lab


def define(lab: Lab, machine: VmDefinition) -> VmDefinition:
    write_definition(lab.home.vms, machine)
    return machine


def native(kind: Installer, **more: Any) -> VmDefinition:
    return make_machine(installer=kind, package_sources=SOURCES, repository="http://mirror.example/os/", **more)


def write_rootfs(lab: Lab, *, schema: object = SCHEMA, name: str = "schema-cloud-config-v1.json") -> None:
    """Write a root filesystem that has cloud-init's schema in it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path, data in (
            ("./usr/lib/python3/dist-packages/cloudinit/config/modules.py", b"x"),
            (f"./usr/lib/python3/dist-packages/cloudinit/config/schemas/{name}", json.dumps(schema).encode()),
            ("./usr/lib/zzz", b"y"),
        ):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    target = lab.cache.root / "images/debian-12/x86_64/rootfs.tar.zst"
    target.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    render_checks.read_schemas.cache_clear()


def printed(capsys: pytest.CaptureFixture[str], what: str, **more: Any) -> str:
    render_verbs.render("web1", what=what, **more)
    return capsys.readouterr().out


@pytest.mark.parametrize("what", ["ipxe", "config", "user-data", "meta-data", "network-config", "vendor-data"])
def test_it_prints_what_the_boot_handler_serves(lab: Lab, capsys: pytest.CaptureFixture[str], what: str) -> None:
    machine, settings = make_machine(), render_verbs.settings_of(lab)
    path = what if what == "config" else f"cloud-init/{what}"
    served = (
        documents.boot_script(machine, settings, token="TOKEN")
        if what == "ipxe"
        else documents.render(machine, path, settings, token="TOKEN").body
    )
    assert printed(capsys, what, secrets=True) == served


def test_secrets_are_masked_unless_they_are_asked_for(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert "THE-SECRET" not in (text := printed(capsys, "user-data"))
    assert "(shown with --secrets)" in text
    assert "THE-SECRET" in printed(capsys, "user-data", secrets=True)
    assert "/m/TOKEN/config" in printed(capsys, "ipxe", secrets=True)


@pytest.mark.parametrize("kind", [kind for kind in Installer if kind.is_native])
def test_answer_files(lab: Lab, capsys: pytest.CaptureFixture[str], kind: Installer) -> None:
    define(lab, native(kind))
    text = printed(capsys, kind)
    assert "THE-SECRET" not in text
    assert "web1" in text
    (lab.home.templates / f"{kind}.j2").write_text("# mine, of {{ machine.name }}\n")
    assert "# mine, of web1" in printed(capsys, kind)


def test_json_names_the_template(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    (lab.home.templates / "web1.meta-data.j2").write_text("instance-id: mine\n")
    data = json.loads(printed(capsys, "meta-data", check=True, output="json"))["document"]
    assert (data["machine"], data["what"], data["template"]) == ("web1", "meta-data", "web1.meta-data.j2")
    assert data["text"] == "instance-id: mine\n"
    assert data["checked"] == {"by": "it is YAML with an instance-id", "faults": []}
    assert json.loads(printed(capsys, "config", output="json"))["document"]["template"] == ""


@pytest.mark.parametrize(
    ("name", "what", "output", "kind", "complaint"),
    [
        ("web1", "nonsense", "table", UsageError, "--what 'nonsense' is unknown"),
        ("web1", "", "table", UsageError, "say what to render"),
        ("web1", "ipxe", "xml", UsageError, "--output 'xml' is unknown"),
        ("web1", "preseed", "table", UsageError, "installed by pvmlab, not by preseed"),
        ("web1", "ignition", "table", NotFoundError, "no template ignition.j2"),
        ("web9", "ipxe", "table", NotFoundError, "there is no machine 'web9'"),
        ("../web1", "ipxe", "table", UsageError, "not a machine name"),
    ],
)
def test_what_cannot_be_rendered_is_said(
    lab: Lab, name: str, what: str, output: str, kind: type[Exception], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        render_verbs.render(name, what=what, output=output)


def test_a_missing_artifact_is_said(lab: Lab) -> None:
    (lab.cache.root / "initrds/x86_64/initrd.gz.json").unlink()
    with pytest.raises(PrerequisiteError, match=r"initrd\.gz"):
        render_verbs.render("web1", what="config")


def faults(lab: Lab, what: str, text: str, machine: VmDefinition | None = None) -> tuple[str, tuple[str, ...]]:
    found = check_document(what, text, machine or make_machine(), lab.cache)
    return found.by, found.faults


def test_user_data_is_checked_by_the_schema_of_the_release(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jsonschema")
    write_rootfs(lab)
    assert faults(lab, "user-data", "#cloud-config\nhostname: a\n") == (
        "right, by the schema of cloud-init in debian-12", (),
    )  # fmt: skip
    by, found = faults(lab, "user-data", "#cloud-config\nhostname: 7\nusers: 8\n")
    assert by == "wrong, by the schema of cloud-init in debian-12"
    assert found[0] == "hostname: 7 is not of type 'string'"
    assert found[1].startswith("users: 8 is not")
    render_verbs.render("web1", what="user-data", check=True)
    assert "right, by the schema" in capsys.readouterr().err
    (lab.home.templates / "user-data.j2").write_text("#cloud-config\nhostname: [a]\n")
    with pytest.raises(ConflictError, match=r"the template user-data\.j2 is at fault for web1") as caught:
        render_verbs.render("web1", what="user-data", check=True)
    assert "hostname: ['a'] is not of type 'string'" in caught.value.details


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hostname: a\n", "begins with neither #cloud-config nor"),
        ("#cloud-config\n- a\n", "it is a list, not a mapping"),
        ("#cloud-config\n\ta: b\n", "not YAML"),
        ("#cloud-config\na: !!python/object:os.system x\n", "not YAML"),
        ("#cloud-config\na: 2024-13-01\n", "not YAML: month must be in 1..12"),
        ("#cloud-config\na: " + "[" * 3000, "not YAML"),
        ("", "begins with neither"),
    ],
)
def test_what_cloud_init_would_ignore_is_a_fault(lab: Lab, text: str, fault: str) -> None:
    assert fault in faults(lab, "user-data", text)[1][0]


def test_what_is_not_checked_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not checked: it begins with #!/bin/sh" in faults(lab, "user-data", "#!/bin/sh\ntrue\n")[0]
    render_checks.read_schemas.cache_clear()
    assert "schema was not to be had" in faults(lab, "user-data", "#cloud-config\na: b\n")[0]  # no real archive
    write_rootfs(lab)
    assert "debian-12 has no schema for it" in faults(lab, "network-config", "version: 2\n")[0]
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert "without the Python package jsonschema" in faults(lab, "user-data", "#cloud-config\na: b\n")[0]
    monkeypatch.setitem(sys.modules, "pykickstart.parser", None)
    assert "pykickstart is not installed" in faults(lab, "kickstart", "text\n")[0]


@pytest.mark.parametrize(
    ("what", "text", "fault"),
    [
        (What.NETWORK_CONFIG, "ethernets: {}\n", "version: neither 1 nor 2"),
        (What.NETWORK_CONFIG, "[", "not YAML"),
        (What.META_DATA, "a: b\n", "instance-id: missing"),
        (What.META_DATA, "[]\n", "it is a list"),
        (What.AUTOINSTALL, "#cloud-config\nautoinstall: {version: 2}\n", "autoinstall.version: not 1"),
        (What.AUTOINSTALL, "autoinstall: {version: 1}\n", "does not begin with #cloud-config"),
        (What.PRESEED, "d-i netcfg/x sting a\n", "line 1: not OWNER QUESTION TYPE VALUE"),
        (What.PRESEED, "# good\nd-i a/b string c \\\n d\nnonsense\n", "not OWNER QUESTION TYPE VALUE: nonsense"),
        (What.KICKSTART, "nonsense --x\n", "Unknown command: nonsense"),
        ("config", '{"schema": 1}', "missing key 'rootfs'"),
    ],
)
def test_faults_of_other_documents_are_said(lab: Lab, what: str, text: str, fault: str) -> None:
    machine = dataclasses.replace(make_machine(), distro="rocky-10")
    assert any(fault in found for found in faults(lab, what, text, machine)[1])


def test_without_debconf_the_form_of_a_preseed_is_checked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(argv: list[str], **_more: object) -> None:
        raise MissingProgramError(argv[0])

    monkeypatch.setattr(render_checks, "run", run)
    assert faults(lab, "preseed", "d-i a/b string c\n") == (
        "it has the form of a preseed; debconf-set-selections is not installed here", (),
    )  # fmt: skip


def test_good_documents_of_all_kinds_have_no_fault(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for what in ("ipxe", "config", "meta-data", "network-config", "vendor-data"):
        render_verbs.render("web1", what=what, check=True)
    define(lab, native(Installer.AUTOINSTALL, distro="ubuntu-24.04"))
    render_verbs.render("web1", what="autoinstall", check=True)
    for distro, dialect in {"rocky-10": "RHEL10", "alma-9": "RHEL9", "fedora-43": "F43"}.items():
        define(lab, native(Installer.KICKSTART, distro=distro))
        render_verbs.render("web1", what="kickstart", check=True)
        assert f"right, by pykickstart ({dialect})" in capsys.readouterr().err
