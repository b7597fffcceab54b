"""Answer files for the distributions' own installers, rendered for one machine.

Ours come from ``templates/answers``. Each value in them passes a filter that quotes it for the language it stands in;
a template that leaves one out does not render. A person's own file is served as it is, or rendered as a template in a
sandbox, with the same values (docs/reference/answer-files.md).
"""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import nocloud
from contracts.answers import DOCUMENTS, HOOKS, LATE, MAIN, MAX_OWN_BYTES, OWN, OWN_SUFFIX, REPORT, answers_path
from contracts.install import report_path
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.mirror import find_mirror
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

_TEMPLATES = Path(__file__).parents[1] / "templates" / "answers"
_WORD = re.compile(r"[A-Za-z0-9._:/=-]+\Z")
_MAX_RENDERED = 4 * MAX_OWN_BYTES


class Quoted(str):
    """Text that is ready for the language it stands in."""

    __slots__ = ()


def render(machine: VmDefinition, name: str, settings: Settings) -> str:
    """Return the answer document *name* of *machine*.

    :raises Refusal: 404 if it has no such document; 500 if its answer file cannot be used.
    """
    if name not in DOCUMENTS[machine.installer] or (name == OWN and machine.answer_file is AnswerFile.LAB):
        known = ", ".join(DOCUMENTS[machine.installer]) or "nothing: it is installed by pvmlab"
        raise Refusal(404, f"{machine.name} has no answer document {name!r}; there are {known}")
    if name in nocloud.DOCUMENTS and name != MAIN[machine.installer]:
        return nocloud.DOCUMENTS[name](machine, settings.lan)
    is_own = machine.answer_file is not AnswerFile.LAB
    if is_own and name == OWN:
        return _own(machine, settings)
    if is_own and name == MAIN[machine.installer]:
        return _main_of_own(machine, settings)
    return _render_ours(f"{name}.j2", machine, settings, own=False)


def check(machine: VmDefinition, settings: Settings) -> None:
    """Render the documents that an install cannot begin without.

    :raises Refusal: 500 if they cannot be: the machine is told before it loads its installer.
    """
    names = [MAIN[machine.installer], *([OWN] if machine.answer_file is not AnswerFile.LAB else [])]
    for name in names:
        if name in DOCUMENTS[machine.installer]:
            render(machine, name, settings)


def _main_of_own(machine: VmDefinition, settings: Settings) -> str:
    """Return the answer file proper of a machine whose answers are a person's.

    debian-installer includes files, so it gets one that includes the person's; what tells the end of a kickstart is
    appended. cloud-config can do neither: the person's file has to tell the end itself.
    """
    if machine.installer is Installer.PRESEED:
        return _render_ours(f"{MAIN[machine.installer]}.j2", machine, settings, own=True)
    text = _own(machine, settings)
    if machine.installer is Installer.KICKSTART:
        return text.rstrip("\n") + "\n\n" + _render_ours("ks-end.cfg.j2", machine, settings, own=True)
    return text


def _own(machine: VmDefinition, settings: Settings) -> str:
    path = settings.vms / f"{machine.name}{OWN_SUFFIX}"
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_OWN_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise _unusable(machine, f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _unusable(machine, f"{path.name} is not UTF-8: {error.reason} at byte {error.start}") from None
    if len(data) > MAX_OWN_BYTES:
        raise _unusable(machine, f"{path.name} is longer than {MAX_OWN_BYTES} bytes")
    if machine.answer_file is AnswerFile.VERBATIM:
        return text
    environment = _environment(strict=False)
    # own: so that a copy of our preseed.cfg.j2 is a good beginning of one's own
    values = context(machine, settings) | {"own": False}
    return _rendered(machine, lambda: environment.from_string(text).render(values))


def _render_ours(template: str, machine: VmDefinition, settings: Settings, *, own: bool) -> str:
    environment = _environment(strict=True)
    values = context(machine, settings) | {"own": own}
    return _rendered(machine, lambda: environment.get_template(template).render(values))


def _rendered(machine: VmDefinition, make: Callable[[], str]) -> str:
    try:
        text = make()
    except Exception as error:  # noqa: BLE001 (a template runs code: whatever it raises is its fault)
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        raise _unusable(machine, f"{type(error).__name__}{where}: {error}") from None
    if len(text) > _MAX_RENDERED:
        raise _unusable(machine, f"it is longer than {_MAX_RENDERED} characters when it is rendered")
    return text


def _unusable(machine: VmDefinition, reason: str) -> Refusal:
    return Refusal(500, f"the answer file of {machine.name} cannot be used: {' '.join(reason.split())}")


def context(machine: VmDefinition, settings: Settings) -> dict[str, Any]:
    """Return the values that templates may use: docs/reference/answer-files.md has them all."""
    lan, disk = settings.lan, machine.disk_bus.device
    answers = settings.lan.base_url + answers_path(machine.name)
    system = nocloud.render_user_data(machine, lan)
    return {
        "machine": {
            "name": machine.name,
            "fqdn": f"{machine.name}.{lan.domain}",
            "mac": machine.mac,
            "ip": machine.ip,
            "arch": str(machine.arch),
            "distro": machine.distro,
            "disk": disk,
            "disk_name": disk.removeprefix("/dev/"),
            "user": machine.user,
            "ssh_authorized_keys": machine.ssh_authorized_keys,
            "ssh_host_key": {"private": machine.ssh_host_key.private, "public": machine.ssh_host_key.public},
            "package_sources": machine.package_sources,
            "repository": machine.repository,
            "console": f"console={machine.arch.serial_device},115200",
            "reboot_on_success": machine.reboot_on_success,
        },
        "lan": {"subnet": lan.subnet, "domain": lan.domain, "provisioner": str(lan.provisioner)},
        "urls": {
            "base": lan.base_url,
            "answers": answers,
            "native": f"{lan.base_url}/images/{machine.distro}/{machine.arch}/native/",
            "report": lan.base_url + report_path(machine.mac),
        },
        "mirror": find_mirror(machine.package_sources),
        "report": _report_commands(machine.installer, answers),
        "system_user_data": json.loads(system.removeprefix("#cloud-config\n")),
    }


def _report_commands(installer: Installer, answers: str) -> Mapping[str, Callable[..., Quoted]]:
    """Return functions that make shell commands which report; they succeed also if the lab cannot be told."""
    fetch = "wget -q -T 30 -t 4 -O -" if installer is Installer.PRESEED else "curl --silent --fail --retry 4"

    def command(*words: str) -> Quoted:
        return Quoted(_line(f"{fetch} {shlex.quote(answers + REPORT)} | sh -s -- {shlex.join(words)} || true"))

    def running(phase: str, percent: int, message: str) -> Quoted:
        return command(phase, "running", str(percent), message)

    def failed(phase: str, message: str, log: str = "") -> Quoted:
        return command(phase, "failed", "0", message, *([log] if log else []))

    def done(message: str = "the installer has finished") -> Quoted:
        return command("bootloader", "done", "100", message)

    return {"running": running, "failed": failed, "done": done}


def _line(value: object) -> str:
    text = str(value)
    if not text.isprintable():  # control characters, line and paragraph separators, halves of characters
        raise ValueError(f"{text!r:.80} is not one plain line")
    return text


def _preseed(value: object) -> Quoted:
    """One value of a line of debconf-set-selections(1): it goes on to the end of the line."""
    text = _line(value)
    if text.endswith("\\"):  # continues the line
        raise ValueError(f"{text!r:.80} ends in a backslash")
    return Quoted(text)


def _word(value: object) -> Quoted:
    """Something that needs no quotes in any of the languages."""
    text = str(value)
    if not _WORD.match(text):
        raise ValueError(f"{text!r:.80} is not one plain word")
    return Quoted(text)


FILTERS: Mapping[str, Callable[[Any], Quoted]] = {
    "comment": lambda value: Quoted(_line(value)),
    "json": lambda value: Quoted(json.dumps(value, sort_keys=True)),  # is YAML, too
    "ks": lambda value: Quoted(shlex.quote(_line(value))),  # pykickstart splits its lines with shlex
    "line": lambda value: Quoted(_line(value)),
    "preseed": _preseed,
    "sh": lambda value: Quoted(shlex.quote(_line(value))),
    "word": _word,
}


def _require_quoted(value: object) -> object:
    if not isinstance(value, Quoted):
        raise TypeError(f"{value!r:.80} stands in the template without a filter")
    return value


@functools.cache
def _environment(*, strict: bool) -> SandboxedEnvironment:
    """Return where templates are rendered. :param strict: for ours: refuse values that passed no filter."""
    # Here, not above: its import takes a second under emulation, and installs by pvmlab need none of it.
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        loader=FileSystemLoader(_TEMPLATES) if strict else None,  # a person's template includes none of ours
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML: every value is quoted by a filter for what it stands in
        finalize=_require_quoted if strict else None,
    )
    environment.filters.update(FILTERS)
    return environment


__all__ = ["FILTERS", "HOOKS", "LATE", "Quoted", "check", "context", "render"]
