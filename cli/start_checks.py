"""Whether what a person wrote for a machine is right, asked before the machine is made or started, not by its console.

Templates and answer files are rendered and checked as by ``render --check``. What is ours is checked by the tests, so
the start of a machine without any loads no parser and no schema.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from cli.render_verbs import settings_of, text_of, without_secrets
from contracts.answers import DOCUMENTS, MAIN, OWN_SUFFIX
from contracts.machine import AnswerFile, VmDefinition
from contracts.templates import What, answers_of
from lab import target
from lab.lab import Lab
from lab.native import OwnAnswers
from lab.store import DefinitionStore
from pipeline import commit
from pipeline.errors import ConflictError, PrerequisiteError
from pxeboot_stack.boot_handler import user_templates
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

_WITHIN = 20.0  # seconds to render and to check one document; a long one takes one
_FILE_AT_FAULT = 500  # the status of refusals that are about a person's file


@dataclasses.dataclass(frozen=True)
class _Own:
    """A document that a person wrote. :ivar name: of its file. :ivar place: where that is, for people."""

    what: What
    name: str
    place: str


def require_documents(lab: Lab, definition: VmDefinition, *, answers: OwnAnswers | None = None) -> None:
    """Check all that a person wrote for a machine that is about to be installed; for another one, nothing.

    :param answers: the answer file of a machine that is being made, which is not in its place yet.
    :raises ConflictError: naming all faults, each with its file and its place in the document.
    :raises PrerequisiteError: if the templates cannot be read.
    """
    if not target.is_installed_next(lab, definition):
        return
    with _settings(lab, definition, answers) as settings:
        try:
            documents = _find_own(definition, settings, is_new=answers is not None)
            found = [(own, _find_faults(lab, definition, own, settings)) for own in documents]
        except Refusal as refusal:
            raise PrerequisiteError(refusal.sentence) from None
    wrong = [(own, faults) for own, faults in found if faults]
    if not wrong:
        return
    name, files = definition.name, " and ".join(own.name for own, _ in wrong)
    exists = DefinitionStore(lab).exists(name)
    shown = f"; ./pvmlab render {name} --what {wrong[0][0].what} prints what it makes" if exists else ""
    raise ConflictError(
        f"{name} cannot be installed with {files}",
        details="\n".join(f"{own.name}: {fault}" for own, faults in wrong for fault in faults),
        resolution=f"repair {' and '.join(own.place for own, _ in wrong)}{shown}",
    )


@contextlib.contextmanager
def _settings(lab: Lab, definition: VmDefinition, answers: OwnAnswers | None) -> Iterator[Settings]:
    """Yield the boot handler's settings, with *answers* where it looks for a machine's answer file."""
    settings = settings_of(lab)
    if answers is None:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="pvmlab-answers-") as folder:
        commit.publish_text(Path(folder) / f"{definition.name}{OWN_SUFFIX}", answers.text, mode=0o600)
        yield dataclasses.replace(settings, vms=Path(folder))


def _find_own(machine: VmDefinition, settings: Settings, *, is_new: bool) -> list[_Own]:
    """Return the documents of *machine* that a person wrote.

    :param is_new: the answer file is not in its place yet. :raises Refusal: if the templates cannot be looked at.
    """
    answers = answers_of(machine.installer)
    own = []
    if answers is not None and machine.answer_file is not AnswerFile.LAB:
        place = "it" if is_new else str(settings.vms / f"{machine.name}{OWN_SUFFIX}")
        own.append(_Own(answers, "its answer file", place))
    elif answers is not None:
        own += _of_template(machine, answers, settings)
    seeds = [what for what in What if what.is_seed]
    if answers is not None:
        seeds = [what for what in seeds if what in DOCUMENTS[machine.installer] and what != MAIN[machine.installer]]
    for what in (What.IPXE, What.IGNITION, *seeds):
        own += _of_template(machine, what, settings)
    return own


def _of_template(machine: VmDefinition, what: What, settings: Settings) -> list[_Own]:
    path = user_templates.find(machine, what, settings)
    return [_Own(what, path.name, str(path))] if path is not None else []


def _find_faults(lab: Lab, definition: VmDefinition, own: _Own, settings: Settings) -> tuple[str, ...]:
    """Return what is wrong in *own*; its secrets are left out, as faults quote values.

    :raises Refusal: if that is not a fault of the file.
    """
    from cli.render_checks import check_document

    try:
        with _limited(_WITHIN):
            text = text_of(without_secrets(definition), own.what, settings)
            return check_document(own.what, text, definition, lab.cache).faults
    except TimeoutError as error:
        return (str(error),)
    except Refusal as refusal:
        if refusal.status != _FILE_AT_FAULT:
            raise
        return (refusal.sentence,)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Break off what takes longer: a template may loop for ever. Only in the main thread, where signals arrive.

    :raises TimeoutError: if it does.
    """

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes longer than {seconds:g} s to render and to check")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
