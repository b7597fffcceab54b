"""Answer files for the distributions' own installers, rendered for one machine.

Ours come from ``templates/answers``. Each value in them passes a filter that quotes it for the language it stands in;
a template that leaves one out does not render. In their place comes, if there is one, the file that the machine was
created with (``--answer-file``), or else the template for it in the lab's folder (:mod:`.user_templates`).
"""

from __future__ import annotations

from contracts import nocloud
from contracts.answers import DOCUMENTS, MAIN, OWN, OWN_SUFFIX, stable_answers_path
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.templates import What, answers_of
from contracts.tokens import PLACEHOLDER, answers_path
from pxeboot_stack.boot_handler import sandbox, seed, user_templates
from pxeboot_stack.boot_handler.context import context
from pxeboot_stack.boot_handler.quoting import FILTERS
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings


def render(machine: VmDefinition, name: str, settings: Settings, *, token: str) -> str:
    """Return the answer document *name* of *machine*.

    :raises Refusal: 404 if it has no such document; 500 if its answer file cannot be used.
    """
    if name not in DOCUMENTS[machine.installer] or (name == OWN and not has_own(machine, settings)):
        known = ", ".join(DOCUMENTS[machine.installer]) or "nothing: it is installed by pvmlab"
        raise Refusal(404, f"{machine.name} has no answer document {name!r}; there are {known}")
    if name in nocloud.DOCUMENTS and name != MAIN[machine.installer]:
        return seed.render(machine, name, settings, token=token)
    if name == OWN:
        return _own(machine, settings, token=token)
    if name == MAIN[machine.installer] and has_own(machine, settings):
        return _main_of_own(machine, settings, token=token)
    return _render_ours(f"{name}.j2", machine, settings, token=token)


def has_own(machine: VmDefinition, settings: Settings) -> bool:
    """Tell whether a person wrote what *machine*'s own installer is told."""
    what = answers_of(machine.installer)
    return machine.answer_file is not AnswerFile.LAB or (
        what is not None and user_templates.find(machine, what, settings) is not None
    )


def check(machine: VmDefinition, settings: Settings) -> None:
    """Render the documents that an install cannot begin without.

    :raises Refusal: 500 if they cannot be: the machine is told before it loads its installer.
    """
    names = [MAIN[machine.installer], *([OWN] if has_own(machine, settings) else [])]
    for name in names:
        if name in DOCUMENTS[machine.installer]:
            render(machine, name, settings, token=PLACEHOLDER)


def _main_of_own(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    """Return the answer file proper of a machine whose answers are a person's.

    debian-installer includes files, so it gets one that includes the person's; what tells the end of a kickstart is
    appended. cloud-config can do neither: the person's file has to tell the end itself.
    """
    if machine.installer is Installer.PRESEED:
        return _render_ours(f"{MAIN[machine.installer]}.j2", machine, settings, token=token, own=True)
    text = _own(machine, settings, token=token)
    if machine.installer is Installer.KICKSTART:
        end = _render_ours("ks-end.cfg.j2", machine, settings, token=token, own=True)
        return text.rstrip("\n") + "\n\n" + end
    return text


def _own(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    """Return what the person wrote: the machine's answer file, or what the lab's template makes."""
    if machine.answer_file is AnswerFile.LAB:
        return _of_template(machine, settings, token=token)
    path, what = settings.vms / f"{machine.name}{OWN_SUFFIX}", "the answer file"
    text = user_templates.read(path, what, machine)
    if machine.answer_file is AnswerFile.TEMPLATE:
        source, values = text, _values(machine, settings, token=token)
        text = user_templates.render_for(machine, what, lambda: sandbox.render_text(source, values))
    # A file that was written once cannot know the token of a boot: it names its documents by this address.
    return text.replace(
        f"{settings.lan.base_url}{stable_answers_path(machine.name)}", settings.lan.base_url + answers_path(token)
    )


def _of_template(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    def standard() -> str:
        return _render_ours(f"{MAIN[machine.installer]}.j2", machine, settings, token=token, included=True)

    what = What(str(machine.installer))
    text = user_templates.render(machine, what, settings, token=token, standard=standard)
    if text is None:  # it was there a moment ago
        raise user_templates.unusable(machine, f"the template for {what}", "it was removed while it was asked for")
    return text


def _render_ours(
    template: str, machine: VmDefinition, settings: Settings, *, token: str, own: bool = False, included: bool = False
) -> str:
    """Render a template of ours.

    :param own: what comes is the person's. :param included: what is around ours tells the lab how it goes.
    """
    values = _values(machine, settings, token=token) | {"own": own, "included": included}
    return user_templates.render_for(machine, "the answer file", lambda: sandbox.render_ours(template, values))


def _values(machine: VmDefinition, settings: Settings, *, token: str) -> dict[str, object]:
    # own and included: so that a copy of one of our templates is a good beginning of one's own
    return context(machine, settings, token=token) | {"own": False, "included": True}


__all__ = ["FILTERS", "check", "context", "has_own", "render"]
