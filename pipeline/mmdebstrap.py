"""Debian root filesystems and package trees, made by mmdebstrap: without root where the host allows it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from contracts.arch import Arch
from pipeline.apt_sources import Mirror
from pipeline.artifact import Making
from pipeline.errors import PvmlabError
from pipeline.run import run

ZSTD_LEVEL = 9
_TIMEOUT = 3600.0  # seconds; a slow mirror is slow, but not for ever
_DOCUMENTATION = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/lintian/*",
)
_VERSION = re.compile(r"mmdebstrap (\S+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageSet:
    """What to install.

    :ivar variant: mmdebstrap's: ``minbase`` for a system, ``extract`` for the packages' files alone, unconfigured.
    :ivar exclude: dpkg path patterns left out, besides documentation and translations.
    :ivar customize: shell text run at the end with the tree as ``$1`` (mmdebstrap's customize hook).
    """

    suite: str
    arch: Arch
    packages: tuple[str, ...]
    variant: str = "minbase"
    exclude: tuple[str, ...] = ()
    customize: str = ""

    def options(self) -> dict[str, object]:
        """Everything about it that decides the result, for the artifact's key."""
        return {**dataclasses.asdict(self), "zstd": ZSTD_LEVEL}


def mmdebstrap_arguments(wanted: PackageSet, mirror: Mirror) -> list[str]:
    """Return the command line that writes *wanted* as a tar to standard output."""
    return [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--format=tar",
        f"--variant={wanted.variant}",
        f"--architectures={wanted.arch.debian}",
        f"--include={','.join(wanted.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in (*_DOCUMENTATION, *wanted.exclude)),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",  # licences travel with the programs
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={option}" for option in mirror.options),
        *([f"--customize-hook={wanted.customize}"] if wanted.customize else []),
        wanted.suite,
        "-",
        *mirror.source_lines(wanted.suite),
    ]


def make_tar(wanted: PackageSet, mirror: Mirror, output: Path, *, making: Making) -> Mapping[str, str]:
    """Write *wanted* as an uncompressed tar; return the tool's version.

    :raises CommandError: if mmdebstrap fails; its log has the reason.
    """
    with output.open("wb") as stream:
        run(mmdebstrap_arguments(wanted, mirror), timeout=_TIMEOUT, network=True, log=making.log, stdout=stream)
    return {"mmdebstrap": mmdebstrap_version()}


def make_tar_zst(wanted: PackageSet, mirror: Mirror, *, making: Making) -> Mapping[str, Any]:
    """Write *wanted* as a zstd-compressed tar to the making's only output.

    :returns: facts for the sidecar: the tools' versions, and each installed package with its version.
    """
    plain = making.scratch / "rootfs.tar"
    versions = make_tar(wanted, mirror, plain, making=making)
    # Two threads always: the number is part of what the compressed bytes depend on, the host's cores must not be.
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=2, write_checksum=True)
    with plain.open("rb") as source, making.output.open("wb") as sink:
        compressor.copy_stream(source, sink, size=plain.stat().st_size)
    return {**versions, "zstandard": zstandard.__version__, "packages": installed_packages(plain)}


def extract_packages(wanted: PackageSet, mirror: Mirror, into: Path, *, making: Making) -> Mapping[str, str]:
    """Unpack the packages' files into the directory *into*, owned by us; return the tool's version."""
    plain = making.scratch / "packages.tar"
    versions = make_tar(wanted, mirror, plain, making=making)
    into.mkdir()
    run(
        ["tar", "--extract", "--file", plain, "--directory", into, "--no-same-owner", "--exclude=./dev/*"],
        timeout=_TIMEOUT, log=making.log,
    )  # fmt: skip
    plain.unlink()
    return versions


def installed_packages(archive: Path) -> dict[str, str]:
    """Return the version of each package that dpkg has installed in the root filesystem tar *archive*.

    :raises PvmlabError: if it holds no dpkg database.
    """
    with tarfile.open(archive, "r:") as members:
        for member in members:
            if member.name.removeprefix("./") == "var/lib/dpkg/status" and (stream := members.extractfile(member)):
                return parse_dpkg_status(stream.read().decode())
    raise PvmlabError(f"{archive.name} holds no dpkg database", resolution="the log of the task has mmdebstrap's words")


def parse_dpkg_status(text: str) -> dict[str, str]:
    """Return name to version of the installed packages in the text of dpkg's status file (deb-control fields)."""
    packages = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            packages[fields["Package"]] = fields["Version"]
    return packages


def mmdebstrap_version() -> str:
    """Return the version of the mmdebstrap on the PATH."""
    match = _VERSION.search(run(["mmdebstrap", "--version"], timeout=60).stdout)
    if match is None:
        raise PvmlabError("mmdebstrap does not tell its version", resolution="./pvmlab doctor")
    return match[1]


@contextlib.contextmanager
def open_tar_zst(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a zstd-compressed tar as a stream: its members can be read once, in their order."""
    with (
        path.open("rb") as compressed,
        zstandard.ZstdDecompressor().stream_reader(compressed) as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as archive,
    ):
        yield archive
