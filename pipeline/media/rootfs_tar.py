"""The one writer of ``rootfs.tar.zst`` from what others made: members in, a checked and reproducible archive out.

::

    squashfs layers, file systems of images, tarballs ──> Member... ──write_rootfs──> rootfs.tar.zst, RootfsSummary

Whatever read the members has refused the worst; this is the last line. What passes can be unpacked by root: each name
stays below the folder it is unpacked to, whatever links are there, and no device node, pipe or socket is made. Equal
members give equal bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from pipeline.errors import PvmlabError
from pipeline.media.installed_packages import DATABASES, Database, InstalledPackage, PackageManager, read_packages
from pipeline.media.limits import USUAL, Limits
from pipeline.media.member import Member, MemberKind
from pipeline.media.tar_writer import Status, TarWriter
from pipeline.progress import Progress, ProgressListener, ignore_progress

ZSTD_LEVEL = 9  # as our own root filesystems, pipeline/debian/mmdebstrap.py
ZSTD_THREADS = 2  # always: the number is part of what the compressed bytes depend on, the host's cores must not be

# Filled while a system runs. The folders are kept, or made: what starts the system mounts something on each.
_VOLATILE = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
_LOST = "lost+found"  # made by mkfs, in the root of a file system
_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_KERNEL = re.compile(r"(?:usr/)?lib/modules/(\d[^/]*)/(?:modules\.builtin|kernel/.*\.ko(?:\.\w+)?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes, Linux
_LARGEST_ID = 0xFFFF_FFFE
_KEPT_XATTRS = re.compile(r"(?:security|user)\.[^=]+|system\.posix_acl_(?:access|default)")
_DROPPED_KINDS = frozenset({MemberKind.FIFO, MemberKind.SOCKET})
_DEVICES = frozenset({MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE})
_MOST_CAPTURED = 512 << 20  # bytes of a package database that are looked into
_REPORT_EVERY = 8 << 20  # bytes


class UnfitRootfsError(PvmlabError):
    """Members that cannot be a root filesystem, or must not be unpacked as one.

    :ivar path: the member at fault, empty if it is the whole.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        shown = ascii(path) if _CONTROL.search(path) else path
        super().__init__(
            f"not a root filesystem to install: {shown}: {reason}" if path else f"not a root filesystem: {reason}",
            details="What was made of it so far is removed.",
            resolution="check that the medium is the one meant, and whole; if it is the distribution's own, report it",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RootfsSummary:
    """What a root filesystem is, as read while it was written.

    :ivar os_release: fields of os-release(5): ``ID``, ``VERSION_ID``, ``PRETTY_NAME`` ...
    :ivar kernels: versions of kernels whose modules are in it.
    :ivar members: how many were written. :ivar size: bytes of all files.
    :ivar epoch: the latest time of a member, in seconds since 1970.
    :ivar dropped: what was left out, by reason, and how often.
    :ivar manager: whose package database it has. :ivar packages: what that says; None if it is not read here.
    """

    os_release: Mapping[str, str]
    kernels: tuple[str, ...]
    members: int
    size: int
    epoch: int
    dropped: Mapping[str, int]
    manager: PackageManager | None
    packages: tuple[InstalledPackage, ...] | None

    def facts(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {
            "os": {key: self.os_release[key] for key in ("ID", "VERSION_ID", "PRETTY_NAME") if key in self.os_release},
            "kernels": list(self.kernels),
            "epoch": self.epoch,
            "dropped": dict(self.dropped),
            "package_manager": self.manager,
            "packages": [each.fact(self.manager, self.os_release.get("ID", "")) for each in self.packages or ()],
        }


def write_rootfs(
    members: Iterable[Member],
    output: Path,
    *,
    epoch: int | None,
    listener: ProgressListener = ignore_progress,
    limits: Limits = USUAL,
) -> RootfsSummary:
    """Write the root filesystem *members* as a tar compressed by zstd to *output*.

    Left out are the content of ``dev``, ``proc``, ``run``, ``sys`` and ``tmp``, pipes and sockets, ``lost+found``, and
    extended attributes that mean nothing elsewhere. Missing parent directories are added.

    :param members: read forward, the content of each at most once.
    :param epoch: no time is later than this, in seconds since 1970; None leaves them all as they are.
    :raises UnfitRootfsError: if a name leads elsewhere or lies below something that is no directory, a name comes again
        as something else, a hard link does not name an earlier file, there is a device node, a content is not as long
        as announced, a limit is passed, or no system is in it. *output* is removed then.
    """
    try:
        with output.open("wb") as raw:
            compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=ZSTD_THREADS, write_checksum=True)
            with compressor.stream_writer(raw, closefd=False) as packed:
                tree = _Tree(TarWriter(packed), epoch=epoch, listener=listener, limits=limits)
                for member in members:
                    tree.add(member)
                return tree.finish()
    except BaseException:
        output.unlink(missing_ok=True)
        raise


class _Tree:
    """The root filesystem so far: names and what they are, which is all that is remembered of members."""

    def __init__(self, writer: TarWriter, *, epoch: int | None, listener: ProgressListener, limits: Limits) -> None:
        self._writer, self._epoch, self._listener, self._limits = writer, epoch, listener, limits
        self._kinds: dict[str, MemberKind] = {"": MemberKind.DIRECTORY}
        self._members = self._size = self._latest = self._reported = 0
        self._dropped: collections.Counter[str] = collections.Counter()
        self._kernels: set[str] = set()
        self._captured: dict[str, bytes] = {}

    def add(self, member: Member) -> None:
        """Write *member*, or leave it out."""
        path = "" if member.path == "." else member.path
        self._check_name(path, member)
        if reason := _drop_reason(path, member.kind):
            self._dropped[reason] += 1
            return
        if member.kind in _DEVICES:
            raise UnfitRootfsError(path, f"a {member.kind} outside of /dev")
        kind = self._link_kind(path, member) if member.kind is MemberKind.HARDLINK else member.kind
        self._place(path, kind, self._time(member.mtime))
        self._write(path, member)
        if match := _KERNEL.fullmatch(path):
            self._kernels.add(match[1])

    def finish(self) -> RootfsSummary:
        """Write the end; return what it all was.

        :raises UnfitRootfsError: if it is no system.
        """
        release = next((self._captured[name] for name in _OS_RELEASE if name in self._captured), None)
        if self._kinds.get("usr") is not MemberKind.DIRECTORY or release is None:
            what = "no /usr" if release is not None else "no os-release, neither in /etc nor in /usr/lib"
            raise UnfitRootfsError("", f"there is {what} among its {self._members} members")
        for name, mode in _VOLATILE.items():
            if name not in self._kinds:
                self._writer.directory(name, status=Status(mode, mtime=self._latest), xattrs={})
                self._members += 1
        self._writer.finish()
        manager, packages = self._packages()
        return RootfsSummary(
            os_release=_parse_os_release(release),
            kernels=tuple(sorted(self._kernels)),
            members=self._members,
            size=self._size,
            epoch=self._latest,
            dropped=dict(sorted(self._dropped.items())),
            manager=manager,
            packages=packages,
        )

    def _check_name(self, path: str, member: Member) -> None:
        """Refuse names that lead out of the tree, and those that no file system could hold."""
        parts = path.split("/")
        if path and (path[0] == "/" or any(part in {"", ".", ".."} for part in parts)):
            raise UnfitRootfsError(path, "not a relative name in its shortest form")
        if not path and member.kind is not MemberKind.DIRECTORY:
            raise UnfitRootfsError("/", f"a {member.kind}")
        if _CONTROL.search(path) or _CONTROL.search(member.target):
            raise UnfitRootfsError(path, "a control character in its name or in where it points")
        if len(path) * 4 > _LONGEST_NAME and (
            len(_bytes(path)) > _LONGEST_PATH or max(len(_bytes(part)) for part in parts) > _LONGEST_NAME
        ):
            raise UnfitRootfsError(path, "a name longer than Linux allows")
        if not (0 <= member.uid <= _LARGEST_ID and 0 <= member.gid <= _LARGEST_ID):
            raise UnfitRootfsError(path, f"its owner is {member.uid}:{member.gid}")

    def _link_kind(self, path: str, member: Member) -> MemberKind:
        """Return what the hard link is."""
        kind = self._kinds.get(member.target)
        if kind not in {MemberKind.FILE, MemberKind.SYMLINK}:
            raise UnfitRootfsError(path, f"a hard link to {member.target!r}, which is no file that came before it")
        if path in self._kinds:
            raise UnfitRootfsError(path, f"a {self._kinds[path]}, and then again as a hard link")
        assert kind is not None  # noqa: S101 (mypy: it is one of two)
        return kind

    def _place(self, path: str, kind: MemberKind, mtime: int) -> None:
        """Take the name, and write the directories above it that nobody has described."""
        parent = path.rpartition("/")[0]
        if self._kinds.get(parent) is not MemberKind.DIRECTORY:
            self._add_parents(path, mtime)
        before = self._kinds.setdefault(path, kind)
        if before is not kind:
            raise UnfitRootfsError(path, f"a {before}, and then again as a {kind}")

    def _add_parents(self, path: str, mtime: int) -> None:
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            kind = self._kinds.get(name)
            if kind is None:
                self._kinds[name] = MemberKind.DIRECTORY
                self._writer.directory(name, status=Status(0o755, mtime=mtime), xattrs={})
                self._members += 1
            elif kind is not MemberKind.DIRECTORY:
                raise UnfitRootfsError(path, f"below {name}, which is a {kind}")

    def _write(self, path: str, member: Member) -> None:
        status = Status(member.mode & 0o7777, member.uid, member.gid, self._time(member.mtime))
        xattrs = self._xattrs(member.xattrs) if member.xattrs else {}
        self._members += 1
        if self._members > self._limits.members:
            raise UnfitRootfsError("", f"it has more than {self._limits.members} members")
        match member.kind:
            case MemberKind.DIRECTORY:
                self._writer.directory(path, status=status, xattrs=xattrs)
            case MemberKind.SYMLINK:
                if not member.target:
                    raise UnfitRootfsError(path, "a symbolic link to nowhere")
                self._writer.symlink(path, member.target, status=status, xattrs=xattrs)
            case MemberKind.HARDLINK:
                self._writer.hardlink(path, member.target, status=status)
            case _:
                self._write_file(path, member, status, xattrs)

    def _write_file(self, path: str, member: Member, status: Status, xattrs: Mapping[str, bytes]) -> None:
        self._size += member.size
        if member.size > self._limits.member or self._size > self._limits.total:
            raise UnfitRootfsError(path, f"{member.size} bytes, with which the files are {self._size} bytes")
        content = self._capturing(path, member) if path in _CAPTURED else member.content
        try:
            self._writer.file(path, content, size=member.size, status=status, xattrs=xattrs)
        except ValueError as error:
            raise UnfitRootfsError(path, str(error)) from error
        if self._size - self._reported >= _REPORT_EVERY:
            self._reported = self._size
            self._listener(Progress(step="writing the root filesystem", done=self._size))

    def _capturing(self, path: str, member: Member) -> Iterator[bytes]:
        """Yield the content of *member*; remember it, if it is not too large."""
        if member.size > _MOST_CAPTURED:
            yield from member.content
            return
        found = bytearray()
        for chunk in member.content:
            found += chunk
            yield chunk
        self._captured[path] = bytes(found)

    def _packages(self) -> tuple[PackageManager | None, tuple[InstalledPackage, ...] | None]:
        there = [(DATABASES[path], content) for path, content in self._captured.items() if path in DATABASES]
        tables: list[tuple[Database, list[InstalledPackage] | None]] = [
            (database, read_packages(database, content)) for database, content in there
        ]
        # rpm and dpkg are on each other's systems as tools, with empty databases
        tables.sort(key=lambda table: (table[1] is None, -len(table[1] or ())))
        if not tables:
            return None, None
        database, packages = tables[0]
        return database.manager, None if packages is None else tuple(packages)

    def _time(self, mtime: int) -> int:
        time = max(mtime, 0) if self._epoch is None else min(max(mtime, 0), self._epoch)
        self._latest = max(self._latest, time)
        return time

    def _xattrs(self, xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
        kept = {name: value for name, value in xattrs.items() if _KEPT_XATTRS.fullmatch(name)}
        if len(kept) < len(xattrs):
            self._dropped["extended attributes of other kinds"] += len(xattrs) - len(kept)
        return kept


_CAPTURED = frozenset({*_OS_RELEASE, *DATABASES})


def _drop_reason(path: str, kind: MemberKind) -> str | None:
    """Return why a member is left out, None if it is not."""
    top, _, below = path.partition("/")
    if below and top in _VOLATILE:
        return f"below /{top}"
    if _LOST in path and _LOST in path.split("/")[:2]:
        return _LOST
    return f"{kind}s" if kind in _DROPPED_KINDS else None


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _parse_os_release(content: bytes) -> dict[str, str]:
    """Return the fields of an os-release(5) file: assignments as a shell reads them. Broken lines are passed over."""
    fields = {}
    for line in content.decode(errors="replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if not equals or name.startswith("#"):
            continue
        try:
            fields[name] = "".join(shlex.split(value))
        except ValueError:  # a quote that is not closed
            continue
    return fields
