"""The root filesystem that a live-server disc installs, made as its installer would: layers, then packages of the disc.

::

    layers ──merge──> tree.tar ──┐
    dists, pool ─────────────────┴─mmdebstrap──> system.tar ──write_rootfs──> rootfs.tar.zst

The packages' scripts run in the tree, as root or as the root of a user namespace: code of a disc whose digest was
verified, like that of any package. They have no network, and start no service. Equal discs give equal bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from contracts.arch import Arch
from pipeline.artifact import Making
from pipeline.debian.bytecode import bind_to_times
from pipeline.debian.deb_file import newest_time
from pipeline.media.archive import read_archive
from pipeline.media.decompression import CompressionError, decompressed
from pipeline.media.disc import Disc, inspect
from pipeline.media.installed_packages import DATABASES, InstalledPackage, read_packages
from pipeline.media.layers import Layer, merge
from pipeline.media.live_server import LiveServer, UnfitDiscError, package_names, plan_packages, read_live_server
from pipeline.media.member import Member
from pipeline.media.rootfs_tar import RootfsSummary, write_rootfs
from pipeline.media.squashfs import read_squashfs, read_superblock
from pipeline.media.tar_writer import TarWriter
from pipeline.progress import LogCounter, watched
from pipeline.run import run

SCRIPT = Path(__file__).parent / "live-system.sh"
_TIMEOUT = 3600.0  # seconds; a slow host is slow, but not for ever
_STEP = re.compile(rb"Unpacking |Setting up ")  # dpkg says both of each package
_STATUS = "var/lib/dpkg/status"
_MOST_STATUS = 64 << 20  # bytes; Ubuntu's has less than 2 MiB
_MOST_INDEX = 256 << 20  # bytes; that of all of Ubuntu's main has less than 10 MiB
_TREE, _ARCHIVE = "tree.tar", "disc"
_DISC_PLACE = "/mnt"  # in the tree: it is empty in every system
_REPORT_EVERY = 500  # members
# mmdebstrap fills it, or the kernel does when the system runs; in a user namespace nobody may make device nodes
_VOLATILE = ("dev/", "proc/", "run/", "sys/", "tmp/")
# With /etc and /var goes what mmdebstrap made there itself, some of it copied from this host.
_UNPACK = (
    'rm -rf "$1"/etc "$1"/var && tar --extract --file "$PVMLAB_TREE" --directory "$1" --numeric-owner '
    "--preserve-permissions --xattrs '--xattrs-include=*'"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveSystem:
    """What was made. :ivar source: the id of what the disc calls it. :ivar added: packages that its layers lack."""

    summary: RootfsSummary
    source: str
    added: tuple[str, ...]


def make_live_system(iso: Path, arch: Arch, *, source: str | None, making: Making) -> LiveSystem:
    """Write the root filesystem that the live-server disc *iso* installs to the making's only output.

    :param source: which of those in its catalog; None for the disc's default.
    :raises UnfitDiscError: if it is no such disc, for another architecture, or lacks something.
    :raises PvmlabError: if the disc, a layer or a package is damaged, or a package cannot be installed.
    """
    disc = inspect(iso)
    live = read_live_server(disc, arch, source=source)
    making.note(f"{iso.name}: {live.source.id}, layers {', '.join(live.layers)}")
    with _workplace(making) as folder:
        layers, archive = _extract(disc, live, folder, making)
        epoch = max([*(read_superblock(layer).made for layer in layers), *_times_of_packages(archive)])
        installed = _write_tree(layers, folder / _TREE, making)
        for layer in layers:
            layer.unlink()
        _require_arch(disc, installed, arch)
        available = package_names(_read_index(archive / path) for path in live.indices)
        packages = plan_packages(
            {package.name for package in installed}, available, arch, kernel=live.kernel, disc=iso.name
        )
        making.note(f"from the disc's archive: {' '.join(packages) or 'nothing'}")
        system = _install(live, packages, arch, epoch=epoch, folder=folder, making=making)
        bind_to_times(system)
        summary = write_rootfs(read_archive(system), making.output, epoch=epoch, listener=making.listener)
    return LiveSystem(summary=summary, source=live.source.id, added=tuple(packages))


@contextlib.contextmanager
def _workplace(making: Making) -> Iterator[Path]:
    """Yield a folder that mmdebstrap's root may enter: in a user namespace that is another user than us."""
    if os.geteuid() == 0:
        yield making.scratch
        return
    with tempfile.TemporaryDirectory(prefix="pvmlab-live.") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _extract(disc: Disc, live: LiveServer, folder: Path, making: Making) -> tuple[list[Path], Path]:
    """Extract the layers and the archive; return the layers, and the folder that the archive is in."""
    archive = folder / _ARCHIVE
    wanted = {path: folder / Path(path).name for path in live.layers}
    wanted |= {path: archive / path for path in live.archive}
    for parent in {archive, *(path.parent for path in wanted.values())}:
        parent.mkdir(parents=True, exist_ok=True)
    disc.extract(wanted, listener=making.listener)
    for path in (archive, *archive.rglob("*")):  # whatever the umask is, mmdebstrap's root may read it
        path.chmod(0o755 if path.is_dir() else 0o644)
    return [wanted[path] for path in live.layers], archive


def _times_of_packages(archive: Path) -> list[int]:
    debs = sorted(archive.rglob("*.deb"))
    return [newest_time(debs)] if debs else []


def _write_tree(layers: Sequence[Path], output: Path, making: Making) -> list[InstalledPackage]:
    """Write the merged layers as a tar; return the packages in it.

    :raises UnfitDiscError: if it has no package database.
    """
    total = sum(read_superblock(layer).inodes for layer in layers)
    status = bytearray()
    stack = [Layer(name=layer.name, read=functools.partial(read_squashfs, layer)) for layer in layers]
    with output.open("wb") as stream, contextlib.closing(merge(stack)) as members:
        writer = TarWriter(stream)
        for number, member in enumerate(members):
            if number % _REPORT_EVERY == 0:
                making.report("merging layers", number, total, unit="files")
            if member.path == _STATUS and member.size <= _MOST_STATUS:
                status += b"".join(member.content)
                member = dataclasses.replace(member, content=(bytes(status),))  # noqa: PLW2901 (the same, read again)
            write_member(writer, member)
        writer.finish()
    output.chmod(0o644)
    packages = read_packages(DATABASES[_STATUS], bytes(status))
    if not packages:
        raise UnfitDiscError(
            "the layers of the disc hold no system of Debian packages",
            f"there is no /{_STATUS} in them, or it is damaged",
        )
    return packages


def write_member(writer: TarWriter, member: Member) -> None:
    """Write *member*, if an installed system begins with it: what is below ``/dev`` or in memory, it makes itself."""
    if not member.path.startswith(_VOLATILE):
        writer.member(member)


def _require_arch(disc: Disc, installed: Iterable[InstalledPackage], arch: Arch) -> None:
    found = {package.arch for package in installed} - {"all"}
    if arch.debian not in found:
        raise UnfitDiscError(
            f"{disc.path.name} is not for {arch} machines", f"its packages are for {', '.join(sorted(found)) or 'none'}"
        )


def _read_index(path: Path) -> str:
    """Return the text of a Packages file, compressed or not.

    :raises UnfitDiscError: if it is damaged.
    """
    try:
        with path.open("rb") as stream:
            return b"".join(_at_most(_MOST_INDEX, decompressed(stream))).decode(errors="replace")
    except CompressionError as error:
        raise UnfitDiscError(f"the disc's list of packages is damaged: {path.name}", str(error)) from None


def _at_most(limit: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    taken = 0
    for piece in pieces:
        taken += len(piece)
        if taken > limit:
            raise CompressionError(f"it has more than {limit} bytes")
        yield piece


def _install(
    live: LiveServer, packages: Sequence[str], arch: Arch, *, epoch: int, folder: Path, making: Making
) -> Path:
    """Install *packages* into the tree and clean it; return the tar of the whole system.

    :raises CommandError: if that fails; the log has dpkg's words.
    """
    system, log = folder / "system.tar", LogCounter(making.log, _STEP)
    with (
        system.open("wb") as stream,
        watched(lambda: making.report("installing packages of the disc", log.count(), unit="steps")),
    ):
        run(
            [
                # what it mounts as root ends with it, also when it is killed
                *(["unshare", "--mount", "--"] if os.geteuid() == 0 else []),
                "mmdebstrap",
                "--verbose",
                f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
                *mmdebstrap_arguments(arch),
            ],
            timeout=_TIMEOUT,
            env={
                "SOURCE_DATE_EPOCH": str(epoch),
                "TMPDIR": str(folder if os.geteuid() == 0 else tempfile.gettempdir()),
                "PVMLAB_TREE": str(folder / _TREE),
                "PVMLAB_DISC": str(folder / _ARCHIVE),
                "PVMLAB_SOURCES": "\n".join(suite.source_line(_DISC_PLACE) for suite in live.suites),
                "PVMLAB_PACKAGES": " ".join(packages),
            },
            log=making.log,
            stdout=stream,
        )
    (folder / _TREE).unlink()
    return system


def mmdebstrap_arguments(arch: Arch) -> list[str]:
    """Return the arguments that have mmdebstrap run our script in a tree of ours; it installs nothing itself."""
    return [
        "--format=tar",
        "--variant=custom",
        "--skip=update,cleanup/apt",
        f"--architectures={arch.debian}",
        f"--setup-hook={_UNPACK}",
        f"--customize-hook={SCRIPT.read_text()}",
        "",  # no suite
        "-",
        "deb file:/nowhere ./",  # it wants to know one
    ]
