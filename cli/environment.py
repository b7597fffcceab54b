"""Making ``.venv`` from ``requirements.lock``, with uv where there is one, else with venv and pip.

A virtual environment cannot be moved, so it is made in place, under a lock, and its stamp is written last: without
the right stamp it is made again. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from cli.bootstrap import STAMP, is_current, stamp
from cli.output import say
from cli.setup import install_packages
from pipeline.commit import publish_text
from pipeline.errors import CommandError, PrerequisiteError, WaitTimeoutError
from pipeline.run import find_program, run

INSTALL_TIMEOUT = 1200.0  # seconds; some 40 packages, 60 MB, over a slow line
LOCK_TIMEOUT = 1500.0  # seconds; somewhat longer than the other one may take


def make(venv: Path, lock: Path) -> None:
    """Make the environment, unless another process does or just did.

    :raises PvmlabError: if it cannot be made, or the other process does not come to an end.
    """
    # SIGTERM must end the installer's process too, which Ctrl-C's way does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _only_one(lock) as held:
        if is_current(venv, lock):
            return
        say("making .venv from requirements.lock (once; a quarter of a minute)")
        uv = find_program("uv")
        if uv is None or not _made_with_uv(uv, venv, lock, held=held):
            _make_with_pip(venv, lock, held=held)
        publish_text(venv / STAMP, stamp(venv, lock))


@contextmanager
def _only_one(lock: Path) -> Iterator[int]:
    """Hold a kernel lock on the lock file and yield its descriptor.

    The lock ends with this process, however that ends, and with the programs that the descriptor is passed to: if we
    are killed, nobody begins anew while pip still writes.
    """
    with lock.open("rb") as held:
        if not _try_lock(held.fileno()):
            say("waiting for another pvmlab that is making .venv")
            deadline = time.monotonic() + LOCK_TIMEOUT
            while not _try_lock(held.fileno()):
                if time.monotonic() > deadline:
                    raise WaitTimeoutError(
                        "another pvmlab is making .venv and does not come to an end",
                        details=f"waited {LOCK_TIMEOUT:g} s for the lock on {lock}",
                        resolution="end the other ./pvmlab, then try again",
                    )
                time.sleep(0.2)
        yield held.fileno()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _made_with_uv(uv: str, venv: Path, lock: Path, *, held: int) -> bool:
    settings = {name: value for name, value in os.environ.items() if name.startswith("UV_")}
    _remove(venv)
    try:
        run(
            [uv, "venv", "--quiet", "--no-project", "--python", sys.executable, venv],
            timeout=60,
            env=settings,
            network=True,
            pass_fds=[held],
        )
        run(
            [uv, "pip", "install", "--quiet", "--require-hashes", "--python", venv / "bin/python", "-r", lock],
            timeout=INSTALL_TIMEOUT,
            env=settings,
            network=True,
            pass_fds=[held],
        )
    except CommandError as error:  # it does not read pip's configuration, which may name the only index in reach
        say(f"{error.brief}; using pip instead")
        return False
    return True


def _make_with_pip(venv: Path, lock: Path, *, held: int) -> None:
    if find_spec("ensurepip") is None or find_spec("venv") is None:
        _install_venv_package()
    _remove(venv)
    # -I: no module from the directory one stands in
    run([sys.executable, "-I", "-m", "venv", venv], timeout=300, pass_fds=[held])
    run(
        [venv / "bin/python", "-I", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
         "--no-compile", "--require-hashes", "-r", lock],
        timeout=INSTALL_TIMEOUT, network=True, pass_fds=[held],
    )  # fmt: skip


def _install_venv_package() -> None:
    """Install what Debian splits off Python: the package with venv's ensurepip."""
    package = f"python3.{sys.version_info.minor}-venv"
    if find_program("apt-get") is None:
        raise PrerequisiteError(
            f"{sys.executable} cannot make virtual environments: its modules venv and ensurepip are missing",
            resolution="install your system's package with Python's venv module, or install uv",
        )
    install_packages([package], reason="to make .venv")


def _remove(venv: Path) -> None:
    """Remove the environment, its stamp first: a half-removed one is never taken for a whole one."""
    (venv / STAMP).unlink(missing_ok=True)
    if venv.is_symlink():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)
