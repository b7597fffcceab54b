"""What ``render`` does: print what a machine would get from the boot handler, by the boot handler's own code."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable

from cli.output import FORMATS, emit, say
from contracts import nocloud
from contracts.answers import MAIN, OWN
from contracts.machine import Installer, SshHostKey, VmDefinition
from contracts.templates import What
from contracts.tokens import PLACEHOLDER
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, NotFoundError, PrerequisiteError, PvmlabError, UsageError
from pxeboot_stack.boot_handler import answers, documents, seed
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import RunFiles

CONFIG = "config"
WHATS = (CONFIG, *What)
"""All that ``--what`` may be."""
HIDDEN_KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\n(shown with --secrets)\n-----END OPENSSH PRIVATE KEY-----\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendered:
    """A document of a machine. :ivar template: the person's template that made it, empty if it is ours."""

    machine: str
    what: str
    template: str
    text: str


def render(name: str, *, what: str, secrets: bool = False, check: bool = False, output: str = "table") -> None:
    """Print the document *what* of the machine *name*; with *check*, whether its reader would take it.

    :param secrets: show the machine's private host key. Tokens are never shown: each boot makes its own.
    :param output: ``table`` prints the document as it is. ``json``: an object with it, and with what was found.
    :raises PvmlabError: if there is no such machine or document, if it cannot be rendered, or is found at fault.
    """
    if output not in FORMATS:
        raise UsageError(f"--output {output!r} is unknown", resolution=f"use one of: {', '.join(FORMATS)}")
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    made = render_document(lab, definition, _require_what(what), secrets=secrets)
    found = None
    if check:
        from cli.render_checks import check_document

        found = check_document(made.what, made.text, definition, lab.cache)
    if output == "json":
        data = dataclasses.asdict(made) | ({"checked": dataclasses.asdict(found)} if found is not None else {})
        emit({"document": data}, output=output, table=[])
    elif found is None:
        sys.stdout.write(made.text)
    else:
        say(f"{name}, {what}: {found.by}")
    if found is not None and found.faults:
        where = f"the template {made.template}" if made.template else f"the {what}"
        raise ConflictError(f"{where} is at fault for {name}", details="\n".join(found.faults))


def render_document(lab: Lab, definition: VmDefinition, what: str, *, secrets: bool) -> Rendered:
    """Return the document *what* of a machine.

    :raises PvmlabError: if it has no such document, or it cannot be rendered.
    """
    machine = definition if secrets else without_secrets(definition)
    settings = settings_of(lab)
    text = _refusing(lambda: text_of(machine, what, settings))
    return Rendered(machine=machine.name, what=what, template=_template_of(machine, what, settings), text=text)


def seed_documents(lab: Lab, definition: VmDefinition) -> dict[str, str]:
    """Return all NoCloud documents of a machine by their names, with its keys.

    :raises PvmlabError: if a person's file for one cannot be used.
    """
    settings = settings_of(lab)
    return {
        kind: _refusing(functools.partial(seed.render, definition, kind, settings, token=PLACEHOLDER))
        for kind in nocloud.DOCUMENTS
    }


def settings_of(lab: Lab) -> Settings:
    """Return the boot handler's settings with the host's own paths."""
    home, cache = lab.home, lab.cache
    return Settings(
        lan=lab.lan, vms=home.vms, status=home.status, images=cache.images, initrds=cache.root / "initrds",
        templates=home.templates, run=RunFiles(home.run),
    )  # fmt: skip


def text_of(machine: VmDefinition, what: str, settings: Settings) -> str:
    """Return the document *what* of *machine*.

    :raises Refusal: if the boot handler would refuse it. :raises UsageError: if it is another installer's.
    """
    if what == What.IPXE:
        return documents.boot_script(machine, settings, token=PLACEHOLDER)
    if what in {CONFIG, What.IGNITION}:
        return documents.render(machine, what, settings, token=PLACEHOLDER).body
    if What(what).is_seed:
        return documents.render(machine, f"{documents.SEED}{what}", settings, token=PLACEHOLDER).body
    return _answers(machine, Installer(what), settings)


def _answers(machine: VmDefinition, kind: Installer, settings: Settings) -> str:
    """Return the answer file; of a preseed, what it includes too."""
    if machine.installer is not kind:
        raise UsageError(
            f"{machine.name} is installed by {machine.installer}, not by {kind}",
            resolution="./pvmlab vm.create with --installer=native, of a distribution whose installer that is",
        )
    text = answers.render(machine, MAIN[kind], settings, token=PLACEHOLDER)
    if kind is Installer.PRESEED and answers.has_own(machine, settings):
        text += f"\n# {OWN}, which it includes:\n" + answers.render(machine, OWN, settings, token=PLACEHOLDER)
    return text


def _template_of(machine: VmDefinition, what: str, settings: Settings) -> str:
    if what == CONFIG:
        return ""
    from pxeboot_stack.boot_handler import user_templates

    path = user_templates.find(machine, What(what), settings)
    return path.name if path is not None else ""


def without_secrets(definition: VmDefinition) -> VmDefinition:
    """Return *definition* with a stand-in for its private key."""
    key = SshHostKey(private=HIDDEN_KEY, public=definition.ssh_host_key.public)
    return dataclasses.replace(definition, ssh_host_key=key)


def _require_what(what: str) -> str:
    if what not in WHATS:
        raise UsageError(
            f"--what {what!r} is unknown" if what else "say what to render, with --what",
            resolution=f"use one of: {', '.join(WHATS)}",
        )
    return what


def _refusing(make: Callable[[], str | None]) -> str:
    """Return what *make* makes, its refusals told as errors of the command line."""
    kinds: dict[int, type[PvmlabError]] = {404: NotFoundError, 503: PrerequisiteError}
    try:
        return make() or ""
    except Refusal as refusal:
        raise kinds.get(refusal.status, ConflictError)(refusal.sentence) from None
