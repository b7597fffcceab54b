"""Answer documents: whole, quoted, and in the grammar of their readers."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from contracts import nocloud
from contracts.answers import DOCUMENTS, MAIN, MAX_OWN_BYTES
from contracts.machine import AnswerFile, Installer, VmDefinition
from pxeboot_stack.boot_handler import answers, sandbox
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import make_machine, make_settings

TOKEN = "0123456789abcdef" * 2
GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack/answers"
SOURCES = (
    "deb http://mirror.example/debian trixie main",
    "deb http://mirror.example/debian trixie-updates main",
    "deb http://security.example/debian-security trixie-security main",
)
MACHINES: dict[Installer, VmDefinition] = {
    Installer.PRESEED: make_machine(distro="debian-13", installer=Installer.PRESEED, package_sources=SOURCES),
    Installer.AUTOINSTALL: make_machine(distro="ubuntu-24.04", installer=Installer.AUTOINSTALL),
    Installer.KICKSTART: make_machine(
        distro="rocky-10", installer=Installer.KICKSTART, repository="https://mirror.example/rocky/10/BaseOS/x86_64/os/"
    ),
}
OURS = [
    (kind, name)
    for kind in MACHINES
    for name in DOCUMENTS[kind]
    if name != "own.cfg" and name not in {"meta-data", "vendor-data"}
]


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


def own(lab: Settings, kind: Installer, text: str | bytes, *, how: AnswerFile = AnswerFile.VERBATIM) -> VmDefinition:
    """Return a machine with an answer file of its own."""
    data = text if isinstance(text, bytes) else text.encode()
    (lab.vms / "web1.answers").write_bytes(data)
    return make_machine(installer=kind, answer_file=how, package_sources=SOURCES)


def changed(machine: VmDefinition, **values: Any) -> VmDefinition:
    """Return a copy with *values* that no definition could have: past all its checks."""
    copy = object.__new__(VmDefinition)
    for name in VmDefinition.__dataclass_fields__:
        object.__setattr__(copy, name, values.get(name, getattr(machine, name)))
    return copy


@pytest.mark.parametrize(("kind", "name"), OURS)
def test_every_document_is_the_golden_one(lab: Settings, kind: Installer, name: str) -> None:
    assert answers.render(MACHINES[kind], name, lab, token=TOKEN) == (GOLDEN / f"{kind}.{name}").read_text()


def test_every_golden_file_is_of_a_document() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{kind}.{name}" for kind, name in OURS}


def test_nocloud_documents_are_those_of_pvmlabs_own_installs(lab: Settings) -> None:
    machine = MACHINES[Installer.AUTOINSTALL]
    for name in ("meta-data", "vendor-data"):
        assert answers.render(machine, name, lab, token=TOKEN) == nocloud.DOCUMENTS[name](machine, lab.lan)


@pytest.mark.parametrize("kind", list(Installer))
@pytest.mark.parametrize("name", ["", "passwd", "../preseed.cfg", "preseed.cfg.j2", "ks-end.cfg", "own.cfg"])
def test_there_are_no_other_documents(lab: Settings, kind: Installer, name: str) -> None:
    with pytest.raises(Refusal, match="no answer document") as caught:
        answers.render(MACHINES.get(kind, make_machine()), name, lab, token=TOKEN)
    assert caught.value.status == 404


@pytest.mark.parametrize("version", ["F43", "F44", "RHEL9", "RHEL10"])
def test_kickstart_is_understood_by_its_own_parser(lab: Settings, version: str) -> None:
    parser = KickstartParser(makeVersion(version))
    parser.readKickstartFromString(answers.render(MACHINES[Installer.KICKSTART], "ks.cfg", lab, token=TOKEN))
    handler = parser.handler
    assert handler.rootpw.lock
    assert (handler.user.userList[0].name, handler.user.userList[0].lock) == ("lab", True)
    assert handler.sshkey.sshUserList[0].key == "ssh-ed25519 AAAAlabkey lab"
    assert handler.ignoredisk.onlyuse == ["nvme0n1"]
    assert handler.network.network[0].hostname == "web1.pvmlab.local"
    assert handler.url.url == MACHINES[Installer.KICKSTART].repository
    assert handler.packages.groupList[0].name == "core"


def test_autoinstall_is_yaml_and_carries_the_usual_user_data(lab: Settings) -> None:
    machine = MACHINES[Installer.AUTOINSTALL]
    text = answers.render(machine, "user-data", lab, token=TOKEN)
    assert text.startswith("#cloud-config\n")
    wanted = yaml.safe_load(text)["autoinstall"]
    assert wanted["version"] == 1
    assert wanted["storage"]["layout"]["match"] == {"path": "/dev/nvme0n1"}
    assert wanted["user-data"] == yaml.safe_load(nocloud.render_user_data(machine, lab.lan))
    assert " bootloader done 100 " in wanted["late-commands"][-1]


def test_preseed_has_one_question_a_line(lab: Settings) -> None:
    """In the grammar of debconf-set-selections(1): owner, question, type, value; blanks and comments between."""
    lines = answers.render(MACHINES[Installer.PRESEED], "preseed.cfg", lab, token=TOKEN).splitlines()
    known = {"string", "boolean", "select", "multiselect", "password", "note"}
    for line in filter(None, lines):
        if not line.startswith("#"):
            owner, question, kind = line.split(maxsplit=3)[:3]
            assert owner in {"d-i", "tasksel", "popularity-contest"}
            assert re.fullmatch(r"[a-z0-9_-]+(/[A-Za-z0-9_-]+)+", question)
            assert kind in known
    assert not any(line.endswith("\\") for line in lines)


@pytest.mark.parametrize("kind", list(MACHINES))
def test_no_document_but_those_that_install_it_holds_the_host_key(lab: Settings, kind: Installer) -> None:
    holders = {
        name
        for name in DOCUMENTS[kind]
        if name != "own.cfg" and "THE-SECRET" in answers.render(MACHINES[kind], name, lab, token=TOKEN)
    }
    assert holders == ({"user-data"} if kind is Installer.AUTOINSTALL else {"late.sh"})


HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "a'b",
        'a"b',
        "a\nd-i x/y string z",
        "$(reboot)",
        "`reboot`",
        "a\\",
        "{{ 7 }}",
        "%end",
        "a; reboot",
        "END_OF_KEYS",
        "a b",
    ]
)


FIELDS = {  # what each document says of a machine
    "user": ("late.sh", "ks.cfg", "user-data"),
    "mac": ("report.sh", "ks.cfg", "user-data"),
    "distro": ("hooks.sh",),
    "repository": ("ks.cfg",),
    "name": ("preseed.cfg", "hooks.sh", "late.sh", "report.sh", "ks.cfg", "user-data"),
}


@pytest.mark.parametrize("field", list(FIELDS))
@given(value=HOSTILE)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
def test_no_value_becomes_a_command(lab: Settings, field: str, value: str) -> None:
    """Even past the validation of definitions: a value is refused, or its document keeps its shape."""
    for kind, name in OURS:
        if name in FIELDS[field]:
            try:
                text = answers.render(changed(MACHINES[kind], **{field: value}), name, lab, token=TOKEN)
            except (Refusal, ValueError):
                continue
            assert _shape(name, text) == _shape(name, (GOLDEN / f"{kind}.{name}").read_text())


def _shape(name: str, text: str) -> object:
    """Return what of a document no value may change: the words of each line, or the keys."""
    if name == "user-data":
        return _keys(yaml.safe_load(text))
    if name == "preseed.cfg":
        return [line.split()[:3] for line in text.split("\n") if not line.startswith("#")]
    return [_words(line) for line in text.split("\n")]


def _words(line: str) -> object:
    try:
        return len(shlex.split(line.removesuffix("\\"), comments=True))
    except ValueError:  # quotes that end in another line: nothing of the machine stands there
        return line


def _keys(data: object) -> object:
    if isinstance(data, dict):
        return {key: _keys(value) for key, value in data.items()}
    return len(data) if isinstance(data, list) else None


@pytest.mark.parametrize("key", ["ssh-ed25519 AAAA a\nEND_OF_KEYS\nreboot", "ssh-ed25519 AAAA a\rb", "END_OF_KEYS\n"])
def test_a_key_of_two_lines_is_refused(lab: Settings, key: str) -> None:
    machine = changed(MACHINES[Installer.PRESEED], ssh_authorized_keys=(key,))
    with pytest.raises(Refusal, match="not one plain line"):
        answers.render(machine, "late.sh", lab, token=TOKEN)


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("sh", "a'b $c", "'a'\"'\"'b $c'"),
        ("ks", "a b", "'a b'"),
        ("json", 'a"\n', '"a\\"\\n"'),
        ("preseed", "a 'b", "a 'b"),
        ("word", "a/b:c", "a/b:c"),
        ("line", " a", " a"),
        ("comment", "a", "a"),
    ],
)
def test_filters_quote(name: str, value: str, result: str) -> None:
    assert answers.FILTERS[name](value) == result


@pytest.mark.parametrize(
    ("name", "value"),
    [("ks", "a\nb"), ("preseed", "a\nb"), ("preseed", "a\\"), ("word", "a b"), ("word", ""), ("word", "a\n"),
     ("line", "a\r"), ("comment", "\x1b")],
)  # fmt: skip
def test_filters_refuse_what_they_cannot_quote(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"is not one plain line|ends in a backslash|not one plain word"):
        answers.FILTERS[name](value)


def test_a_value_without_a_filter_does_not_render() -> None:
    environment = sandbox._environment(strict=True)
    with pytest.raises(TypeError, match="without a filter"):
        environment.from_string("{{ name }}").render(name="web1")
    assert environment.from_string("{{ name | word }}").render(name="web1") == "web1"


def test_an_unknown_value_does_not_render() -> None:
    with pytest.raises(TemplateError, match="'nmae' is undefined"):
        sandbox._environment(strict=True).from_string("{{ nmae | word }}").render()


def test_a_mirror_that_is_missing_is_said(lab: Settings) -> None:
    with pytest.raises(Refusal, match="the answer file of web1 cannot be used: UndefinedError") as caught:
        answers.render(make_machine(installer=Installer.PRESEED), "preseed.cfg", lab, token=TOKEN)
    assert caught.value.status == 500


def test_an_own_preseed_is_included_and_the_lab_is_still_told(lab: Settings) -> None:
    machine = own(lab, Installer.PRESEED, "d-i my/own string {{ not a template }}\n")
    assert answers.render(machine, "own.cfg", lab, token=TOKEN) == "d-i my/own string {{ not a template }}\n"
    wrapper = answers.render(machine, "preseed.cfg", lab, token=TOKEN).splitlines()
    assert [line for line in wrapper if not line.startswith("#")] == [
        "d-i preseed/include string own.cfg", "d-i preseed/run string hooks.sh",
    ]  # fmt: skip


def test_an_own_kickstart_gets_what_tells_its_end(lab: Settings) -> None:
    mine = "text\nrootpw --lock\n%packages\n@core\n%end\n"
    text = answers.render(own(lab, Installer.KICKSTART, mine), "ks.cfg", lab, token=TOKEN)
    assert text.startswith(mine)
    assert "bootloader done 100" in text
    parser = KickstartParser(makeVersion("RHEL10"))
    parser.readKickstartFromString(text)
    assert len(parser.handler.scripts) == 2


def test_an_own_autoinstall_is_served_as_it_is(lab: Settings) -> None:
    mine = "#cloud-config\nautoinstall: {version: 1}\n"
    assert answers.render(own(lab, Installer.AUTOINSTALL, mine), "user-data", lab, token=TOKEN) == mine


def test_an_own_template_gets_the_documented_values(lab: Settings) -> None:
    mine = (
        "{{ machine.name }} {{ machine.fqdn }} {{ machine.mac }} {{ machine.ip }} {{ machine.disk }} "
        "{{ machine.user }} {{ lan.provisioner }} {{ urls.answers }} {{ urls.report }} {{ mirror.host }}\n"
        "{{ report.done('x') }}\n"
        "{{ machine.ssh_authorized_keys | join(',') }}\n{{ machine.ssh_host_key.public | json }}\n"
    )
    text = answers.render(own(lab, Installer.PRESEED, mine, how=AnswerFile.TEMPLATE), "own.cfg", lab, token=TOKEN)
    assert text.splitlines()[0] == (
        "web1 web1.pvmlab.local 52:54:00:aa:bb:01 192.168.100.11 /dev/nvme0n1 lab 192.168.100.1 "
        f"http://192.168.100.1/m/{TOKEN}/answers/ http://192.168.100.1/m/{TOKEN}/report mirror.example"
    )
    assert (
        "http://192.168.100.1/m/0123456789abcdef0123456789abcdef/answers/report.sh | sh -s -- bootloader done 100 x"
        in text
    )
    assert json.loads(text.splitlines()[3]) == "ssh-ed25519 AAAAhostkey web1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{ machine.nmae }}", "UndefinedError.*has no attribute 'nmae'"),
        ("a\n{% if %}", r"TemplateSyntaxError \(line 2\)"),
        ("{{ ''.__class__.__mro__ }}", "SecurityError"),
        ("{{ machine.update({}) }}", "SecurityError"),
        ("{% include '/etc/passwd' %}", "TypeError|TemplateNotFound"),
        ("{% include 'late.sh.j2' %}", "TypeError|TemplateNotFound"),
        ("{{ report.done.__globals__ }}", "SecurityError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ range(999999999) | list }}", r"TooMuchError \(line 1\): its loops take more than"),
        ("{% for i in range(2000) %}" + "x" * 1000 + "{% endfor %}", "longer than"),
        ("{{ machine.name | nonsense }}", "TemplateAssertionError"),
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused_with_its_reason(lab: Settings, text: str, reason: str) -> None:
    machine = own(lab, Installer.KICKSTART, text, how=AnswerFile.TEMPLATE)
    for call in (lambda: answers.render(machine, "ks.cfg", lab, token=TOKEN), lambda: answers.check(machine, lab)):
        with pytest.raises(Refusal, match=reason) as caught:
            call()
        assert caught.value.status == 500
        assert "\n" not in caught.value.sentence
        assert "THE-SECRET" not in caught.value.sentence


@pytest.mark.parametrize(
    ("data", "reason"),
    [(None, "cannot be read: No such file"), (b"\xff", "not UTF-8"), (b"x" * (MAX_OWN_BYTES + 1), "longer than")],
)
def test_an_own_file_that_cannot_be_used_is_refused(lab: Settings, data: bytes | None, reason: str) -> None:
    machine = own(lab, Installer.PRESEED, data or b"")
    if data is None:
        (lab.vms / "web1.answers").unlink()
    with pytest.raises(Refusal, match=reason):
        answers.check(machine, lab)


@pytest.mark.parametrize("kind", list(MACHINES))
def test_the_main_document_is_one_of_the_documents(kind: Installer) -> None:
    assert MAIN[kind] in DOCUMENTS[kind]


@pytest.mark.parametrize("how", [AnswerFile.VERBATIM, AnswerFile.TEMPLATE])
def test_the_address_that_an_own_file_knows_becomes_the_one_of_this_boot(lab: Settings, how: AnswerFile) -> None:
    mine = (
        "#cloud-config\n- curl -sf http://192.168.100.1/answers/web1/report.sh\n- http://192.168.100.1/answers/web2/x\n"
    )
    text = answers.render(own(lab, Installer.AUTOINSTALL, mine, how=how), "user-data", lab, token=TOKEN)
    assert f"- curl -sf http://192.168.100.1/m/{TOKEN}/answers/report.sh\n" in text
    assert "http://192.168.100.1/answers/web2/x" in text  # another machine's is none of its business
