"""A private network made of two network namespaces, and calls of functions inside one of them."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.errors import PvmlabError
from pipeline.run import run
from tests.fakes.web_client import PATIENCE, Reply, request

T = TypeVar("T")
CLIENT = "cli0"


@contextlib.contextmanager
def joined_namespaces() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a cable: ``lan0`` with .1 here, ``cli0`` with .11 and .12 there."""
    here, there = (f"pvmlab-{secrets.token_hex(3)}-{end}" for end in ("lan", "cli"))
    with contextlib.ExitStack() as stack:
        try:
            for name in (here, there):
                run(["ip", "netns", "add", name], timeout=10)
                stack.callback(run, ["ip", "netns", "delete", name], timeout=10)
            run(["ip", "link", "add", "lan0", "netns", here, "type", "veth",
                 "peer", "name", CLIENT, "netns", there], timeout=10)  # fmt: skip
        except PvmlabError as error:
            pytest.skip(f"no network namespaces here: {error.brief}: {error.details.splitlines()[-1:]}")
        for name, interface, last in ((here, "lan0", 1), (there, CLIENT, 11), (there, CLIENT, 12)):
            run(["ip", "-n", name, "address", "add", f"192.168.100.{last}/24", "dev", interface], timeout=10)
            run(["ip", "-n", name, "link", "set", interface, "up"], timeout=10)
            run(["ip", "-n", name, "link", "set", "lo", "up"], timeout=10)
        yield here, there


class Inside:
    """Calls functions inside a network namespace, in a thread that stays there."""

    def __init__(self, namespace: str) -> None:
        self._pool = ThreadPoolExecutor(1, initializer=_enter, initargs=(namespace,))

    def call(self, function: Callable[..., T], *arguments: Any, **more: Any) -> T:
        return self._pool.submit(function, *arguments, **more).result(timeout=PATIENCE)

    def ask(self, path: str, **more: Any) -> Reply:
        return self.call(request, "192.168.100.1:80", path, **more)

    def close(self) -> None:
        self._pool.shutdown()


def _enter(namespace: str) -> None:
    with Path(f"/run/netns/{namespace}").open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
