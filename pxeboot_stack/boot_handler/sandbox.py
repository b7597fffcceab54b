"""Where templates are rendered: Jinja2 in its sandbox, with bounds on what a template can use up.

The sandbox keeps a template from attributes that lead out of its values, and from changing these. A template of a
person is trusted no further than that: what it makes is bounded, so that a slip of the pen in one machine's template
does not take the memory, or for long the time, of the boot handler that serves all the others. It is no defence
against a person who sets out to keep it busy (a text that a loop doubles, say, is not bounded): whoever writes
templates owns the lab.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxeboot_stack.boot_handler.quoting import FILTERS, require_quoted

if TYPE_CHECKING:
    from jinja2.sandbox import SandboxedEnvironment

_OURS = Path(__file__).parents[1] / "templates" / "answers"
MAX_RENDERED = 1024 * 1024  # characters
MAX_STEPS = 100_000  # of all the ranges of one rendering together
_MAX_REPEATED = 1024 * 1024  # of what `*` and `%` make


class TooMuchError(ValueError):
    """A template makes more than there is room for."""


def render_ours(name: str, values: Mapping[str, Any]) -> str:
    """Return our template *name* (a file of ``templates/answers``), in which each value must have passed a filter.

    :raises Exception: whatever the template raises.
    """
    return _environment(strict=True).get_template(name).render(values)


def render_text(text: str, values: Mapping[str, Any]) -> str:
    """Return a person's template *text*, which can include no files.

    :raises Exception: whatever the template raises. :raises TooMuchError: if it makes too much.
    """
    steps = 0

    def bounded_range(*arguments: int) -> range:
        nonlocal steps
        made = range(*arguments)
        steps += len(made)
        if steps > MAX_STEPS:
            raise TooMuchError(f"its loops take more than {MAX_STEPS} steps")
        return made

    made, length = [], 0
    template = _environment(strict=False).from_string(text, globals={"range": bounded_range})
    for piece in template.generate(dict(values)):
        length += len(piece)
        if length > MAX_RENDERED:
            raise TooMuchError(f"it is longer than {MAX_RENDERED} characters when it is rendered")
        made.append(piece)
    return "".join(made)


def require_syntax(text: str) -> None:
    """Check that *text* is a template at all.

    :raises TemplateSyntaxError: (of jinja2) if not.
    """
    _environment(strict=False).parse(text)


@functools.cache
def _environment(*, strict: bool) -> SandboxedEnvironment:
    """Return where templates are rendered. :param strict: for ours: refuse values that passed no filter."""
    # Here, not above: its import takes a second under emulation, and installs by pvmlab need none of it.
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _require_small(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            # These make as many blanks as they are told; a document needs none of them.
            is_padding = isinstance(obj, str) and attr in {"center", "ljust", "rjust", "zfill", "expandtabs"}
            return not is_padding and super().is_safe_attribute(obj, attr, value)

    environment = Bounded(
        undefined=StrictUndefined,
        loader=FileSystemLoader(_OURS) if strict else None,  # a person's template includes none of ours
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # no HTML: every value is quoted by a filter for what it stands in
        finalize=require_quoted if strict else None,
    )
    for name in ("center", "format"):  # the padding of the above
        del environment.filters[name]
    del environment.globals["lipsum"]  # makes as much as it is told
    environment.filters.update(FILTERS)
    return environment


def _require_small(operator: str, left: Any, right: Any) -> None:
    """Refuse to repeat a sequence, to raise a number or to pad a text beyond what a document needs.

    :raises TooMuchError: if it is too much.
    """
    if operator == "%" and isinstance(left, (str, bytes)):
        raise TooMuchError("% makes text of any width; use ~ to join")
    if operator == "**" and (abs(left) > 1024 or abs(right) > 64):
        raise TooMuchError("** makes a number that no document needs")
    if operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if hasattr(sequence, "__len__") and isinstance(count, int) and len(sequence) * count > _MAX_REPEATED:
                raise TooMuchError(f"* makes more than {_MAX_REPEATED} pieces")


__all__ = ["MAX_RENDERED", "MAX_STEPS", "TooMuchError", "render_ours", "render_text", "require_syntax"]
