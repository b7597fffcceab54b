"""Python packages for an image: wheels pinned by a lock file, unpacked without installing them.

pip would write scripts with the path of the Python it runs under, and their digests into the packages' records: the
image would depend on where this checkout is. Only wheels are taken whose files are stored as they are imported.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from contracts.arch import Arch
from pipeline.artifact import Making
from pipeline.digests import file_digest
from pipeline.errors import PvmlabError
from pipeline.run import run

_TIMEOUT = 600.0
_PLATFORMS = ("manylinux2014", "manylinux_2_28")  # each with all older ones; pip does not take the one for the other


def fetch_wheels(lock: Path, into: Path, *, python_version: str, arch: Arch, making: Making) -> list[Path]:
    """Fetch the wheels of a lock file to the directory *into*; return them, sorted.

    They are for a CPython of *python_version* on Linux with glibc 2.28 or later (PEP 600), whatever runs here.

    :raises CommandError: if pip cannot fetch one, or its digest is not in the lock file.
    """
    making.report("fetching Python packages")
    run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:",
         f"--python-version={python_version}", *[f"--platform={name}_{arch}" for name in _PLATFORMS],
         "--dest", into, "--requirement", lock],
        timeout=_TIMEOUT, network=True, log=making.log,
    )  # fmt: skip
    return sorted(into.glob("*.whl"))


def unpack_wheels(wheels: Sequence[Path], site: Path) -> None:
    """Unpack the files of *wheels* to the directory *site*.

    :raises PvmlabError: if one has files that belong elsewhere.
    """
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if elsewhere := [name for name in archive.namelist() if name.split("/")[0].endswith(".data")]:
                raise PvmlabError(f"{wheel.name} is no pure wheel", details=f"it has {elsewhere[0]}")
            archive.extractall(site)


def wheel_fact(wheel: Path) -> dict[str, str]:
    """Return what a sidecar says of a wheel; its name tells name and version (PEP 427)."""
    name, version, *_ = wheel.name.split("-")
    return {"type": "pypi", "name": name.replace("_", "-"), "version": version, "sha256": file_digest(wheel)}
