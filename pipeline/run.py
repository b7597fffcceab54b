"""The one door to processes.

Every child gets an argument list (never a shell string), a small environment in the C locale, no standard input
unless some is given, and a timeout. A child runs in a session of its own: a Ctrl-C on the terminal reaches us
only, and we end the child's whole process group, so that nothing outlives the command that started it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO, NoReturn

from pipeline.errors import CommandError, MissingProgramError

__all__ = [
    "PIPE", "Completed", "Popen", "attach", "end_all", "find_program", "inherited", "is_ending",
    "minimal_environment", "replace",
    "require_program", "resume", "run", "spawn",
]  # fmt: skip

TAIL_LINES = 25
_WATCH_EVERY = 0.5  # seconds
_TERMINATE_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = ("HOME", "USER", "LOGNAME", "TMPDIR", "XDG_RUNTIME_DIR", "SOURCE_DATE_EPOCH")
_running: set[Popen[bytes]] = set()  # children of run() in all threads, for end_all()
_ending = threading.Event()
_inherited: set[int] = set()  # descriptors that children of run() have open, see inherited()
_KEPT_FOR_NETWORK = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE",
                     "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Completed:
    """A command that ended.

    :ivar stdout: its standard output as text, empty if it went to a log or a file.
    :ivar stderr: its standard error, empty if it went to a log.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def minimal_environment(extra: Mapping[str, str] | None = None, *, network: bool = False) -> dict[str, str]:
    """Return the environment children get: PATH, HOME and little else, the C locale, plus *extra*.

    :param network: also hand over proxy and certificate settings, and what configures pip.
    """
    kept = (*_KEPT, *_KEPT_FOR_NETWORK) if network else _KEPT
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    if network:
        environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    path = os.environ.get("PATH", "")
    environment |= {"PATH": f"{path}:{_SYSTEM_PATH}" if path else _SYSTEM_PATH, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    return environment | dict(extra or {})


def find_program(name: str) -> str | None:
    """Return the full path of the program *name*, looking in sbin directories too, or None."""
    return shutil.which(name, path=minimal_environment()["PATH"])


def require_program(name: str) -> str:
    """Return the full path of the program *name*.

    :raises MissingProgramError: if it is not installed.
    """
    if path := find_program(name):
        return path
    raise MissingProgramError(name)


def run(  # noqa: PLR0913 (the one door has many hinges; all but the first are keywords)
    argv: Sequence[str | Path],
    *,
    timeout: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    network: bool = False,
    input: str | None = None,  # noqa: A002 (the name subprocess gives it)
    log: Path | None = None,
    stdout: IO[bytes] | None = None,
    check: bool = True,
    cleanup: bool = False,
    pass_fds: Sequence[int] = (),
    watch: Callable[[], None] | None = None,
) -> Completed:
    """Run a program to its end and return what it printed.

    :param timeout: seconds; after them its process group is ended.
    :param env: variables added to the minimal environment. :param network: see :func:`minimal_environment`.
    :param log: append standard error (and standard output, unless *stdout* takes it) to this file instead of
        returning it.
    :param stdout: an open file that takes standard output as it comes. :param check: raise if the status is not 0.
    :param cleanup: run it even while all else is being ended, see :func:`end_all`.
    :param pass_fds: descriptors the program inherits: a lock among them is held until it ends, too.
    :param watch: called every half second while the program runs; what it raises ends the program, and is raised.
    :raises CommandError: if it fails (with *check*) or runs out of time. :raises MissingProgramError: if there is none.
    """
    words = [os.fspath(word) for word in argv]
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(log.open("ab")) if log is not None else None
        process: Popen[bytes] | None = None
        out: bytes | None
        err: bytes | None
        try:
            with _interrupts_held():  # between its start and our knowing of it, nothing may be raised
                process = spawn(
                    words, cwd=cwd, env=env, network=network,
                    stdin=PIPE if input is not None else None,
                    stdout=stdout or sink or PIPE,
                    stderr=sink or PIPE,
                    pass_fds=(*pass_fds, *_inherited),
                )  # fmt: skip
                _running.add(process)
                stack.callback(_running.discard, process)
            if _ending.is_set() and not cleanup:  # asked after it is in _running: one of both sides sees the other
                _end_group(process)
            out, err = _communicate(process, input.encode() if input is not None else None, timeout, watch)
        except subprocess.TimeoutExpired:
            tail = _tail(*_end_group(process), log) if process is not None else []
            how = f"did not end within {timeout:g} s"
            raise CommandError(words, returncode=None, tail=tail, log=log, how=how) from None
        except BaseException:  # Ctrl-C and SIGTERM: nothing may outlive us
            if process is not None:
                _end_group(process)
            raise
    done = Completed(tuple(words), process.returncode, _text(out), _text(err))
    if check and done.returncode != 0:
        how = _describe_end(done.returncode, log)
        raise CommandError(words, returncode=done.returncode, tail=_tail(out, err, log), log=log, how=how)
    return done


def _communicate(
    process: Popen[bytes], data: bytes | None, timeout: float, watch: Callable[[], None] | None
) -> tuple[bytes | None, bytes | None]:
    """Wait for the end of *process*, asking *watch* meanwhile. :raises TimeoutExpired: if *timeout* is over."""
    if watch is None:
        return process.communicate(data, timeout=timeout)
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return process.communicate(data, timeout=max(0.0, min(left, _WATCH_EVERY)))
        except subprocess.TimeoutExpired:  # nothing of the output is lost, it goes on where it was
            data = None
            if left <= _WATCH_EVERY:
                raise
        watch()


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    network: bool = False,
    stdin: int | IO[bytes] | None = None,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Popen[bytes]:
    """Start a program in a session of its own and return at once; None for a stream means the null device.

    The caller owns the process: it waits for it, or records it so that a later command can end it.

    :raises MissingProgramError: if there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    try:
        return Popen(
            [require_program(words[0]), *words[1:]],
            cwd=cwd,
            env=minimal_environment(env, network=network),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=subprocess.DEVNULL if stdout is None else stdout,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except FileNotFoundError:  # removed since we looked
        raise MissingProgramError(words[0]) from None


def attach(argv: Sequence[str | Path]) -> int:
    """Run a program on our own terminal (its keyboard, its screen) and return its exit status.

    For interactive programs only: it shares our session, so Ctrl-C reaches it, and has no timeout.

    :raises MissingProgramError: if there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    # ssh forwards TERM and the locale to the guest
    env = {name: os.environ[name] for name in ("TERM", "LANG") if name in os.environ}
    return subprocess.call([require_program(words[0]), *words[1:]], env=minimal_environment(env))


def replace(argv: Sequence[str | Path]) -> NoReturn:
    """Become another program (``execve``).

    :raises MissingProgramError: if there is no such program.
    """
    words = [os.fspath(word) for word in argv]
    os.execve(require_program(words[0]), words, dict(os.environ))  # noqa: S606


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM until the block ends. Only the main thread gets them at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        for held in arrived:
            signal.raise_signal(held)


@contextlib.contextmanager
def inherited(descriptor: int) -> Iterator[None]:
    """Have every program that :func:`run` starts meanwhile, and what that starts, keep *descriptor* open."""
    _inherited.add(descriptor)
    try:
        yield
    finally:
        _inherited.discard(descriptor)


def end_all() -> None:
    """End every program that :func:`run` waits for or starts from now on, in whatever thread.

    For whoever learns of an interrupt. Stays so until :func:`resume`. Programs for cleaning up are let be.
    """
    _ending.set()
    for process in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def resume() -> None:
    """Let programs run again after :func:`end_all`."""
    _ending.clear()


def is_ending() -> bool:
    """Return whether :func:`end_all` was called: long work in a thread that is no program has to end, too."""
    return _ending.is_set()


def _end_group(process: Popen[bytes]) -> tuple[bytes | None, bytes | None]:
    """End the process and its group, politely and then by force; return what it had printed."""
    for name, grace in ((signal.SIGTERM, _TERMINATE_GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=grace)
    raise AssertionError("unreachable: SIGKILL has no timeout")


def _is_full(folder: Path) -> bool:
    space = os.statvfs(folder)
    has_no_inode = space.f_files > 0 and space.f_favail == 0  # btrfs counts none at all
    return space.f_bavail == 0 or has_no_inode


def _describe_end(returncode: int, log: Path | None) -> str:
    how = f"was ended by signal {-returncode}" if returncode < 0 else f"failed with exit status {returncode}"
    # its own words about a full disk could not be written there
    return f"{how}: the disk is full" if log is not None and _is_full(log.parent) else how


def _tail(out: bytes | None, err: bytes | None, log: Path | None) -> list[str]:
    text = _text(err).rstrip() or _text(out).rstrip()
    if not text and log is not None and log.exists():
        text = log.read_bytes()[-16_384:].decode(errors="replace").rstrip()
    return text.splitlines()[-TAIL_LINES:]


def _text(data: bytes | None) -> str:
    return (data or b"").decode(errors="replace")
