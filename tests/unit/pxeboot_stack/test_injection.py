"""30,000 generated names, arguments and paths: none becomes a command, a line, a key or a file of its own.

What a definition accepts is rendered into everything that is made of it, and read back by a parser: json, PyYAML,
pykickstart, shlex; for iPXE, dnsmasq's files and nginx's configuration, by the rules of their sources. What is
read must be the values that were written, and nothing else. The seed is fixed; ``nightly`` takes ten others.
"""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from contracts import nocloud
from contracts.answers import DOCUMENTS
from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import Installer, SshHostKey, VmDefinition
from pxeboot_stack import services
from pxeboot_stack.boot_handler import documents
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles
from pxeboot_stack.reservations import render_dhcp_hosts, render_dns_hosts
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts

COUNT = 10_000  # of each kind
TOKEN = "0123456789abcdef" * 2
LAN = Lan()
SOURCES = ("deb http://mirror.example/debian trixie main",)
HOSTILE = (
    "\n", "\r", "\t", " ", "\0", "\x1b[2J", "\x85", "\u2028", "\udc80", "'", '"', "`", "\\", "$", "${net0/mac}",
    "$(reboot)", "&&", "||", ";", "#", "|", "<", ">", "{", "}", "{{ 7 * 7 }}", "{% raw %}", "%{", "%end", "---", ",",
    "=", ":", "/", "..", "../", "/etc/passwd", "END_OF_KEYS", "END_OF_KEY", "\nreboot\n", "\n- a: b\n", "&a", "*a",
    "? ", "[", "]", "!!python/object", "dhcp-script=/bin/sh", "\\\n", "%00", "%2e%2e/", "é", "日", "😀", "\u202e",
    "a" * 70,
)  # fmt: skip
PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789-._ABC"


def texts(chance: random.Random, count: int) -> Iterator[str]:
    """Yield strings: plain ones, hostile pieces, and mixtures of both."""
    for _ in range(count):
        pieces = [
            chance.choice(HOSTILE) if chance.random() < 0.35 else "".join(chance.choices(PLAIN, k=chance.randint(1, 8)))
            for _ in range(chance.randint(1, 4))
        ]
        yield "".join(pieces)


@pytest.fixture(params=[0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 11))])
def chance(request: pytest.FixtureRequest) -> random.Random:
    return random.Random(request.param)


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    return made


def ipxe_commands(script: str) -> list[list[str]]:
    """Return the words of each line. iPXE's shell (src/core/exec.c) splits at blanks and knows no quotes."""
    assert script.isascii()
    return [line.split() for line in script.split("\n")]


def substituted(plain: list[list[str]], old: str, new: str) -> list[list[str]]:
    return [[word.replace(old, new) for word in line] for line in plain]


def render_script(machine: VmDefinition, lab: Settings) -> list[list[str]]:
    return ipxe_commands(documents.boot_script(machine, lab, token=TOKEN))


def is_name(text: str) -> bool:
    """Tell by other means than the code's whether *text* may be a machine's name: RFC 1123, in lower case."""
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    return 1 <= len(text) <= 63 and set(text) <= allowed and text[0] != "-" and text[-1] != "-"


def is_distro(text: str) -> bool:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    return 1 <= len(text) <= 63 and set(text) <= allowed and text[0] not in "-."


def is_user(text: str) -> bool:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_")
    return 1 <= len(text) <= 31 and set(text) <= allowed and text[0] not in "-0123456789"


NAMES = {"name": is_name, "distro": is_distro, "user": is_user}


def test_names(lab: Settings, chance: random.Random) -> None:
    """As name, distribution and account: accepted by the rule alone, and then only a word everywhere."""
    before = set(lab.vms.parent.rglob("*"))
    base = {
        kind: make_machine(installer=kind, name="ref-name", distro="ref-distro", user="refuser") for kind in Installer
    }
    scripts = {kind: render_script(machine, lab) for kind, machine in base.items()}
    accepted = 0
    for number, text in enumerate(texts(chance, COUNT)):
        field = list(NAMES)[number % 3]
        kind = list(Installer)[number % 4]
        fits = NAMES[field](text)
        try:
            machine = dataclasses.replace(base[kind], **{field: text})  # type: ignore[arg-type]
        except ValueError:
            assert not fits, (field, text)
            continue
        assert fits, (field, text)
        accepted += 1
        old = {"name": "ref-name", "distro": "ref-distro", "user": "refuser"}[field]
        assert render_script(machine, lab) == substituted(scripts[kind], old, text)
        check_hosts_files(machine)
        check_seed(machine)
    assert accepted > COUNT // 20
    assert set(lab.vms.parent.rglob("*")) == before


@pytest.mark.parametrize("field", ["mac", "ip", "ipv6", "uuid", "repository"])
def test_addresses(lab: Settings, chance: random.Random, field: str) -> None:
    good = {"mac": "52:54:00:aa:bb:01", "ip": "192.168.100.11", "ipv6": "fd00::11", "repository": "http://m.example/os/",
            "uuid": "6f3b2d56-0a3c-4a7e-9e6f-0123456789ab"}[field]  # fmt: skip
    for text in texts(chance, COUNT // 50):
        for value in (text, good + text, text + good, good[:3] + text + good[3:]):
            try:
                machine = make_machine(
                    installer=Installer.KICKSTART, **{"repository": "http://m.example/", field: value}
                )
            except ValueError:
                continue
            assert re.fullmatch(r"[A-Za-z0-9._~:/%+,=@-]+", value)
            check_hosts_files(machine)
            check_seed(machine)


def check_hosts_files(machine: VmDefinition) -> None:
    """Read dnsmasq's files as it does: fields between commas, words between blanks."""
    lines = render_dhcp_hosts([machine]).split("\n")
    assert lines.pop() == ""
    named = [line.split(",") for line in lines]
    assert [fields[:3] for fields in named[:1]] == [[machine.mac, "id:*", machine.ip]]
    assert len(lines) == 1 + bool(machine.ipv6)
    assert all(len(fields) == 4 for fields in named)
    hosts = render_dns_hosts([machine], LAN).split("\n")
    assert hosts.pop() == ""
    own = [line.split() for line in hosts if not line.endswith(" provisioner")]
    assert [machine.ip, f"{machine.name}.{LAN.domain}", machine.name] in own
    assert len(own) == 1 + bool(machine.ipv6)
    assert not any("#" in line for line in hosts)


def check_seed(machine: VmDefinition) -> None:
    data = {
        name: json.loads(re.sub(r"\A#cloud-config\n", "", make(machine, LAN)))
        for name, make in nocloud.DOCUMENTS.items()
    }
    user_data = data["user-data"]
    assert (user_data["hostname"], user_data["users"][0]["name"]) == (machine.name, machine.user)
    assert user_data["users"][0]["ssh_authorized_keys"] == [whole(key) for key in machine.ssh_authorized_keys]
    assert user_data["ssh_keys"]["ed25519_private"] == whole(machine.ssh_host_key.private)
    assert user_data["ssh_keys"]["ed25519_public"] == whole(machine.ssh_host_key.public)
    written = "".join(f"{whole(line)}\n" for line in machine.package_sources)
    assert [file["content"] for file in user_data.get("write_files", [])] == ([written] if written else [])
    assert data["meta-data"] == {"instance-id": f"iid-{machine.uuid}", "local-hostname": machine.name}
    assert data["network-config"]["ethernets"]["lan0"]["match"] == {"macaddress": machine.mac}


def whole(text: str) -> str:
    """Return *text* without halves of characters, which no encoding can write."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def hostile_machine(chance: random.Random, text: str, kind: Installer) -> VmDefinition | None:
    """Return a machine with *text* in one of the fields that take free text, or None if it is refused there."""
    changes: dict[str, dict[str, Any]] = {
        "key": {"ssh_authorized_keys": (f"ssh-ed25519 AAAAlabkey {text}",)},
        "source": {"package_sources": (f"deb http://mirror.example/debian trixie {text}",)},
    }  # fmt: skip
    which = chance.choice(["key", "source", "host"])
    values: dict[str, Any] = {"package_sources": SOURCES, "repository": "http://m.example/"} | changes.get(which, {})
    private = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n"
    try:
        if which == "host":
            values["ssh_host_key"] = SshHostKey(private=private, public=f"ssh-ed25519 AAAAhostkey {text}")
        return make_machine(installer=kind, **values)
    except ValueError:
        return None


def test_arguments(lab: Settings, chance: random.Random) -> None:
    """As comments of keys and parts of package sources, where a definition takes any line."""
    plain = {
        kind: make_machine(installer=kind, package_sources=SOURCES, repository="http://m.example/")
        for kind in Installer
    }
    scripts = {kind: render_script(machine, lab) for kind, machine in plain.items()}
    shapes: dict[tuple[Installer, str], object] = {}
    seen = {"seed": 0, "answers": 0, "refused": 0}
    for number, text in enumerate(texts(chance, COUNT)):
        kind = list(Installer)[number % 4]
        machine = hostile_machine(chance, text, kind)
        if machine is None:
            seen["refused"] += 1
            continue
        assert render_script(machine, lab) == scripts[kind]
        check_seed(machine)
        seen["seed"] += 1
        if number % 4 != 0 and number % 31 == 0:  # rendering and parsing takes a hundred times as long
            seen["answers"] += check_answers(machine, plain[kind], lab, shapes)
    assert seen["refused"] > COUNT // 20
    assert seen["seed"] > COUNT // 4
    assert seen["answers"] > COUNT // 100


def check_answers(
    machine: VmDefinition, plain: VmDefinition, lab: Settings, shapes: dict[tuple[Installer, str], object]
) -> bool:
    """Compare the shape of each document with that of a harmless machine; tell whether any was rendered."""
    rendered = False
    for name in DOCUMENTS[machine.installer]:
        if name in {"own.cfg", "meta-data", "vendor-data"}:
            continue
        try:
            text = documents.render(machine, f"answers/{name}", lab, token=TOKEN).body
        except Refusal:  # a filter would not write it
            continue
        rendered = True
        if (machine.installer, name) not in shapes:
            harmless = documents.render(plain, f"answers/{name}", lab, token=TOKEN).body
            shapes[machine.installer, name] = shape(name, harmless)
        assert shape(name, text) == shapes[machine.installer, name], (name, text)
        if name == "ks.cfg":
            parser = KickstartParser(makeVersion("RHEL10"))
            parser.readKickstartFromString(text)
            assert [key.key for key in parser.handler.sshkey.sshUserList] == list(machine.ssh_authorized_keys)
        if name == "user-data":
            installed = yaml.load(text, Loader=yaml.CSafeLoader)["autoinstall"]["user-data"]
            assert installed["users"][0]["ssh_authorized_keys"] == [whole(key) for key in machine.ssh_authorized_keys]
    return rendered


def shape(name: str, text: str) -> object:
    """Return what no value may change: keys of YAML, commands of kickstart, questions of a preseed, of scripts."""
    if name == "user-data":
        return _keys(yaml.load(text, Loader=yaml.CSafeLoader)["autoinstall"])
    if name == "preseed.cfg":
        return [line.split()[:3] for line in text.split("\n") if not line.startswith("#")]
    if name == "ks.cfg":
        return [line.split()[:1] for line in text.split("\n") if not line.startswith("#")]
    return _shell_lines(text)


def _keys(data: object) -> object:
    if isinstance(data, dict):
        # only a machine with sources writes that file
        return {key: _keys(value) for key, value in data.items()}
    return len(data) if isinstance(data, list) else None


def _shell_lines(text: str) -> list[object]:
    """Return the first word of each command; what stands in a here-document is data, whatever it looks like."""
    lines: list[object] = []
    end = ""
    for line in text.split("\n"):
        if end:
            end = "" if line == end else end
            continue
        lines.append(_first_word(line))
        if match := re.search(r"<<'(\w+)'", line):
            end = match[1]
    assert not end
    return lines


def _first_word(line: str) -> str:
    try:
        return " ".join(shlex.split(line, comments=True)[:1])
    except ValueError:  # quotes that end in another line: nothing of the machine stands there
        return line


def test_paths_of_requests(lab: Settings, chance: random.Random) -> None:
    """As paths below a token: a document that there is, or 404, and no file is looked for."""
    machine = make_machine()
    known = {"config", *(f"cloud-init/{kind}" for kind in nocloud.DOCUMENTS)}
    refused: list[tuple[str, int, bool]] = []
    for text in texts(chance, COUNT // 2):
        for path in (text, f"{chance.choice(['cloud-init/', 'answers/', 'config', ''])}{text}"):
            try:
                documents.render(machine, path, lab, token=TOKEN)
            except Refusal as refusal:
                refused.append((path, refusal.status, refusal.sentence.isprintable()))
            else:
                assert path in known
    assert len(refused) > COUNT * 9 // 10
    assert not any(path in known for path, *_ in refused)
    assert {(status, printable) for _, status, printable in refused} == {(404, True)}


def test_paths_of_the_host(chance: random.Random) -> None:
    """As the folder that all files are in: each configuration has its lines with the path in them, or is refused."""
    made = {"nginx": 0, "dnsmasq": 0}
    nginx = render_nginx(Path("/ref/root"))
    directives = nginx_words(nginx)
    plain_dnsmasq = render_dnsmasq(Path("/ref/root")).split("\n")
    for text in texts(chance, COUNT):
        root = Path("/", text.replace("\0", "0"))
        if ".." in root.parts or len(root.parts) == 1:
            continue
        try:
            configuration = render_nginx(root)
        except ValueError:
            pass
        else:
            made["nginx"] += 1
            assert configuration == nginx.replace("/ref/root", str(root))
            if made["nginx"] % 10 == 0:  # to read it takes a hundred times as long
                words = nginx_words(configuration)
                assert words == [[word.replace("/ref/root", str(root)) for word in line] for line in directives]
        try:
            lines = render_dnsmasq(root).split("\n")
        except ValueError:
            continue
        made["dnsmasq"] += 1
        assert lines == [line.replace("/ref/root", str(root)) for line in plain_dnsmasq]
        assert not any(re.search(r"\s#", line) for line in lines if str(root) in line)
    assert all(count > COUNT // 10 for count in made.values())


def render_nginx(root: Path) -> str:
    return services.render_nginx(
        HostShares(root), RunFiles(root / "run"), listen="10.0.0.1:80", handler="127.0.0.1:8080"
    )


def render_dnsmasq(root: Path) -> str:
    return services.render_dnsmasq(LAN, RunFiles(root), arches=list(Arch))


def nginx_words(text: str) -> list[list[str]]:
    """Return the directives by the rules of ngx_conf_read_token: blanks, quotes, a backslash, comments, ; { and }."""
    token = re.compile(r"""\s+|\#[^\n]*|"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([;{}])|([^\s;{}"']+)""", re.DOTALL)
    directives: list[list[str]] = [[]]
    place = 0
    while place < len(text):
        match = token.match(text, place)
        assert match is not None, text[place : place + 40]
        place = match.end()
        double, single, end, word = match.groups()
        if end:
            directives += [[end], []] if end in "{}" else [[]]
        elif (found := next((each for each in (double, single, word) if each is not None), None)) is not None:
            directives[-1].append(found)
    return [directive for directive in directives if directive]
