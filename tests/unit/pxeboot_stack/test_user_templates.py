"""A person's templates: which one counts, what it may use, and what happens when it cannot be used."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from contracts.answers import MAIN
from contracts.machine import AnswerFile, Installer, SshHostKey, VmDefinition
from contracts.templates import MAX_TEMPLATE_BYTES, What, answers_of, template_names
from contracts.tokens import ignition_path
from pipeline.workspace import REPOSITORY
from pxeboot_stack.boot_handler import documents, sandbox, user_templates
from pxeboot_stack.boot_handler.context import context
from pxeboot_stack.boot_handler.quoting import FILTERS
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts

TOKEN = "0123456789abcdef" * 2
MACHINE = make_machine()
OTHER = make_machine(
    name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="00000000-0000-4000-8000-000000000002"
)
SOURCES = ("deb http://mirror.example/debian trixie main",)
SEED = {What.USER_DATA, What.META_DATA, What.NETWORK_CONFIG, What.VENDOR_DATA}
GOOD = {
    What.IPXE: "#!ipxe\necho {{ machine.name }}\n",
    What.META_DATA: "instance-id: {{ machine.name }}\n",
    What.IGNITION: '{"ignition": {"version": "3.4.0"}, "name": {{ machine.name | json }}}\n',
}


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    return made


def write(lab: Settings, name: str, text: str) -> None:
    (lab.templates / name).write_text(text)


def machine_of(what: What) -> VmDefinition:
    """Return a machine that *what* is for."""
    kind = next((kind for kind in Installer if answers_of(kind) is what), Installer.PVMLAB)
    return make_machine(installer=kind, package_sources=SOURCES, repository="http://mirror.example/os/")


def made(machine: VmDefinition, what: What, lab: Settings) -> str:
    """Return what the machine gets, by the way that it gets it."""
    if what is What.IPXE:
        return documents.boot_script(machine, lab, token=TOKEN)
    path = {
        What.PRESEED: "answers/own.cfg", What.KICKSTART: "answers/ks.cfg", What.AUTOINSTALL: "answers/user-data",
        What.IGNITION: "ignition",
    }.get(what, f"cloud-init/{what}")  # fmt: skip
    return documents.render(machine, path, lab, token=TOKEN).body


def refusal(call: Callable[[], object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    assert "\n" not in caught.value.sentence
    return caught.value


@pytest.mark.parametrize("what", list(What))
def test_a_machines_own_template_comes_before_the_one_for_all(lab: Settings, what: What) -> None:
    machine, text = machine_of(what), GOOD.get(what, "# {{ machine.name }}\n")
    write(lab, f"{what}.j2", text.replace("machine.name", "(machine.name ~ '-all')"))
    assert "web1-all" in made(machine, what, lab)
    write(lab, f"web1.{what}.j2", text.replace("machine.name", "(machine.name ~ '-own')"))
    assert "web1-own" in made(machine, what, lab)
    (lab.templates / f"web1.{what}.j2").unlink()
    (lab.templates / f"{what}.j2").unlink()
    if what not in {What.IGNITION, What.PRESEED}:  # there are none without
        assert "web1-" not in made(machine, what, lab).replace("web1-all", "!").replace("web1-own", "!")


@pytest.mark.parametrize("name", ["web2.user-data.j2", "web1.user-data", "web1user-data.j2", "WEB1.user-data.j2",
                                  ".user-data.j2", "web1..user-data.j2", "x.web1.user-data.j2"])  # fmt: skip
def test_no_other_file_is_taken_for_it(lab: Settings, name: str) -> None:
    write(lab, name, "#cloud-config\n# not for web1\n")
    assert "not for web1" not in made(MACHINE, What.USER_DATA, lab)


def test_the_names_of_two_templates_are_never_the_same() -> None:
    names = [
        name for machine in ("ipxe", "user-data", "web1") for what in What for name in template_names(machine, what)
    ]
    own = [name for name in names if name.count(".") == 2]
    assert len(own) == len(set(own)) == 3 * len(What)
    assert set(names) - set(own) == {f"{what}.j2" for what in What}


@pytest.mark.parametrize("what", [what for what in What if what is not What.IGNITION])
def test_standard_is_the_document_as_it_is_without(lab: Settings, what: What) -> None:
    machine = machine_of(what)
    plain = made(machine, what, lab) if what is not What.PRESEED else ""
    write(lab, f"{what}.j2", "{{ standard() }}# mine\n")
    text = made(machine, what, lab)
    assert text.startswith(plain[:40])
    assert "# mine" in text
    if what is What.KICKSTART:
        assert text.count("bootloader done 100") == 1
        KickstartParser(makeVersion("RHEL10")).readKickstartFromString(text)
    elif what is What.PRESEED:
        wrapper = documents.render(machine, f"answers/{MAIN[Installer.PRESEED]}", lab, token=TOKEN).body
        assert (wrapper + text).count("preseed/run string hooks.sh") == 1
        assert "d-i preseed/include string own.cfg" in wrapper
    else:
        assert text == f"{plain}# mine\n"


def test_a_templates_seed_is_what_cloud_init_reads(lab: Settings) -> None:
    write(lab, "user-data.j2", "#cloud-config\nhostname: {{ machine.name | json }}\nkeys: {{ machine.nics | json }}\n")
    data = yaml.safe_load(made(MACHINE, What.USER_DATA, lab))
    assert data == {"hostname": "web1", "keys": [{"mac": MACHINE.mac, "ip": MACHINE.ip, "ipv6": ""}]}


def test_ignition_is_served_below_the_token(lab: Settings) -> None:
    error = refusal(lambda: documents.render(MACHINE, "ignition", lab, token=TOKEN))
    assert (error.status, "ignition.j2" in error.sentence) == (404, True)
    write(lab, "ignition.j2", '{"ignition": {"version": "3.4.0"}, "self": {{ urls.ignition | json }}}')
    answer = documents.render(MACHINE, "ignition", lab, token=TOKEN)
    assert answer.media_type == "application/json"
    assert json.loads(answer.body)["self"] == f"http://192.168.100.1{ignition_path(TOKEN)}"


@pytest.mark.parametrize(
    ("what", "text", "reason"),
    [
        (What.USER_DATA, "{{ machine.nmae }}", r"UndefinedError \(line 1\): .*nmae"),
        (What.USER_DATA, "a\n{% if %}", r"TemplateSyntaxError \(line 2\)"),
        (What.USER_DATA, "{{ machine.__class__.__mro__ }}", "SecurityError|UndefinedError"),
        (What.USER_DATA, "{{ standard.__globals__ }}", "SecurityError"),
        (What.USER_DATA, "{{ machine.ssh_authorized_keys.append }}", "UndefinedError"),
        (What.USER_DATA, "{% include 'user-data.j2' %}", "TypeError|no loader"),
        (What.USER_DATA, "{% for i in range(100001) %}x{% endfor %}", "more than 100000 steps"),
        (What.USER_DATA, "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}", "steps"),
        (What.USER_DATA, "{{ 'x' * 99999999 }}", "more than 1048576 pieces"),
        (What.USER_DATA, "{{ [0] * 99999999 }}", "more than 1048576 pieces"),
        (What.USER_DATA, "{{ '%999999999d' % 1 }}", "any width"),
        (What.USER_DATA, "{{ 9 ** 9999999 }}", "no document needs"),
        (What.USER_DATA, "{{ 'x'.ljust(999999999) }}", "SecurityError"),
        (What.USER_DATA, "{{ 'x' | center(999999999) }}", "No filter named 'center'"),
        (What.USER_DATA, "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "longer than 1048576"),
        (What.USER_DATA, "{{ machine.name | nonsense }}", "No filter named"),
        (What.USER_DATA, "{{ 'a\\nb' | word }}", "is not one plain word"),
        (What.USER_DATA, "{{ lipsum(n=100000) }}", "'lipsum' is undefined"),
        (What.USER_DATA, "{{ machine | attr('__class__') }}", "UndefinedError|SecurityError"),
        (What.USER_DATA, "{{ mirror.__init__.__globals__ }}", "UndefinedError|SecurityError"),
        (What.USER_DATA, "a\0b", "zero byte"),
        (What.IPXE, "kernel x\n", "does not begin with #!ipxe"),
        (What.META_DATA, "local-hostname: x\n", "no instance-id"),
        (What.IGNITION, "{", "does not make JSON"),
        (What.IGNITION, "[]", "makes no Ignition configuration"),
        (What.IGNITION, '{"ignition": {"version": 3}}', "makes no Ignition configuration"),
        (What.IGNITION, '{"ignition": {"version": "latest"}}', "makes no Ignition configuration"),
    ],
)
def test_a_broken_template_is_an_error_that_names_it(lab: Settings, what: What, text: str, reason: str) -> None:
    write(lab, f"web1.{what}.j2", text)
    for call in (lambda: made(MACHINE, what, lab), lambda: documents.check(MACHINE, lab)):
        error = refusal(call)
        assert error.status == 500
        assert error.sentence.startswith(f"the template web1.{what}.j2 of web1 cannot be used: ")
        assert re.search(reason, error.sentence)
        assert "THE-SECRET" not in error.sentence
    documents.check(OTHER, lab)  # nobody else is touched


@pytest.mark.parametrize("data", [b"\xff", b"x" * (MAX_TEMPLATE_BYTES + 1), None])
def test_a_file_that_cannot_be_read_is_an_error(lab: Settings, data: bytes | None) -> None:
    path = lab.templates / "user-data.j2"
    path.symlink_to("nowhere") if data is None else path.write_bytes(data)
    assert refusal(lambda: documents.check(MACHINE, lab)).status == 500


def test_no_folder_of_templates_is_no_templates(lab: Settings) -> None:
    lab.templates.rmdir()
    documents.check(MACHINE, lab)


def test_a_folder_that_cannot_be_read_is_not_passed_over(lab: Settings) -> None:
    lab.templates.rmdir()
    lab.templates.write_text("no folder")
    assert refusal(lambda: documents.check(MACHINE, lab)).status == 503


@pytest.mark.parametrize("kind", [kind for kind in Installer if kind.is_native])
def test_an_answer_file_of_its_own_comes_before_templates(lab: Settings, kind: Installer) -> None:
    what = What(str(kind))
    write(lab, f"{what}.j2", "# of the template\n")
    machine = make_machine(installer=kind, answer_file=AnswerFile.VERBATIM, package_sources=SOURCES)
    (lab.vms / "web1.answers").write_text("# of the answer file\n")
    assert "# of the answer file" in made(machine, what, lab)
    assert "# of the template" not in made(machine, what, lab)


def test_a_boot_script_of_ones_own_needs_no_artifacts(lab: Settings) -> None:
    for path in lab.images.rglob("*"):
        if path.is_file():
            path.unlink()
    assert refusal(lambda: documents.check(MACHINE, lab)).status == 503
    write(lab, "ipxe.j2", "#!ipxe\nsanboot http://192.168.100.5/disk\n")
    documents.check(MACHINE, lab)


def test_a_template_gets_nothing_of_another_machine(lab: Settings) -> None:
    """All that a template can reach, printed: nothing of the other machine, which the lab has too, is in it."""
    write(
        lab, "user-data.j2", "{{ [machine, lan, urls, mirror, report, system_user_data, own, included, standard()] }}"
    )
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nOF-THE-OTHER\n-----END OPENSSH PRIVATE KEY-----\n"
    other = dataclasses.replace(OTHER, ssh_host_key=SshHostKey(private=private, public="ssh-ed25519 AAAAother web2"))
    for asking, of, key in ((MACHINE, other, "OF-THE-OTHER"), (other, MACHINE, "THE-SECRET")):
        text = made(asking, What.USER_DATA, lab)
        assert asking.uuid in text
        assert not any(secret in text for secret in (of.name, of.mac, f"{of.ip}'", of.uuid, key))


def names_in(values: Any, prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        whole = f"{prefix}{name}"
        if isinstance(value, dict) and name not in {"system_user_data", "ssh_host_key"}:
            yield from names_in(value, f"{whole}.")
        else:
            yield whole


def test_the_documentation_has_every_name_and_no_other(lab: Settings) -> None:
    page = (REPOSITORY / "docs/reference/templates.md").read_text()
    table = page.partition("## Values")[2].partition("## Filters")[0]
    told = {
        re.sub(r"\(.*\)", "", name)
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }
    values = context(machine_of(What.PRESEED), lab, token=TOKEN) | {"own": False, "included": True, "standard": None}
    mirror = values.pop("mirror")
    there = {*names_in(values), *(f"mirror.{name}" for name in dir(mirror) if not name.startswith("_"))}
    assert told == there
    filters = page.partition("## Filters")[2].partition("```")[0]
    assert set(re.findall(r"`(\w+)` \(", filters)) | {"ks", "sh"} == set(FILTERS)
    whats = page.partition("| what |")[2].partition("`--answer-file`")[0]
    assert {name for name in re.findall(r"`([a-z-]+)`", whats) if name in set(What)} == set(What)


def test_bounds_are_those_of_the_documentation() -> None:
    page = (REPOSITORY / "docs/reference/templates.md").read_text()
    assert f"{sandbox.MAX_STEPS:,} steps" in page
    assert (MAX_TEMPLATE_BYTES, sandbox.MAX_RENDERED) == (256 * 1024, 1024 * 1024)
    assert "256 KiB" in page
    assert "make 1 MiB" in page


def test_a_change_counts_at_once(lab: Settings) -> None:
    for number in range(20):
        write(lab, "user-data.j2", f"#cloud-config\n# {number}\n")
        assert f"# {number}" in made(MACHINE, What.USER_DATA, lab)
        (lab.templates / "user-data.j2").unlink()
        assert user_templates.find(MACHINE, What.USER_DATA, lab) is None


def test_a_named_pipe_holds_up_nobody(lab: Settings) -> None:
    os.mkfifo(lab.templates / "user-data.j2")
    with pytest.raises(Refusal, match="it is no regular file"):
        user_templates.read(lab.templates / "user-data.j2", "the template user-data.j2", MACHINE)
