"""Writes docs/reference/verbs.md from the verbs themselves.

``.venv/bin/python -m cli.reference >docs/reference/verbs.md``
"""

from __future__ import annotations

import contextlib
import io
import sys

from invoke import Collection

from cli.program import PvmlabProgram


def render_reference(namespace: Collection) -> str:
    """Return the page: the help of every verb, as ``--help`` prints it into a pipe.

    :param namespace: fresh verbs: invoke takes the help texts out of a task when it makes a parser.
    """
    program = PvmlabProgram(namespace)
    program.parse(["pvmlab"])
    parts = ["# Verbs", "`./pvmlab VERB --help` prints the same. `./pvmlab` alone lists the verbs."]
    for name in sorted(namespace.task_names, key=lambda name: ("." in name, name)):
        with contextlib.redirect_stdout(io.StringIO()) as page:
            program.print_task_help(name)
        parts.append(f"## {name}\n\n```\n{page.getvalue().rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    from tasks import namespace as verbs

    sys.stdout.write(render_reference(verbs))
