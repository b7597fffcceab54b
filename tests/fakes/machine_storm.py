"""Many machines that ask for their boot scripts at once, each from its own address, as a process of its own.

``python -m tests.fakes.machine_storm HOST PORT WIDTH < machines.json``: the input is a list of objects with ``name``,
``mac`` and ``ip``; *WIDTH* requests are under way at a time, each on a connection that is open before. Writes an object
with the milliseconds of each request, from its first byte out to its last byte in, and what was wrong with answers.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TypedDict


class Target(TypedDict):
    """A machine."""

    name: str
    mac: str
    ip: str


class Outcome(TypedDict):
    """What came of it. :ivar seconds: from the first request to the last answer."""

    milliseconds: list[float]
    wrong: list[str]
    seconds: float


async def storm(host: str, port: int, width: int, machines: list[Target]) -> Outcome:
    """Have all *machines* ask, *width* of them at a time."""
    gate = asyncio.Semaphore(width)
    opened = [await asyncio.open_connection(host, port, local_addr=(each["ip"], 0)) for each in machines]
    milliseconds: list[float] = []
    wrong: list[str] = []

    async def ask(machine: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with gate:
            begun = time.perf_counter()
            writer.write(f"GET /ipxe?mac={machine['mac']} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            answer = (await reader.read(-1)).decode()
            milliseconds.append((time.perf_counter() - begun) * 1000)
        if " 200 " not in answer.partition("\r\n")[0] or f"pvmlab: {machine['name']} " not in answer:
            wrong.append(f"{machine['name']}: {answer[:200]}")
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(ask(machine, *link) for machine, link in zip(machines, opened, strict=True)))
    return {"milliseconds": milliseconds, "wrong": wrong, "seconds": time.perf_counter() - begun}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(storm(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), json.load(sys.stdin)))))  # noqa: T201
