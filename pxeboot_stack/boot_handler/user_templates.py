"""The templates of the person who runs the lab, in the shared folder ``templates``: found, rendered, checked.

A template is rendered for one machine, with the values of that machine alone. One that cannot be rendered is an error
that names it: never the document of another machine, and never silently ours in its place.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from contracts.machine import VmDefinition
from contracts.regular_file import open_regular
from contracts.templates import MAX_TEMPLATE_BYTES, What, template_names
from pxeboot_stack.boot_handler import moment, sandbox
from pxeboot_stack.boot_handler.context import context
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

_TICK = 1.0  # seconds
_IGNITION_VERSION = re.compile(r"[23]\.\d+\.\d+(-[a-z]+)?\Z")
_INSTANCE_ID = re.compile(r"""(?:^|[{,])\s*["']?instance-id["']?\s*:\s*["']?[^\s"',}]""", re.MULTILINE)


def find(machine: VmDefinition, what: What, settings: Settings) -> Path | None:
    """Return the template that makes *what* of *machine*, or None: its own before the one for all."""
    there = moment.once(("templates", settings.templates), lambda: _names(settings.templates))
    return next((settings.templates / name for name in template_names(machine.name, what) if name in there), None)


def _names(folder: Path) -> frozenset[str]:
    """Return the names in *folder*, none if it is not there. Looked at anew whenever something came or went.

    :raises Refusal: 503 if it cannot be read: what is in it must not be passed over.
    """
    try:
        changed = folder.stat().st_mtime
        # a folder that was changed just now may change again within the same tick of its clock
        return _listed(folder, changed) if time.time() - changed > _TICK else _list(folder)
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise Refusal(503, f"the folder of templates cannot be read: {error.strerror}") from None


@functools.lru_cache(maxsize=4)
def _listed(folder: Path, changed: float) -> frozenset[str]:  # noqa: ARG001 (another time, another call)
    return _list(folder)


def _list(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir())


def render(
    machine: VmDefinition, what: What, settings: Settings, *, token: str, standard: Callable[[], str]
) -> str | None:
    """Return *what* of *machine* as the person's template makes it, or None if there is no such template.

    :param standard: makes the document as it is without a template, which the template may call.
    :raises Refusal: 500 if the template cannot be used.
    """
    path = find(machine, what, settings)
    if path is None:
        return None
    text = read(path, f"the template {path.name}", machine)
    values = context(machine, settings, token=token) | {"standard": standard, "own": False, "included": True}
    rendered = render_for(machine, f"the template {path.name}", lambda: sandbox.render_text(text, values))
    if fault := find_fault(what, rendered):
        raise unusable(machine, f"the template {path.name}", fault)
    return rendered


def read(path: Path, what: str, machine: VmDefinition) -> str:
    """Return the text of *path*.

    :param what: what to call it. :raises Refusal: 500 if it is no bounded UTF-8 text.
    """
    try:
        with open(path, "rb", opener=open_regular) as stream:
            data = stream.read(MAX_TEMPLATE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise unusable(machine, what, f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise unusable(machine, what, f"{path.name} is not UTF-8: {error.reason} at byte {error.start}") from None
    except ValueError as error:
        raise unusable(machine, what, f"{path.name} cannot be read: {error}") from None
    if len(data) > MAX_TEMPLATE_BYTES:
        raise unusable(machine, what, f"{path.name} is longer than {MAX_TEMPLATE_BYTES} bytes")
    return text


def render_for(machine: VmDefinition, what: str, make: Callable[[], str]) -> str:
    """Return what *make* makes.

    :param what: what to call it. :raises Refusal: 500 with the reason, whatever it raises.
    """
    try:
        text = make()
    except Refusal:  # of standard(): it says more
        raise
    except Exception as error:  # noqa: BLE001 (a template runs code: whatever it raises is its fault)
        line = _line_of(error)
        where = f" (line {line})" if line else ""
        raise unusable(machine, what, f"{type(error).__name__}{where}: {error}") from None
    if len(text) > sandbox.MAX_RENDERED:
        raise unusable(machine, what, f"it is longer than {sandbox.MAX_RENDERED} characters when it is rendered")
    return text


def _line_of(error: Exception) -> int | None:
    """Return the line of the template that *error* is about: a syntax error knows it, of others Jinja2 traces it."""
    line: int | None = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def unusable(machine: VmDefinition, what: str, reason: str) -> Refusal:
    """Return the refusal for a file of a person that cannot be used. It quotes no values: they may be secret."""
    return Refusal(500, f"{what} of {machine.name} cannot be used: {' '.join(reason.split())[:400]}")


def find_fault(what: What, text: str) -> str:
    """Return why *text* would not be taken for *what* at all; nothing if it may be. Schemas are checked on the host."""
    if "\0" in text:
        return "it makes a document with a zero byte"
    if what is What.IPXE and not text.startswith("#!ipxe"):
        return "it does not begin with #!ipxe, so that iPXE would not take it for a script"
    if what is What.META_DATA and not _INSTANCE_ID.search(text):
        return "it has no instance-id, without which cloud-init ignores all of the seed"
    return _find_ignition_fault(text) if what is What.IGNITION else ""


def _find_ignition_fault(text: str) -> str:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"it does not make JSON: {error}"
    section = data.get("ignition") if isinstance(data, dict) else None
    version = section.get("version") if isinstance(section, dict) else None
    if not isinstance(version, str) or not _IGNITION_VERSION.match(version):
        return "it makes no Ignition configuration: ignition.version is missing, or no version such as 3.4.0"
    return ""
