"""``python -m cli``: what ./pvmlab becomes."""

from __future__ import annotations

import sys

from cli import program


def main() -> int:
    """Run the command line and return its exit code."""
    # after the program's own modules: a mistake in a verb's module is reported like any other
    from tasks import namespace

    if sys.argv[1:2] == ["__complete"]:  # a shell asks, after TAB
        from cli.complete import answer

        answer(sys.argv[2:], namespace)
        return 0
    return program.run(namespace, sys.argv)


if __name__ == "__main__":
    sys.exit(main())
