"""The artifacts a machine is installed from, as files and as URLs."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from contracts import sidecar
from contracts.answers import BOOT_FILES
from contracts.install import PayloadSource
from contracts.machine import VmDefinition
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

ROOTFS = "rootfs.tar.zst"
KERNEL = "vmlinuz"
MODULES = "modules.cpio.gz"
INITRD = "initrd.gz"
_MAX_SIDECAR_BYTES = 1024 * 1024


def image_url(settings: Settings, machine: VmDefinition, name: str) -> str:
    """Return the URL of a file of the machine's distribution."""
    return f"{settings.lan.base_url}/images/{machine.distro}/{machine.arch}/{name}"


def native_url(settings: Settings, machine: VmDefinition, name: str) -> str:
    """Return the URL of a file that the distribution's own installer is booted from."""
    return image_url(settings, machine, f"native/{name}")


def initrd_url(settings: Settings, machine: VmDefinition) -> str:
    """Return the URL of the installer's initrd."""
    return f"{settings.lan.base_url}/initrds/{machine.arch}/{INITRD}"


def require_artifacts(settings: Settings, machine: VmDefinition) -> None:
    """Check that all an install needs is there, so that a machine is not sent half-way.

    :raises Refusal: 503, naming the first that is missing: it may be there at the next try.
    """
    folder = _image_folder(settings, machine)
    if machine.installer.is_native:
        for name in BOOT_FILES[machine.installer]:
            if _size(folder / "native" / name) is None:
                raise _missing(f"native/{name}", machine)
        return
    require_shell(settings, machine)
    require_rootfs(settings, machine)
    require_kernel(settings, machine)


def require_shell(settings: Settings, machine: VmDefinition) -> None:
    """Check that all the installer's shell needs is there, whatever installs the machine.

    :raises Refusal: 503, naming the first that is missing.
    """
    folder = _image_folder(settings, machine)
    for path in (folder / KERNEL, folder / MODULES, settings.initrds / machine.arch / INITRD):
        if _size(path) is None:
            raise _missing(path.name, machine)


def require_rootfs(settings: Settings, machine: VmDefinition) -> PayloadSource:
    """Return where the machine's root filesystem is and what it must be, as its sidecar says.

    :raises Refusal: 503 if the archive or its sidecar is missing or they do not belong together.
    """
    return _require_payload(settings, machine, ROOTFS)


def require_kernel(settings: Settings, machine: VmDefinition) -> PayloadSource:
    """Return where the kernel of the installer is and what it must be, as its sidecar says.

    :raises Refusal: 503 if the kernel or its sidecar is missing or they do not belong together.
    """
    return _require_payload(settings, machine, KERNEL)


def _require_payload(settings: Settings, machine: VmDefinition, name: str) -> PayloadSource:
    path = _image_folder(settings, machine) / name
    about = path.with_name(f"{name}{sidecar.SUFFIX}")
    record = _read_sidecar(about, machine)
    size = _size(path)
    if size is None:
        raise _missing(name, machine)
    try:
        source = PayloadSource(
            url=image_url(settings, machine, name), sha256=str(record["sha256"]), size=int(record["size"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad_sidecar(about, machine, str(error)) from None
    if source.size != size:
        raise _bad_sidecar(about, machine, f"it says {source.size} bytes, {name} has {size}")
    return source


def _image_folder(settings: Settings, machine: VmDefinition) -> Path:
    return settings.images / machine.distro / machine.arch


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read_sidecar(path: Path, machine: VmDefinition) -> dict[str, Any]:
    try:
        about = path.stat()
        data = _parsed(path, (about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino))
    except OSError:
        raise _missing(path.name, machine) from None
    except ValueError as error:
        raise _bad_sidecar(path, machine, f"not JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != sidecar.SCHEMA:
        raise _bad_sidecar(path, machine, f"its schema is not {sidecar.SCHEMA}")
    return data


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, signature: tuple[int, ...]) -> Any:  # noqa: ARG001 (another file, another call)
    """Return what the sidecar *path* holds; it is read once, however often asked.

    :raises OSError: if it cannot be read. :raises ValueError: if it is not JSON.
    """
    with path.open("rb") as stream:
        try:
            return json.loads(stream.read(_MAX_SIDECAR_BYTES))
        except RecursionError as error:
            raise ValueError(str(error)) from None


def _missing(name: str, machine: VmDefinition) -> Refusal:
    return Refusal(
        503, f"the artifact {name} of {machine.distro} {machine.arch} is not built yet; run doit on the host"
    )


def _bad_sidecar(path: Path, machine: VmDefinition, reason: str) -> Refusal:
    name = path.name.removesuffix(sidecar.SUFFIX)
    return Refusal(
        503, f"the sidecar of {name} of {machine.distro} {machine.arch} is not right: {reason}; run doit on the host"
    )
