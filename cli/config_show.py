"""``./pvmlab config.show``: every setting, its value, and where that came from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli.failures import describe
from cli.output import emit
from contracts import document
from contracts.document import DocumentError, encode
from lab import provisioner_record
from lab.lab import Lab
from lab.network_settings import lan_path, read_settings, settings_path
from lab.provisioner_record import ProvisionerRecord
from pipeline.debian.apt_sources import host_mirror
from pipeline.errors import PvmlabError
from pipeline.workspace import Home, Workspace

DEFAULT = "default"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting.

    :ivar value: as it counts now; empty for none. :ivar source: ``environment``, ``default``, or the file that says it.
    :ivar fault: why it cannot be used; empty if it can.
    """

    name: str
    value: str
    source: str
    fault: str = ""


def show_settings(*, output: str) -> None:
    """Print all settings. :raises UsageError: for an unknown *output*."""
    settings = list(find_settings())
    table = [("SETTING", "VALUE", "FROM"), *((s.name, s.fault or s.value or "-", s.source) for s in settings)]
    emit({"settings": settings}, output=output, table=table)


def find_settings() -> Iterator[Setting]:
    """Yield all settings: those of the environment, then those of the lab."""
    workspace = Workspace.from_environment()
    for name, folder in (("PVMLAB_HOME", workspace.home.root), ("PVMLAB_CACHE", workspace.cache.root)):
        yield Setting(name, str(folder), _source(name))
    for name, default in (
        ("PVMLAB_DISTROS", ""),
        ("PVMLAB_OFFLINE", ""),
        ("PVMLAB_ACCEL", "probed"),
        ("PVMLAB_MODULES", "installer"),
        ("PVMLAB_WAIT_LOCK", "0"),
        ("PVMLAB_OUTPUT", "text"),
        ("PVMLAB_SSH_PORT", "the first free one"),
    ):
        yield Setting(name, os.environ.get(name) or default, _source(name))
    yield _mirror()
    for name in ("PVMLAB_DEBIAN_SECURITY_MIRROR", "NO_COLOR"):
        yield Setting(name, os.environ.get(name, ""), _source(name))
    yield from _of_lab(Lab(workspace))


def _source(variable: str) -> str:
    return "environment" if os.environ.get(variable) else DEFAULT


def _mirror() -> Setting:
    name = "PVMLAB_DEBIAN_MIRROR"
    if named := os.environ.get(name):
        return Setting(name, named, "environment")
    try:
        return Setting(name, host_mirror().archive, "apt's configuration")
    except PvmlabError as error:
        return Setting(name, "", "apt's configuration", fault=error.brief)


def _of_lab(lab: Lab) -> Iterator[Setting]:
    yield from _of_file("lan", lan_path(lab.home), lambda: lab.lan)
    yield from _of_file("network", settings_path(lab.home), lambda: read_settings(lab.home))
    yield from _of_provisioner(lab.home)


def _of_provisioner(home: Home) -> Iterator[Setting]:
    path, own = provisioner_record.record_path(home), home.config / "container.json"
    try:
        said = document.loads(ProvisionerRecord, path.read_bytes()) if path.exists() else ProvisionerRecord(uuid="")
        has_own = own.exists()
    except (DocumentError, OSError) as error:
        why = describe(error).message if isinstance(error, OSError) else str(error)
        yield Setting("provisioner", "", str(path), fault=why)
        return
    source = str(path) if path.exists() else DEFAULT
    yield Setting("provisioner.mode", said.mode.value, source)
    yield Setting("provisioner.interface", said.interface, source if said.interface else DEFAULT)
    yield Setting("provisioner.container", "your own" if has_own else "built-in", str(own) if has_own else DEFAULT)


def _of_file(prefix: str, path: Path, read: Callable[[], Any]) -> Iterator[Setting]:
    """Yield a setting for each field of what *read* returns, and whether the file at *path* says it."""
    try:
        values: dict[str, Any] = encode(read())
        said = json.loads(path.read_text()) if path.exists() else {}
    except (PvmlabError, OSError) as error:
        yield Setting(prefix, "", str(path), fault=describe(error).message)
        return
    for name, value in values.items():
        if name != "schema":
            yield Setting(f"{prefix}.{name}", str(value), str(path) if name in said else DEFAULT)
