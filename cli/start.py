"""What ./pvmlab becomes if its environment is there: ``.venv/bin/python -I cli/start.py``, the short way in.

If the environment is not up to date, the long way is gone: ``./pvmlab`` as a Python program.
"""

import os
import sys

# isolated (-I): no module comes from the caller's settings or the directory he stands in
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from cli import bootstrap


def main() -> int:
    """Run the command line and return its exit code."""
    venv, lock = (os.path.join(bootstrap.REPOSITORY, name) for name in (".venv", "requirements.lock"))
    if not bootstrap.is_current(venv, lock):
        bootstrap.go_the_long_way(sys.argv[1:])
    bootstrap.clean_environment()
    from cli.__main__ import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
