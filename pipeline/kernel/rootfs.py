"""Finding kernels in a root filesystem archive, whatever family of distributions it is of.

::

    boot/vmlinuz-<kver>            all but Alpine; SUSE on arm64: Image-<kver>
    boot/vmlinuz-<flavour>         Alpine: virt, lts; the version is in the file only
    usr/lib/modules/<kver>/vmlinuz Fedora, RHEL, SUSE: the same again, or the only one
    boot/initrd.img-<kver>         Debian, Ubuntu
    boot/initramfs-<kver>.img      Fedora, RHEL
    boot/initrd-<kver>             SUSE
    boot/initramfs-<flavour>       Alpine
    (usr/)lib/modules/<kver>/      all

Of several kernels of one flavour the newest counts, if its modules are there; rescue kernels never do. A kernel is what
its own file says: a name, or modules, of another version are an error.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import zstandard

from pipeline.errors import NotFoundError, PvmlabError, UsageError
from pipeline.kernel.version import newest, read_version

_TAR_BUFFER = 1 << 16  # tarfile moves all of it at every header
_KERNEL = re.compile(r"boot/(?:vmlinuz|Image)-(.+)|usr/lib/modules/(\d[^/]*)/(?:vmlinuz|Image)")
_INITRDS = ("boot/initrd.img-{}", "boot/initramfs-{}.img", "boot/initrd-{}", "boot/initramfs-{}")
_INITRD = re.compile(r"boot/(?:initrd|initramfs).+")
_NO_KERNEL = re.compile(r"0-rescue|.*\.(?:old|bak|hmac|signed|dpkg-\w+|rpm\w+)\Z")
_OF_MODULES = re.compile(r"usr/lib/modules/(\d[^/]*)/(.+)", re.DOTALL)
_MODULE_OR_INDEX = re.compile(r"(?:.+\.ko(?:\.\w+)?|modules\.[\w.]+)\Z")
_MARK = re.compile(r"modules\.builtin|.+\.ko(?:\.\w+)?")  # what tells modules from what a removed kernel left behind
_LARGEST = 1 << 30  # bytes of one file that is looked for


class KernelChoiceError(UsageError):
    """A root filesystem holds no kernel modules, or not those of the kernel named. :ivar found: versions it holds."""

    def __init__(self, found: Iterable[str], *, wanted: str | None) -> None:
        self.found = tuple(sorted(found))
        self.wanted = wanted
        there = ", ".join(self.found) or "none"
        super().__init__(
            f"no modules of kernel {wanted}" if wanted else "no kernel modules in the root filesystem",
            details=f"The root filesystem holds modules of: {there}",
            resolution="install a kernel package, or name a version that is there"
            if self.found
            else "take a medium with a kernel: those made for containers have none",
        )


class KernelMismatchError(PvmlabError):
    """Kernel, name and modules do not belong together."""

    def __init__(self, brief: str, *, details: str) -> None:
        super().__init__(brief, details=details, resolution="make the root filesystem again from a whole medium")


class NoKernelError(NotFoundError):
    """A root filesystem has no kernel file."""

    def __init__(self, rootfs: Path, modules: Iterable[str]) -> None:
        there = ", ".join(sorted(modules)) or "none"
        super().__init__(
            f"{rootfs.name} has no kernel, neither /boot/vmlinuz-<version> nor one beside its modules",
            details=f"{rootfs}; modules it holds are of: {there}",
            resolution="take a medium with a kernel: those made for containers have none",
        )


@dataclasses.dataclass(frozen=True)
class RootfsKernels:
    """What was read of kernels in a root filesystem.

    :ivar files: kernels, and what else was asked for below ``boot``, by path.
    :ivar modules: version to files below ``usr/lib/modules/<kver>``; without content if that was not asked for.
    """

    rootfs: Path
    files: Mapping[str, bytes]
    modules: Mapping[str, Mapping[str, bytes]]

    def versions(self) -> dict[str, str]:
        """Return the kernels: version to path.

        :raises KernelMismatchError: if one is of another version than its name says.
        :raises NotAKernelError: if a file is no kernel.
        """
        found: dict[str, str] = {}
        for path in sorted(self.files):  # boot comes first
            match = _KERNEL.fullmatch(path)
            if match is None or _NO_KERNEL.match(match[1] or ""):
                continue
            name = match[2] or (match[1] if match[1][0].isdigit() else None)
            version = read_version(self.files[path], path=path) or name
            if version is None:
                details = "Neither its name says it, nor can it be read in the file."
                raise KernelMismatchError(f"of what version /{path} is cannot be told", details=details)
            if name not in {None, version}:
                raise KernelMismatchError(f"/{path} is the kernel {version}", details="Its name says another version.")
            found.setdefault(version, path)
        return found

    def choose(self) -> str:
        """Return the version of the kernel that counts.

        :raises KernelMismatchError: if there are kernels and modules, but no kernel has its own.
        :raises AmbiguousKernelError: if there are several flavours.
        :raises KernelChoiceError: if there is no kernel at all.
        """
        kernels = set(self.versions())
        both = kernels & self.modules.keys() if kernels and self.modules else kernels | self.modules.keys()
        if kernels and self.modules and not both:
            raise KernelMismatchError(
                f"the modules are not those of the kernel: {', '.join(sorted(self.modules))}",
                details=f"The root filesystem has the kernel {', '.join(sorted(kernels))}.",
            )
        if not both:
            raise KernelChoiceError((), wanted=None)
        return newest(both)

    def initrd(self, version: str) -> bytes | None:
        """Return the distribution's initrd for a kernel, None if it has none."""
        match = _KERNEL.fullmatch(self.versions()[version])
        names = (version, *((match[1],) if match and match[1] else ()))  # Alpine's are called after the flavour
        places = (place.format(name) for name in names for place in _INITRDS)
        return next((self.files[place] for place in places if place in self.files), None)


def read_kernels(rootfs: Path, *, initrds: bool = False, modules: Callable[[str], bool] | None = None) -> RootfsKernels:
    """Read the kernels of a root filesystem archive (tar, compressed by zstd), in one pass.

    :param initrds: read these, too. :param modules: of which versions to read modules and their index files.
    """

    def wanted(name: str) -> bool:
        if match := _OF_MODULES.fullmatch(name):
            known = modules is not None and modules(match[1]) and _MODULE_OR_INDEX.fullmatch(match[2])
            return bool(known) or _KERNEL.fullmatch(name) is not None
        return _KERNEL.fullmatch(name) is not None or (initrds and _INITRD.fullmatch(name) is not None)

    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    known: set[str] = set()
    for name, content in _members(rootfs, wanted):
        known.add(name)
        if isinstance(content, bytes):
            files[name] = content
        elif content is not None:
            links[name] = content
    files |= {name: files[target] for name in links if (target := _follow(name, links)) in files}
    return RootfsKernels(
        rootfs,
        files={name: data for name, data in files.items() if name.startswith("boot/") or _KERNEL.fullmatch(name)},
        modules=_by_version(files, known),
    )


def _members(rootfs: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes | str | None]]:
    """Yield names with their content, of a link with what it points to, and None for what is not *wanted*."""
    with (
        rootfs.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
        tarfile.open(fileobj=stream, mode="r|", bufsize=_TAR_BUFFER) as archive,
    ):
        for member in archive:
            name = _canonical(member.name)
            if member.isdir() or not name.startswith(("boot/", "usr/lib/modules/")):
                continue
            if not wanted(name):
                yield name, None
            elif member.islnk():
                yield name, _canonical(member.linkname)
            elif member.issym():
                yield name, _canonical(posixpath.normpath(posixpath.join("/", name, "..", member.linkname)))
            elif member.isreg():
                if member.size > _LARGEST:
                    raise PvmlabError(f"/{name} is too large: {member.size} bytes", details=str(rootfs))
                source = archive.extractfile(member)
                yield name, source.read() if source is not None else b""


def _canonical(name: str) -> str:
    """Return a path as it is on a merged ``/usr``, relative."""
    name = name.removeprefix("./").lstrip("/")
    return f"usr/{name}" if name.startswith("lib/modules/") else name


def _follow(name: str, links: Mapping[str, str]) -> str:
    for _ in range(8):
        if name not in links:
            break
        name = links[name]
    return name


def _by_version(files: Mapping[str, bytes], known: Iterable[str]) -> dict[str, dict[str, bytes]]:
    """Return the files of each kernel's modules; a version counts if it has modules, read or not."""
    parts = [match.groups() for name in known if (match := _OF_MODULES.fullmatch(name))]
    found: dict[str, dict[str, bytes]] = {version: {} for version, path in parts if _MARK.fullmatch(path)}
    for version, path in parts:
        content = files.get(f"usr/lib/modules/{version}/{path}")
        if version in found and content is not None and _MODULE_OR_INDEX.fullmatch(path):
            found[version][path] = content
    return found
