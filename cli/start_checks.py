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
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

from cli.render_verbs import settings_of, text_of, without_secrets
from contracts.answers import DOCUMENTS, MAIN, OWN_SUFFIX
from contracts.lan import Lan
from contracts.machine import AnswerFile, VmDefinition
from contracts.nocloud import OWN_USER_DATA_SUFFIX
from contracts.templates import What, answers_of
from lab.cloud_machine import is_cloud
from lab.install_status import is_installed_next
from lab.lab import Lab
from lab.store import DefinitionStore, MachineRequest
from pipeline import commit
from pipeline.errors import ConflictError, PrerequisiteError
from pxeboot_stack.boot_handler import user_templates
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

_WITHIN = 20.0  # seconds to render and to check one document; a long one takes one
_FILE_AT_FAULT = 500  # the status of refusals that are about a person's file


@dataclasses.dataclass(frozen=True)
class _Own:
    """A document that a person wrote.

    :ivar name: of its file. :ivar place: where that is, for people. :ivar path: read as it is; None for what is
        rendered.
    """

    what: What
    name: str
    place: str
    path: Path | None = None


def require_documents(
    lab: Lab, definition: VmDefinition, *, request: MachineRequest | None = None, lan: Lan | None = None
) -> None:
    """Check all that a person wrote for a machine that is about to be installed; for an installed one, nothing.

    One from a cloud image gets it on its seed disc, at each start.

    :param request: of a machine that is being made: what is in it has no place of its own yet.
    :param lan: its network, if that is to be another than the lab's now.
    :raises ConflictError: naming all faults, each with its file and its place in the document.
    :raises PrerequisiteError: if the templates cannot be read.
    """
    if not is_cloud(definition) and not is_installed_next(lab, definition):
        return
    with _settings(lab, definition, request) as usual:
        settings = usual if lan is None else dataclasses.replace(usual, lan=lan)
        try:
            documents = _find_own(definition, settings, is_new=request is not None)
            found = [(own, _find_faults(lab, definition, own, settings)) for own in documents]
        except Refusal as refusal:
            raise PrerequisiteError(refusal.sentence) from None
    wrong = [(own, faults) for own, faults in found if faults]
    if not wrong:
        return
    name, files = definition.name, " and ".join(own.name for own, _ in wrong)
    exists = request is None and DefinitionStore(lab).exists(name)
    shown = f"; ./pvmlab render {name} --what {wrong[0][0].what} prints what it makes" if exists else ""
    raise ConflictError(
        f"{name} cannot be {'started' if is_cloud(definition) else 'installed'} with {files}",
        details="\n".join(f"{own.name}: {fault}" for own, faults in wrong for fault in faults),
        resolution=f"repair {' and '.join(own.place for own, _ in wrong)}{shown}",
    )


@contextlib.contextmanager
def _settings(lab: Lab, definition: VmDefinition, request: MachineRequest | None) -> Iterator[Settings]:
    """Yield the boot handler's settings, with a machine's own files of *request* where it looks for them."""
    settings = settings_of(lab)
    if request is None:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="pvmlab-own-") as folder:
        answers = request.answers.text if request.answers is not None else None
        for suffix, text in ((OWN_SUFFIX, answers), (OWN_USER_DATA_SUFFIX, request.user_data)):
            if text is not None:
                commit.publish_text(Path(folder) / f"{definition.name}{suffix}", text, mode=0o600)
        yield dataclasses.replace(settings, vms=Path(folder))


def _find_own(machine: VmDefinition, settings: Settings, *, is_new: bool) -> list[_Own]:
    """Return the documents of *machine* that a person wrote.

    :param is_new: its own files are not in their places yet. :raises Refusal: if the templates cannot be looked at.
    """
    seeds = [what for what in What if what.is_seed]
    if is_cloud(machine):
        return [*_user_data(machine, settings, is_new=is_new), *_of_templates(machine, seeds, settings)]
    answers = answers_of(machine.installer)
    if answers is None:
        own = _user_data(machine, settings, is_new=is_new)
    elif machine.answer_file is not AnswerFile.LAB:
        place = "it" if is_new else str(settings.vms / f"{machine.name}{OWN_SUFFIX}")
        own = [_Own(answers, "its answer file", place)]
    else:
        own = _of_templates(machine, [answers], settings)
    if answers is not None:
        seeds = [what for what in seeds if what in DOCUMENTS[machine.installer] and what != MAIN[machine.installer]]
    return [*own, *_of_templates(machine, [What.IPXE, What.IGNITION, *seeds], settings)]


def _user_data(machine: VmDefinition, settings: Settings, *, is_new: bool) -> list[_Own]:
    """Return the user-data that a person wrote for *machine* alone, if there is any."""
    path = settings.vms / f"{machine.name}{OWN_USER_DATA_SUFFIX}"
    return [_Own(What.USER_DATA, "its user-data", "it" if is_new else str(path), path)] if path.exists() else []


def _of_templates(machine: VmDefinition, whats: Iterable[What], settings: Settings) -> list[_Own]:
    found = [(what, user_templates.find(machine, what, settings)) for what in whats]
    return [_Own(what, path.name, str(path)) for what, path in found if path is not None]


def _find_faults(lab: Lab, definition: VmDefinition, own: _Own, settings: Settings) -> tuple[str, ...]:
    """Return what is wrong in *own*; its secrets are left out, as faults quote values.

    :raises Refusal: if that is not a fault of the file.
    """
    from cli.render_checks import check_document

    try:
        with _limited(_WITHIN):
            text = (
                text_of(without_secrets(definition), own.what, settings)
                if own.path is None
                else user_templates.read(own.path, "the user-data", definition)
            )
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
