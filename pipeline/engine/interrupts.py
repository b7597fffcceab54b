"""Ctrl-C and SIGTERM while recipes run in threads: noticed for certain, and first of all the programs are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from pipeline.run import end_all, resume

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT = 0.2  # seconds between two knocks at the main thread's door


class Interrupts:
    """What came. :ivar seen: whether the main thread has learned of Ctrl-C or SIGTERM."""

    seen = False


@contextlib.contextmanager
def interrupts_end_programs() -> Iterator[Interrupts]:
    """Have SIGINT and SIGTERM end the programs of all recipes, then raise KeyboardInterrupt in the main thread.

    The exception may get lost in the code between (in a bare ``except``, say); the programs are then gone all the
    same, and *seen* tells. In another thread than the main one nothing is done: it gets no signals.
    """
    state = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield state
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if not state.seen:
            state.seen = True
            end_all()
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        with _main_thread_awake(state):
            yield state
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        resume()


@contextlib.contextmanager
def _main_thread_awake(state: Interrupts) -> Iterator[None]:
    """See to it that the main thread notices a signal that arrives just before it blocks.

    CPython's handler only takes a note, which the main thread reads between two instructions; if it goes to sleep on a
    lock right then (doit waits for its threads so), it sleeps until a thread ends. A test here hung once in 40 runs.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    main = threading.main_thread().ident
    assert main is not None  # noqa: S101 (it runs: we are in it)

    def knock() -> None:
        while number := os.read(reader, 1)[0]:  # 0 is ours, for the end
            while not state.seen:
                signal.pthread_kill(main, number)
                threading.Event().wait(_REPEAT)

    watcher = threading.Thread(target=knock, name="interrupts", daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(writer, b"\0")
        watcher.join()
        os.close(reader)
        os.close(writer)
