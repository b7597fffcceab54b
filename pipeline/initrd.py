"""The installer's initrd: busybox, CPython, a few tools and ``installer/``, chosen out of unpacked Debian packages.

    packages --dpkg-deb--extract--> tree --installer_initrd--> cpio entries --cpio.write_gzip--> initrd.gz

The kernel's modules are no part of it: they come in a second archive that belongs to the kernel being booted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import cpio
from pipeline.elf import find_libraries, linker_links
from pipeline.errors import NotFoundError
from pipeline.run import run
from pipeline.workspace import REPOSITORY

# Of trixie, whatever is installed: one initrd serves all targets. Unpacked only, no maintainer script runs.
INITRD_SUITE = "trixie"
INITRD_PACKAGES = (
    "busybox-static",
    "python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib",
    "fdisk", "e2fsprogs", "dosfstools", "zstd", "tar",
)  # fmt: skip

_PYTHON = "usr/bin/python3.13"
_STDLIB = "usr/lib/python3.13"
_APP = "usr/lib/pvmlab"  # init sets PYTHONPATH to it
_APP_MODULES = ("installer", "installer.__main__")
_PROGRAMS = (_PYTHON, "usr/sbin/sfdisk", "usr/sbin/mkfs.ext4", "usr/sbin/mkfs.vfat", "usr/bin/zstd", "usr/bin/tar")
_BUSYBOX = "usr/bin/busybox"
_DATA = ("etc/mke2fs.conf",)
_SCRIPTS = {"init": "init", "dhcp-script": "usr/lib/pvmlab/dhcp-script"}  # of installer/ to their place
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "target", "etc", f"{_STDLIB}/lib-dynload")
_LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "usr/sbin": "bin",
    "usr/bin/python3": "python3.13",
}
# The kernel opens /dev/console for init before anything can mount a devtmpfs.
_CONSOLE = cpio.character_device("dev/console", 5, 1)


class IncompleteTreeError(NotFoundError):
    """The unpacked packages lack a file the initrd needs."""

    def __init__(self, path: str, *, tree: Path) -> None:
        self.path = path
        super().__init__(
            f"the installer's initrd needs {path}, which is not in the unpacked packages",
            details=f"looked in {tree}",
            resolution=f"unpack these packages of {INITRD_SUITE}: {' '.join(INITRD_PACKAGES)}",
        )


def installer_initrd(tree: Path) -> list[cpio.Entry]:
    """Return the entries of the installer's initrd; equal trees and equal sources give equal entries.

    Runs the tree's interpreter and busybox, so the tree must be of an architecture this machine executes.

    :param tree: directory that :data:`INITRD_PACKAGES` were unpacked to.
    :raises IncompleteTreeError: if a file is missing in it.
    :raises LibraryNotFoundError: if a shared library is.
    """
    programs = [_require(tree, program) for program in _PROGRAMS]
    libraries = find_libraries(tree, programs)
    ours = {f"usr/bin/{program.rsplit('/', 1)[-1]}" for program in _PROGRAMS}
    entries = [_CONSOLE]
    entries += [cpio.directory(folder, mode=0o1777 if folder == "tmp" else 0o755) for folder in _FOLDERS]
    entries += [cpio.symlink(path, target) for path, target in _LINKS.items()]
    entries += [_program(f"usr/bin/{path.name}", path) for path in (*programs, _require(tree, _BUSYBOX))]
    entries += [_program(place, path) for place, path in libraries.items()]
    entries += [cpio.symlink(*link) for link in linker_links(programs, libraries)]
    entries += [cpio.regular(path, _require(tree, path).read_bytes()) for path in _DATA]
    entries += [_program(place, REPOSITORY / "installer" / name) for name, place in _SCRIPTS.items()]
    entries += [cpio.symlink(f"usr/bin/{name}", "busybox") for name in _applets(tree) if f"usr/bin/{name}" not in ours]
    entries += _compiled(tree)
    return entries


def _require(tree: Path, path: str) -> Path:
    if not (tree / path).is_file():
        raise IncompleteTreeError(path, tree=tree)
    return tree / path


def _program(place: str, source: Path) -> cpio.Entry:
    return cpio.regular(place, source.read_bytes(), mode=0o755)


def _applets(tree: Path) -> list[str]:
    """Return the names busybox answers to, but its own: a link to itself would replace the program."""
    listing = run([tree / _BUSYBOX, "--list"], timeout=10).stdout
    return sorted(set(listing.split()) - {"busybox"})


def _compiled(tree: Path) -> Iterator[cpio.Entry]:
    """Yield the installer, what it imports of ours and of the standard library, compiled by the tree's interpreter."""
    with tempfile.TemporaryDirectory(prefix="pvmlab-initrd-") as scratch:
        run(
            [
                *_loader(tree), tree / _PYTHON,
                "-P", "-s", "-S", "-B",  # nothing of the user's or this machine's Python, no .pyc beside our sources
                REPOSITORY / "pipeline" / "sourceless.py", scratch, REPOSITORY, *_APP_MODULES,
            ],
            timeout=120,
            env={"PYTHONHASHSEED": "0"},
        )  # fmt: skip
        for kind, place in (("stdlib", _STDLIB), ("app", _APP)):
            root = Path(scratch) / kind
            for path in sorted(root.rglob("*.pyc")):
                yield cpio.regular(f"{place}/{path.relative_to(root).as_posix()}", path.read_bytes())


def _loader(tree: Path) -> list[str | Path]:
    """Return the words that start a program of the tree with the tree's libraries, without root or chroot."""
    linkers = [path for place, path in find_libraries(tree, [_require(tree, _PYTHON)]).items() if "/ld-linux" in place]
    if not linkers:
        raise IncompleteTreeError("usr/lib/*/ld-linux*.so", tree=tree)
    linker = linkers[0].resolve()
    return [linker, "--library-path", linker.parent]
