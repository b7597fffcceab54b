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
    text = user_templates.render(
        machine, What(kind), settings, token=token, standard=lambda: ours(machine, settings.lan)
    )
    return ours(machine, settings.lan) if text is None else text


def check(machine: VmDefinition, settings: Settings) -> None:
    """Render the documents that a person's templates make.

    :raises Refusal: 500 if one cannot be.
    """
    for kind in nocloud.DOCUMENTS:
        if user_templates.find(machine, What(kind), settings) is not None:
            render(machine, kind, settings, token=PLACEHOLDER)
