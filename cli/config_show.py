"""``./pvmlab config.show``: every setting, its value, and where that came from."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli.output import emit
from contracts.document import encode
from lab import provisioner_record
from lab.lab import Lab
from lab.network_settings import lan_path, read_settings, settings_path
from pipeline.debian.apt_sources import host_mirror
from pipeline.errors import PvmlabError
from pipeline.workspace import Workspace

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
    for name, default in (
        ("PVMLAB_HOME", str(workspace.home.root)),
        ("PVMLAB_CACHE", str(workspace.cache.root)),
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
    record = provisioner_record.record_path(lab.home)
    source = str(record) if record.exists() else DEFAULT
    yield Setting("provisioner.mode", lab.provisioner_mode.value, source)
    choice = lab.home.config / "container.json"
    yield Setting("provisioner.container", "your own" if choice.exists() else "built-in",
                  str(choice) if choice.exists() else DEFAULT)  # fmt: skip


def _of_file(prefix: str, path: Path, read: Callable[[], Any]) -> Iterator[Setting]:
    """Yield a setting for each field of what *read* returns, and whether the file at *path* says it."""
    try:
        values: dict[str, Any] = encode(read())
        said = json.loads(path.read_text()) if path.exists() else {}
    except PvmlabError as error:
        yield Setting(prefix, "", str(path), fault=error.brief)
        return
    for name, value in values.items():
        if name != "schema":
            yield Setting(f"{prefix}.{name}", str(value), str(path) if name in said else DEFAULT)
