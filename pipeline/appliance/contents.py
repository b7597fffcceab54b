"""What the appliance is: a kernel of Debian's, and an initrd with busybox, GNU tar, blkid and the drivers it needs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from contracts.arch import Arch
from pipeline import cpio
from pipeline.elf import find_libraries, linker_links
from pipeline.errors import NotFoundError
from pipeline.kernel.modules import ModuleTree, Wanted, pack_modules

SUITE = "trixie"  # whatever the host is
GUEST = Path(__file__).parent / "guest"

_PROGRAMS = ("usr/bin/tar", "usr/sbin/blkid")  # busybox's tar knows no extended attributes; Debian's has no blkid
_BUSYBOX = "usr/bin/busybox"
_FOLDERS = ("dev", "proc", "sys", "run", "root", "sbin", "tmp")
_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_JOBS = ("read-root",)
_MODULES: tuple[Wanted, ...] = (
    "virtio_blk", "ext4", "xfs", "btrfs", "vfat", "nls_cp437", ("nls_ascii", "nls_iso8859_1", "nls_utf8"),
)  # fmt: skip
_MODULES_OPTIONAL = (
    "virtio_console", "virtio_pci", "crc32c_generic", "crc32c_intel", "xxhash_generic", "blake2b_generic",
    "sha256_generic",
)  # fmt: skip
# Where these and all they need are: the package has thousands more, and each would be unpacked to be looked into.
_MODULE_FOLDERS = ("arch", "crypto", "drivers/block", "drivers/char", "drivers/virtio", "fs", "lib")


def packages(arch: Arch) -> tuple[str, ...]:
    """Return the Debian packages it is made of. The generic kernel is the one the provisioner has, too."""
    return (f"linux-image-{arch.debian}", "busybox-static", "tar", "util-linux")


def find_kernel(tree: Path) -> tuple[str, Path]:
    """Return version and file of the kernel in the unpacked packages.

    :raises NotFoundError: if there is not exactly one.
    """
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise NotFoundError(
            f"the appliance's packages hold {len(kernels)} kernels, not one",
            resolution="report it, with the task's log",
        )
    return kernels[0].name.removeprefix("vmlinuz-"), kernels[0]


def read_module_tree(tree: Path, kver: str) -> ModuleTree:
    """Return those modules of the unpacked packages that the appliance's may be among."""
    folder = tree / "usr/lib/modules" / kver
    places = [folder / "kernel" / name for name in _MODULE_FOLDERS]
    paths = [path for place in places for path in sorted(place.rglob("*.ko*"))]
    paths += [path for path in sorted(folder.iterdir()) if path.is_file()]
    return ModuleTree(kver, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})


def initrd_entries(tree: Path, modules: ModuleTree) -> list[cpio.Entry]:
    """Return the entries of the initrd.

    :param tree: directory that :func:`packages` were unpacked to.
    :raises NotFoundError: if a program, a library or a module is missing.
    """
    programs = [tree / name for name in _PROGRAMS]
    entries = [cpio.character_device("dev/console", 5, 1)]  # the kernel opens it for init before anything is mounted
    entries += [cpio.directory(folder, mode=0o1777 if folder == "tmp" else 0o755) for folder in _FOLDERS]
    entries += [cpio.symlink(path, target) for path, target in _LINKS.items()]
    entries += program_entries(tree, programs)
    entries.append(_program("usr/bin/busybox", tree / _BUSYBOX))
    entries.append(_program("init", GUEST / "init"))
    entries += [cpio.regular(f"jobs/{name}", (GUEST / name).read_bytes()) for name in _JOBS]
    entries += pack_modules(modules, _MODULES, optional=_MODULES_OPTIONAL)
    return entries


def program_entries(tree: Path, programs: Iterable[Path]) -> list[cpio.Entry]:
    """Return entries with *programs* of *tree* in ``usr/bin``, their libraries and the dynamic linker.

    :raises NotFoundError: if one is missing. :raises LibraryNotFoundError: if a library is.
    """
    wanted = list(programs)
    for program in wanted:
        if not program.is_file():
            raise NotFoundError(f"the appliance needs {program.name}, which is not in the unpacked packages")
    libraries = find_libraries(tree, wanted)
    entries = [_program(f"usr/bin/{program.name}", program) for program in wanted]
    entries += [_program(place, path) for place, path in libraries.items()]
    return [*entries, *(cpio.symlink(*link) for link in linker_links(wanted, libraries))]


def _program(place: str, source: Path) -> cpio.Entry:
    return cpio.regular(place, source.read_bytes(), mode=0o755)
