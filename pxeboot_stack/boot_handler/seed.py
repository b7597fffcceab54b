"""The NoCloud documents of a machine: the contract's, or what a person's template makes of them."""

from __future__ import annotations

from contracts import nocloud
from contracts.machine import VmDefinition
from contracts.templates import What
from contracts.tokens import PLACEHOLDER
from pxeboot_stack.boot_handler import user_templates
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings


def render(machine: VmDefinition, kind: str, settings: Settings, *, token: str) -> str:
    """Return the NoCloud document *kind* of *machine*.

    :raises Refusal: 404 if there is no such document; 500 if the template for it cannot be used.
    """
    ours = nocloud.DOCUMENTS.get(kind)
    if ours is None:
        raise Refusal(404, f"{kind!r} is no NoCloud document; there are {', '.join(nocloud.DOCUMENTS)}")

    def standard() -> str:
        text, own = ours(machine, settings.lan), _own(machine, settings) if kind == What.USER_DATA else None
        return text if own is None else nocloud.combine_user_data(text, own)

    text = user_templates.render(machine, What(kind), settings, token=token, standard=standard)
    return standard() if text is None else text


def _own(machine: VmDefinition, settings: Settings) -> str | None:
    """Return the user-data that a person wrote for *machine* alone, or None."""
    path = settings.vms / f"{machine.name}{nocloud.OWN_USER_DATA_SUFFIX}"
    return user_templates.read(path, "the user-data", machine) if path.exists() else None


def check(machine: VmDefinition, settings: Settings) -> None:
    """Render the documents that a person's templates make.

    :raises Refusal: 500 if one cannot be.
    """
    for kind in nocloud.DOCUMENTS:
        if user_templates.find(machine, What(kind), settings) is not None:
            render(machine, kind, settings, token=PLACEHOLDER)
