"""The installer's one door to processes: argument lists, no standard input unless some is given, always a timeout."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import IO, Self, cast

from contracts.report import MAX_REPORT_LINES
from installer.errors import InstallError

_PIPE_SIZE = 1 << 20  # F_SETPIPE_SZ's largest for ordinary users; fewer switches between the three processes


class CommandError(InstallError):
    """A program failed. :ivar argv: what ran."""

    def __init__(self, argv: Sequence[str], how: str, *, output: bytes) -> None:
        self.argv = tuple(argv)
        lines = output.decode(errors="replace").rstrip().splitlines()[-(MAX_REPORT_LINES - 1) :]
        super().__init__(f"{argv[0]} {how}", lines=(f"$ {shlex.join(argv)}", *lines))


def run(argv: Sequence[str], *, timeout: float, input: str = "") -> str:  # noqa: A002 (the name subprocess gives it)
    """Run a program to its end and return what it printed, errors included.

    :param timeout: seconds, after which it is killed.
    :raises CommandError: if it fails, cannot be started or runs out of time.
    """
    try:
        done = subprocess.run(
            argv, input=input.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(argv, f"did not end within {timeout:g} s", output=error.output or b"") from None
    except OSError as error:
        raise CommandError(argv, f"could not be started: {error.strerror}", output=b"") from None
    if done.returncode != 0:
        raise CommandError(argv, _how(done.returncode), output=done.stdout)
    return done.stdout.decode(errors="replace")


class Pipeline:
    """Programs joined by pipes, fed by :meth:`write`. Leaving the ``with`` block early kills them.

    :param stall: seconds that a write may wait for the first program to take data, and the end for the last one.
    """

    def __init__(self, *argvs: Sequence[str], stall: float) -> None:
        self._argvs = argvs
        self._stall = stall
        self._messages = os.memfd_create("stderr")
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        source: int | IO[bytes] = subprocess.PIPE
        for argv in self._argvs:
            sink = self._messages if argv is self._argvs[-1] else subprocess.PIPE
            try:
                process = subprocess.Popen(argv, stdin=source, stdout=sink, stderr=self._messages, pipesize=_PIPE_SIZE)
            except OSError as error:
                self._kill()
                raise CommandError(argv, f"could not be started: {error.strerror}", output=b"") from None
            if not isinstance(source, int):
                source.close()  # only the next program may hold this end, or it never sees the end of its input
            self._processes.append(process)
            source = process.stdout or subprocess.DEVNULL
        os.set_blocking(self._feed.fileno(), False)
        return self

    def write(self, data: bytes) -> None:
        """Hand *data* to the first program.

        :raises CommandError: if a program has died, or none of it is taken for too long.
        """
        rest = memoryview(data)
        while rest:
            if not select.select([], [self._feed], [], self._stall)[1]:
                raise CommandError(self._argvs[0], f"took no data for {self._stall:g} s", output=self._output())
            try:
                rest = rest[os.write(self._feed.fileno(), rest) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self.finish()
                raise CommandError(self._argvs[0], "ended before its input", output=self._output()) from None

    def finish(self) -> None:
        """End the input and wait for all programs.

        :raises CommandError: for the last program that failed: when one dies, those before it break their pipes.
        """
        self._feed.close()
        failed = None
        for argv, process in zip(self._argvs, self._processes, strict=True):
            try:
                status = process.wait(timeout=self._stall)
            except subprocess.TimeoutExpired:
                raise CommandError(argv, f"did not end within {self._stall:g} s", output=self._output()) from None
            if status != 0:
                failed = argv, status
        if failed is not None:
            raise CommandError(failed[0], _how(failed[1]), output=self._output())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._kill()
        os.close(self._messages)

    @property
    def _feed(self) -> IO[bytes]:
        return cast("IO[bytes]", self._processes[0].stdin)

    def _output(self) -> bytes:
        return os.pread(self._messages, 16_384, max(0, os.fstat(self._messages).st_size - 16_384))

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def _how(status: int) -> str:
    return f"was ended by signal {-status}" if status < 0 else f"failed with exit status {status}"
