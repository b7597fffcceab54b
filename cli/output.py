"""Results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contracts.document import encode
from pipeline.errors import ExitCode, UsageError

SCHEMA = 1  # of every JSON result; goes up when a reader would have to change
FORMATS = ("table", "json")


def say(text: str) -> None:
    """Tell people something that is not the result, on standard error, after what was printed before."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def require_format(output: str) -> None:
    """Check the word after ``--output``, before anything is done. :raises UsageError: if it is unknown."""
    if output not in FORMATS:
        raise UsageError(f"--output {output!r} is unknown", resolution=f"use one of: {', '.join(FORMATS)}")


def emit(data: Mapping[str, Any], *, output: str, table: Sequence[Sequence[str]]) -> None:
    """Write a result to standard output.

    :param data: the result for programs; dataclasses and enums in it become plain JSON. Gets a ``schema`` number.
    :param output: ``table`` or ``json``. :param table: the result for people: a row of headings, then the rows.
    :raises UsageError: for any other *output*.
    """
    require_format(output)
    if output == "json":
        document = {"schema": SCHEMA} | encode(dict(data))
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        _print_rich_table(table)
    else:
        sys.stdout.write(render_table(table))


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Run the block until Ctrl-C: that is how it is meant to end, and nothing is said of it.

    :raises Exit: with the exit code of what was interrupted.
    """
    from invoke import Exit  # here: this module is also used before there is a .venv

    try:
        yield
    except KeyboardInterrupt:
        raise Exit(code=ExitCode.INTERRUPTED.value) from None


def render_table(table: Sequence[Sequence[str]]) -> str:
    """Return *table* as aligned columns, two blanks apart, the first row being the headings."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "".join(f"{line}\n" for line in lines)


def _print_rich_table(rows: Sequence[Sequence[str]]) -> None:
    # imported here: 0.1 s that a pipe, a script and --list do not pay
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headings, *body = rows
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))  # Text: a name with [brackets] is not markup
    Console().print(table)  # honours NO_COLOR
