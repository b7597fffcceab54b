"""Choosing kernel modules for an initrd: names, plus all they depend on, packed so that modprobe loads them.

    root filesystem archive --read_modules--> ModuleTree --pack_modules--> cpio entries

They are stored below ``usr/lib/modules``, whether they were there or below ``lib``: a real ``lib`` directory would
replace the initrd's ``lib -> usr/lib`` link. A selection is stored unpacked: the archive around it is compressed, and
not every kernel or modprobe unpacks modules itself. See :func:`pack_all_modules` for the other case.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from pipeline import cpio
from pipeline.errors import NotFoundError, PvmlabError
from pipeline.kernel.depmod import derive_indexes, modprobe_indexes
from pipeline.kernel.module_file import compression, module_name, require_version, uncompressed_path, unpack_module
from pipeline.kernel.rootfs import KernelChoiceError, read_kernels

Wanted = str | tuple[str, ...]
"""A module, or names of which a kernel must have one: all that it has are wanted then."""

_READ_BY_BUSYBOX = frozenset({"xz", "gz"})  # its modprobe unpacks these, but not zstd
_THREADS, _SHARE = 2, 32  # modules that a thread unpacks in one go


class UnknownModuleError(NotFoundError):
    """Modules were asked for that the kernel neither has nor was built with."""

    def __init__(self, names: Iterable[str], *, kver: str) -> None:
        self.names = tuple(sorted(names))
        super().__init__(
            f"kernel {kver} has no module {', '.join(self.names)}",
            details="They are neither in modules.dep nor in modules.builtin.",
            resolution="correct the name, or declare it optional if this kernel flavour may lack it",
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
    def indexes(self) -> Mapping[str, bytes]:
        """What depmod says of the modules: the files it left, or the same read off the modules if it never ran."""
        found = {path: data for path, data in self.files.items() if "/" not in path}
        return found if "modules.dep" in found else {**found, **derive_indexes(self.files)}

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
        for line in self.indexes.get(name, b"").decode(errors="replace").splitlines():
            if line.strip() and not line.startswith("#"):
                yield line


def read_modules(rootfs: Path, *, kver: str | None = None) -> ModuleTree:
    """Read the kernel modules out of a root filesystem archive (tar, compressed by zstd).

    :param kver: which kernel's; None for that of the kernel that counts, see :mod:`pipeline.kernel.rootfs`.
    :raises KernelChoiceError: if there are none. :raises PvmlabError: see :meth:`pipeline.kernel.rootfs.choose`.
    """
    kernels = read_kernels(rootfs, modules=lambda version: kver in {None, version})
    version = kver if kver is not None else kernels.choose()
    if version not in kernels.modules:
        raise KernelChoiceError(kernels.modules, wanted=version)
    return ModuleTree(version, kernels.modules[version])


def resolve(tree: ModuleTree, names: Iterable[Wanted], *, optional: Iterable[str] = ()) -> list[str]:
    """Return the sorted paths of the modules *names* and *optional*, with all they depend on, softly too.

    Modules built into the kernel need no file and are left out; so are optional ones that it does not have.

    :raises UnknownModuleError: if one of *names* neither exists nor is built in.
    """
    groups = [{each.replace("-", "_") for each in ((name,) if isinstance(name, str) else name)} for name in names]
    known = tree.paths.keys() | tree.builtin
    if unknown := [" or ".join(sorted(group)) for group in groups if not group & known]:
        raise UnknownModuleError(unknown, kver=tree.kver)
    wanted = {name.replace("-", "_") for name in optional}.union(*groups)
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


def pack_modules(tree: ModuleTree, names: Iterable[Wanted], *, optional: Iterable[str] = ()) -> list[cpio.Entry]:
    """Return archive entries with the modules of :func:`resolve` and the index files modprobe needs, cut to them.

    :raises UnknownModuleError: see :func:`resolve`.
    :raises PvmlabError: if ``modules.dep`` speaks of a file that is not there, or one is damaged, or another kernel's.
    """
    return _pack(tree, resolve(tree, names, optional=optional), keep=frozenset())


def pack_all_modules(tree: ModuleTree) -> list[cpio.Entry]:
    """Return archive entries with every module of the kernel.

    Modules compressed by xz or gzip stay so: all unpacked are several times the size, in the memory of the machine that
    boots them, and busybox's modprobe reads them. Those compressed by zstd it does not, so they are unpacked.

    :raises PvmlabError: see :func:`pack_modules`.
    """
    return _pack(tree, sorted(tree.dependencies), keep=_READ_BY_BUSYBOX)


def _pack(tree: ModuleTree, paths: Sequence[str], *, keep: Collection[str]) -> list[cpio.Entry]:
    if missing := [path for path in paths if path not in tree.files]:
        raise PvmlabError(
            f"kernel {tree.kver}: modules.dep names a file that is not there: {missing[0]}",
            resolution="make the root filesystem again",
        )
    stored = {path: path if compression(path) in keep else uncompressed_path(path) for path in paths}
    kept = [path for path in paths if compression(path) in keep]
    content = {path: tree.files[path] for path in kept}
    content |= _unpack(tree, [path for path in paths if path not in content])
    _unpack(tree, kept[:1])  # looked into for its version: one stands for all that stay as they are
    folder = f"usr/lib/modules/{tree.kver}"
    files = {stored[path]: content[path] for path in paths} | modprobe_indexes(tree.indexes, stored)
    return [cpio.regular(f"{folder}/{path}", data) for path, data in files.items()]


def _unpack(tree: ModuleTree, paths: Sequence[str]) -> dict[str, bytes]:
    """Return the modules at *paths*, unpacked and checked to be this kernel's."""

    def unpack(some: Sequence[str]) -> dict[str, bytes]:
        modules = {path: unpack_module(path, tree.files[path]) for path in some}
        for path, module in modules.items():
            require_version(path, module, tree.kver)
        return modules

    shares = [paths[start : start + _SHARE] for start in range(0, len(paths), _SHARE)]
    with ThreadPoolExecutor(_THREADS) as threads:  # unpacking lets other threads run
        return {path: module for share in threads.map(unpack, shares) for path, module in share.items()}
