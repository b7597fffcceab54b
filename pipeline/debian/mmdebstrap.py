"""Debian root filesystems, made by mmdebstrap of packages that are there: without root where the host allows it.

Equal packages and equal wishes give equal bytes: times are at most that of the newest package, and nothing of the host,
its name, its mirror or its user, gets in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import zstandard

from pipeline.artifact import Making
from pipeline.debian.bytecode import bind_to_times
from pipeline.debian.deb_file import newest_time
from pipeline.debian.package_set import Package, PackageSet, render_manifest
from pipeline.errors import PvmlabError
from pipeline.progress import LogCounter, watched
from pipeline.run import run

ZSTD_LEVEL = 9
_TIMEOUT = 3600.0  # seconds; a slow host is slow, but not for ever
_DOCUMENTATION = (
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/lintian/*",
)
_STEP = re.compile(rb"Unpacking |Setting up ")  # dpkg says both of each package
# Where the packages came from, what mmdebstrap copies of the host so that maintainer scripts have a network, and what
# apt leaves: mmdebstrap's own cleaning leaves two folders that belong to whom apt could download as, which depends on
# whether that user can enter the folder we build in.
_OF_THE_BUILD = (
    'rm -rf "$1"/etc/apt/sources.list "$1"/etc/hostname "$1"/etc/resolv.conf '
    '"$1"/var/lib/apt/lists/* "$1"/var/cache/apt/archives/* "$1"/var/cache/apt/*.bin'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootFilesystem:
    """What to install, and how.

    :ivar exclude: dpkg path patterns left out, besides documentation and translations.
    :ivar customize: shell text run at the end with the tree as ``$1`` (mmdebstrap's customize hook).
    """

    packages: PackageSet
    exclude: tuple[str, ...] = ()
    customize: str = ""

    def options(self) -> dict[str, object]:
        """Return what decides the result besides the packages' files, for the artifact's key."""
        return {"arguments": mmdebstrap_arguments(self), "zstd": ZSTD_LEVEL}


def mmdebstrap_arguments(wanted: RootFilesystem) -> list[str]:
    """Return the arguments that decide what is installed; privileges and the place of the packages do not."""
    return [
        "--format=tar",
        "--variant=minbase",
        f"--architectures={wanted.packages.arch.debian}",
        f"--include={','.join(wanted.packages.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in (*_DOCUMENTATION, *wanted.exclude)),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",  # licences travel with the programs
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--skip=cleanup/apt",
        f"--customize-hook={_OF_THE_BUILD}",
        *([f"--customize-hook={wanted.customize}"] if wanted.customize else []),
    ]


def make_rootfs(wanted: RootFilesystem, packages: Sequence[Package], debs: Sequence[Path], *, making: Making) -> int:
    """Write the root filesystem with exactly these packages as a zstd-compressed tar to the making's only output.

    :param debs: the packages' files. :returns: the time in it, in seconds since 1970.
    :raises CommandError: if mmdebstrap fails; its log has the reason.
    :raises PvmlabError: if other packages are installed in the end.
    """
    plain, epoch = making.scratch / "rootfs.tar", newest_time(debs)
    # As root all of it is in our scratch, which the next build removes if this one is killed. In a user namespace
    # mmdebstrap's root is another user than us, who may not enter it.
    folder = making.scratch if os.geteuid() == 0 else Path(tempfile.gettempdir())
    steps, log = 2 * len(packages), LogCounter(making.log, _STEP)

    def look() -> None:
        if (done := log.count()) < steps:
            making.report("installing packages", done, steps, unit="steps")
        else:  # triggers, the initrd, our hooks, the tar
            making.report("finishing the system")

    with (
        _repository(packages, debs, folder) as repository,
        plain.open("wb") as stream,
        watched(look),
    ):
        run(
            [
                # what it mounts as root ends with it, also when it is killed
                *(["unshare", "--mount", "--"] if os.geteuid() == 0 else []),
                "mmdebstrap",
                "--verbose",  # dpkg's lines are the progress
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                *mmdebstrap_arguments(wanted),
                "",  # no suite: there is but one version of each package to choose from
                "-",
                f"deb [trusted=yes] copy:{repository} ./",  # the store and the archive's signature vouch for them
            ],
            timeout=_TIMEOUT,
            env={"SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(folder)},
            log=making.log,
            stdout=stream,
        )
    _require_same(installed_packages(plain), packages)
    bind_to_times(plain)
    making.report("compressing")
    # Two threads always: the number is part of what the compressed bytes depend on, the host's cores must not be.
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=2, write_checksum=True)
    with plain.open("rb") as source, making.output.open("wb") as sink:
        compressor.copy_stream(source, sink, size=plain.stat().st_size)
    return epoch


@contextlib.contextmanager
def _repository(packages: Sequence[Package], debs: Sequence[Path], place: Path) -> Iterator[Path]:
    """Yield a directory in *place* with the packages and their index, as apt takes it for an archive.

    That is a "flat" one (sources.list(5)), of copies that all may read: in a user namespace mmdebstrap's root is
    another user than the one to whom the store belongs, which may lie behind a home directory that it cannot enter.
    """
    with tempfile.TemporaryDirectory(prefix="pvmlab-packages.", dir=place) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for package, deb in zip(packages, debs, strict=True):
            shutil.copyfile(deb, folder / package.file_name)
        (folder / "Packages").write_text(render_manifest(packages, local=True))
        for path in folder.iterdir():
            path.chmod(0o644)
        yield folder


def _require_same(installed: dict[str, str], packages: Sequence[Package]) -> None:
    wanted = {package.name: package.fields["Version"] for package in packages}
    different = sorted({name for name, _ in wanted.items() ^ installed.items()})
    if different:
        raise PvmlabError(
            f"mmdebstrap installed other packages than the manifest names: {', '.join(different)}",
            details="apt found another solution in two steps than in one",
            resolution="name these packages in the set, or report it",
        )


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


@contextlib.contextmanager
def open_tar_zst(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a zstd-compressed tar as a stream: its members can be read once, in their order."""
    with (
        path.open("rb") as compressed,
        zstandard.ZstdDecompressor().stream_reader(compressed) as plain,
        tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as archive,
    ):
        yield archive
