"""The verbs of a whole lab that a file describes, ``lab.*``."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

from cli.verbs.words import OUTPUT

_RESULT = "table: it is told as it goes; json: at the end also an object with what became of each machine"
_FILE = "the file that says what the lab is to be (default: lab.yaml)"


@task(name="up", positional=[], iterable=["file"], auto_shortflags=False, help={
    "file": _FILE,
    "recreate": "make machines anew that cannot be changed: what is on their disks is lost",
    "prune": "remove machines that the file does not name: what is on their disks is lost",
    "yes": "do not ask before something is lost",
    "jobs": "machines on their way at once (default: what the host is good for)",
    "timeout": "seconds to wait at most for each machine (default: enough for one many times slower than this one)",
    "output": _RESULT,
})  # fmt: skip
def lab_up(
    _c: Context, file: Sequence[str], *, recreate: bool = False, prune: bool = False, yes: bool = False,
    jobs: int = 0, timeout: int = 0, output: str = "table",
) -> None:  # fmt: skip
    """Make the lab what a file says, and bring all its machines up, several at once.

    Again: says that everything is up. `lab.diff` shows beforehand what it would do. A machine that fails holds up only
    those that wait for it. Ctrl-C stops what it started; the next `lab.up` carries on.
    """
    from cli.lab_verbs import up

    raise Exit(code=up(
        file, recreate=recreate, prune=prune, yes=yes, jobs=jobs, timeout=timeout or None, output=output
    ))  # fmt: skip


@task(name="down", positional=[], iterable=["file"], auto_shortflags=False, help={
    "file": _FILE,
    "timeout": "seconds for the guests to shut down, then force is used",
    "output": _RESULT,
})  # fmt: skip
def lab_down(_c: Context, file: Sequence[str], timeout: int = 60, output: str = "table") -> None:
    """Stop the machines of a file, and the provisioner if no other machine runs. What is on their disks stays."""
    from cli.lab_verbs import down

    down(file, timeout=timeout, output=output)


@task(name="status", positional=[], iterable=["file"], auto_shortflags=False, help={"file": _FILE, "output": OUTPUT})
def lab_status(_c: Context, file: Sequence[str], output: str = "table") -> None:
    """Show the machines of a file: how each stands, what it waits for, and what is other than the file says."""
    from cli.lab_verbs import show_status

    show_status(file, output=output)


@task(name="diff", positional=[], iterable=["file"], auto_shortflags=False, help={
    "file": _FILE,
    "prune": "as `lab.up --prune` would do it",
    "output": OUTPUT,
})  # fmt: skip
def lab_diff(_c: Context, file: Sequence[str], *, prune: bool = False, output: str = "table") -> None:
    """Show what `lab.up` would do, and why; nothing if everything is as the file says. Nothing is changed."""
    from cli.lab_verbs import show_diff

    show_diff(file, prune=prune, output=output)


collection = Collection(lab_up, lab_down, lab_status, lab_diff)
