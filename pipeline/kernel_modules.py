"""Choosing kernel modules for an initrd: names, plus all they depend on, packed so that busybox modprobe loads them.

    root filesystem archive --read_modules--> ModuleTree --pack_modules--> cpio entries

The modules are stored uncompressed (the archive around them is compressed, and not every kernel unpacks modules
itself), below ``usr/lib/modules``: a real ``lib`` directory would replace the initrd's ``lib -> usr/lib`` link.
"""

from __future__ import annotations

import dataclasses
import gzip
import lzma
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

import zstandard

from pipeline import cpio
from pipeline.errors import NotFoundError, PvmlabError, UsageError

# Without these there is no install on the machines of the lab. Drivers that a kernel has built in are left out.
INSTALLER_MODULES = (
    "virtio_pci", "virtio_net", "virtio_blk", "nvme",  # the lab's own cards and disks
    "ext4", "vfat", "nls_cp437", "nls_ascii", "efivarfs",  # what is written; vfat's defaults want both nls modules
)  # fmt: skip

# What other machines have. Flavours for clouds are built without some of them: absent is no fault.
INSTALLER_MODULES_OPTIONAL = (
    "virtio_scsi", "virtio_rng", "virtio_console", "qemu_fw_cfg",
    "ahci", "ata_piix", "sd_mod", "xhci_pci", "uas", "usb_storage", "megaraid_sas", "mpt3sas",
    "hv_storvsc", "vmw_pvscsi",
    "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "r8169", "tg3", "hv_netvsc", "vmxnet3",
    "nls_iso8859_1", "nls_utf8", "crc32c_generic", "rtc_cmos",
)  # fmt: skip

_MEMBER = re.compile(r"(?:\./)?(?:usr/)?lib/modules/([^/]+)/(.+)\Z")
_COMPRESSED = re.compile(r"\.(xz|zst|gz)\Z")


class UnknownModuleError(NotFoundError):
    """Modules were asked for that the kernel neither has nor was built with."""

    def __init__(self, names: Iterable[str], *, kver: str) -> None:
        self.names = tuple(sorted(names))
        super().__init__(
            f"kernel {kver} has no module {', '.join(self.names)}",
            details="They are neither in modules.dep nor in modules.builtin.",
            resolution="correct the name, or declare it optional if this kernel flavour may lack it",
        )


class KernelChoiceError(UsageError):
    """A root filesystem holds no kernel modules, several kernels' modules, or not those of the kernel named."""

    def __init__(self, found: Iterable[str], *, wanted: str | None) -> None:
        self.found = tuple(sorted(found))
        self.wanted = wanted
        there = ", ".join(self.found) or "none"
        brief = f"no modules of kernel {wanted}" if wanted else "no single kernel version to take modules from"
        super().__init__(
            brief,
            details=f"The root filesystem holds modules of: {there}",
            resolution="install exactly one kernel package, or name the version to use",
        )


@dataclasses.dataclass(frozen=True)
class ModuleTree:
    """The modules of one kernel.

    :ivar kver: kernel version, as ``uname -r`` says it.
    :ivar files: path below ``usr/lib/modules/<kver>`` to content, as found (modules may be compressed).
    """

    kver: str
    files: Mapping[str, bytes]

    @cached_property
    def builtin(self) -> frozenset[str]:
        """Names of the modules built into the kernel."""
        return frozenset(module_name(line) for line in self._lines("modules.builtin"))

    @cached_property
    def dependencies(self) -> dict[str, tuple[str, ...]]:
        """Path of each module to the paths of those it needs, from ``modules.dep``."""
        pairs = (line.partition(":") for line in self._lines("modules.dep"))
        return {path.strip(): tuple(needed.split()) for path, _, needed in pairs}

    @cached_property
    def paths(self) -> dict[str, str]:
        """Name of each module to its path."""
        return {module_name(path): path for path in self.dependencies}

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """Alias to the names of the modules that have it. Aliases may be patterns."""
        table: dict[str, list[str]] = defaultdict(list)
        for line in self._lines("modules.alias"):
            alias, name = line.removeprefix("alias ").rsplit(maxsplit=1)
            table[alias].append(name.replace("-", "_"))
        return dict(table)

    @cached_property
    def soft_dependencies(self) -> dict[str, tuple[str, ...]]:
        """Module name to the names, or aliases, of those it would like to have: ``softdep ext4 pre: crc32c``."""
        table: dict[str, tuple[str, ...]] = {}
        for line in self._lines("modules.softdep"):
            _, name, *words = line.split()
            wanted = tuple(word for word in words if not word.endswith(":"))
            table[name.replace("-", "_")] = table.get(name, ()) + wanted
        return table

    def _lines(self, name: str) -> Iterator[str]:
        for line in self.files.get(name, b"").decode().splitlines():
            if line.strip() and not line.startswith("#"):
                yield line


def module_name(path: str) -> str:
    """Return the name of the module at *path*: ``kernel/fs/nls/nls_iso8859-1.ko.xz`` is ``nls_iso8859_1``."""
    return path.rsplit("/", 1)[-1].partition(".ko")[0].replace("-", "_")


def read_modules(rootfs: Path, *, kver: str | None = None) -> ModuleTree:
    """Read the kernel modules out of a root filesystem archive (tar, compressed by zstd).

    :param kver: which kernel's, needed if the archive holds several.
    :raises KernelChoiceError: if that does not name exactly one kernel.
    """
    kernels: dict[str, dict[str, bytes]] = defaultdict(dict)
    with (
        rootfs.open("rb") as packed,
        zstandard.ZstdDecompressor().stream_reader(packed) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            match = _MEMBER.match(member.name)
            if match is None or not member.isreg() or (kver is not None and match[1] != kver):
                continue
            content = archive.extractfile(member)
            kernels[match[1]][match[2]] = content.read() if content is not None else b""
    if len(kernels) != 1:
        raise KernelChoiceError(kernels, wanted=kver)
    ((version, files),) = kernels.items()
    return ModuleTree(version, files)


def resolve(tree: ModuleTree, names: Iterable[str], *, optional: Iterable[str] = ()) -> list[str]:
    """Return the sorted paths of the modules *names* and *optional*, with all they depend on, softly too.

    Modules built into the kernel need no file and are left out; so are optional ones that it does not have.

    :raises UnknownModuleError: if one of *names* neither exists nor is built in.
    """
    wanted = {name.replace("-", "_") for name in names}
    if unknown := wanted - tree.paths.keys() - tree.builtin:
        raise UnknownModuleError(unknown, kver=tree.kver)
    wanted |= {name.replace("-", "_") for name in optional}
    queue = [tree.paths[name] for name in wanted if name in tree.paths]
    chosen: set[str] = set()
    while queue:
        path = queue.pop()
        if path in chosen:
            continue
        chosen.add(path)
        queue.extend(tree.dependencies[path])
        for soft in tree.soft_dependencies.get(module_name(path), ()):
            candidates = (soft.replace("-", "_"), *tree.aliases.get(soft, ()))
            queue.extend(tree.paths[name] for name in candidates if name in tree.paths)
    return sorted(chosen)


def pack_modules(tree: ModuleTree, names: Iterable[str], *, optional: Iterable[str] = ()) -> list[cpio.Entry]:
    """Return archive entries with the modules of :func:`resolve` and the index files modprobe needs, cut to them.

    :raises UnknownModuleError: see :func:`resolve`.
    :raises PvmlabError: if ``modules.dep`` speaks of a file that is not there.
    """
    return _pack(tree, resolve(tree, names, optional=optional))


def pack_all_modules(tree: ModuleTree) -> list[cpio.Entry]:
    """Return archive entries with every module of the kernel."""
    return _pack(tree, sorted(tree.dependencies))


def _pack(tree: ModuleTree, paths: list[str]) -> list[cpio.Entry]:
    if missing := [path for path in paths if path not in tree.files]:
        raise PvmlabError(
            f"kernel {tree.kver}: modules.dep names a file that is not there: {missing[0]}",
            resolution="make the root filesystem again",
        )
    folder = f"usr/lib/modules/{tree.kver}"
    modules = {_stored(path): _decompress(path, tree.files[path]) for path in paths}
    files = modules | {name: text.encode() for name, text in _indexes(tree, paths).items()}
    return [cpio.regular(f"{folder}/{path}", data) for path, data in files.items()]


def _indexes(tree: ModuleTree, paths: list[str]) -> dict[str, str]:
    names = {module_name(path) for path in paths}
    dep = [f"{_stored(path)}: {' '.join(map(_stored, tree.dependencies[path]))}".rstrip() for path in paths]
    alias = [f"alias {alias} {name}" for alias, owners in tree.aliases.items() for name in owners if name in names]
    soft = [
        f"softdep {name} pre: {' '.join(wanted)}" for name, wanted in tree.soft_dependencies.items() if name in names
    ]
    tables = {"modules.dep": dep, "modules.alias": sorted(alias), "modules.softdep": sorted(soft)}
    texts = {name: "".join(f"{line}\n" for line in lines) for name, lines in tables.items()}
    return texts | {"modules.builtin": tree.files.get("modules.builtin", b"").decode()}


def _stored(path: str) -> str:
    return _COMPRESSED.sub("", path)


def _decompress(path: str, data: bytes) -> bytes:
    if path.endswith(".xz"):
        return lzma.decompress(data)
    if path.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if path.endswith(".gz"):
        return gzip.decompress(data)
    return data
