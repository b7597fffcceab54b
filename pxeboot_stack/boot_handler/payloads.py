"""What the installer's initrds must unpack to, as their sidecars say: the installer compares."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

from contracts import sidecar
from contracts.machine import VmDefinition
from pxeboot_stack.boot_handler.artifacts import INITRD, MODULES
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

TREE = "tree"  # the fact's name in a sidecar
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MAX_SIDECAR_BYTES = 1024 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Payloads:
    """Tree digests (contracts.payload). :ivar initrd: of the installer's initrd. :ivar modules: of the modules."""

    initrd: str
    modules: str


def require_payloads(settings: Settings, machine: VmDefinition) -> Payloads:
    """Return the digests for *machine*.

    :raises Refusal: 503 if a sidecar is missing, has none, or does not belong to its archive.
    """
    return Payloads(
        initrd=_tree(settings.initrds / machine.arch / INITRD, machine),
        modules=_tree(settings.images / machine.distro / machine.arch / MODULES, machine),
    )


def _tree(archive: Path, machine: VmDefinition) -> str:
    path = archive.with_name(f"{archive.name}{sidecar.SUFFIX}")
    try:
        about, size = path.stat(), archive.stat().st_size
        promised, tree = _read(path, (about.st_mtime_ns, about.st_size, about.st_ino))
    except OSError as error:
        raise _bad(archive, machine, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise _bad(archive, machine, str(error)) from None
    if promised != size:
        raise _bad(archive, machine, f"is not right: it says {promised} bytes, the archive has {size}")
    return tree


@functools.lru_cache(maxsize=256)
def _read(path: Path, signature: tuple[int, int, int]) -> tuple[int, str]:  # noqa: ARG001 (another file, another call)
    """Return the size and the tree digest that the sidecar *path* tells. A file is read once, however often asked.

    :raises OSError: if it cannot be read. :raises ValueError: if it does not tell.
    """
    with path.open("rb") as stream:
        data = stream.read(_MAX_SIDECAR_BYTES)
    try:
        record: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("schema") != sidecar.SCHEMA:
        raise ValueError(f"is not right: its schema is not {sidecar.SCHEMA}")
    size, facts = record.get("size"), record.get("facts")
    tree = facts.get(TREE) if isinstance(facts, dict) else None
    if not isinstance(size, int) or not isinstance(tree, str) or not _DIGEST.match(tree):
        raise ValueError("does not say what the archive unpacks to")
    return size, tree


def _bad(archive: Path, machine: VmDefinition, reason: str) -> Refusal:
    what = f"the sidecar of {archive.name} for {machine.distro} {machine.arch}"
    return Refusal(503, f"{what} {reason}; run doit on the host")
