"""Packing a kernel's modules beside its peers: ``python benchmarks/modules.py [--runs N] [ROOTFS ...]``.

For each root filesystem archive (default: those that are built) its modules are unpacked once to a folder, as they are
and once more for each other compression that distributions use. Then, in turns (ours, peer, ours, peer ...), on this
machine, in this run, medians:

- ours: the folder read, all modules packed with their index files (``pack_all_modules``), written as modules.cpio.gz;
- ``find | cpio | gzip`` and ``find | cpio | pigz`` over the same folder;
- for modules compressed by zstd, which we unpack because the initrd's modprobe does not, the peers also over a folder
  with the modules unpacked: that is what gives the archive that ours is.

Also what a build waits for: the same from the archive itself, and the selection that an installer needs. Each of our
archives is unpacked by cpio(1) and compared with what was packed. Ends with one JSON document on standard output. Wants
the programs cpio, gzip and pigz.
"""

from __future__ import annotations

import argparse
import filecmp
import gzip
import json
import lzma
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from contracts.arch import Arch  # noqa: E402 (the benchmark is run as a script)
from pipeline import cpio  # noqa: E402
from pipeline.kernel.installer_modules import INSTALLER_MODULES, INSTALLER_MODULES_OPTIONAL  # noqa: E402
from pipeline.kernel.module_file import compression, uncompressed_path, unpack_module  # noqa: E402
from pipeline.kernel.modules import ModuleTree, pack_all_modules, pack_modules, read_modules  # noqa: E402
from pipeline.run import require_program, run  # noqa: E402
from pipeline.workspace import Workspace  # noqa: E402

_TIMEOUT = 600.0
_PEERS = ("gzip", "pigz")
_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "ko": lambda data: data,
    "ko.xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32, preset=0),
    "ko.zst": zstandard.ZstdCompressor(level=3, write_checksum=True).compress,
    "ko.gz": lambda data: gzip.compress(data, 2, mtime=0),
}


def write_tree(tree: ModuleTree, folder: Path, kind: str) -> Path:
    """Write the modules below *folder*, compressed as *kind* says; return it."""
    sys.stderr.write(f"preparing {folder.name} ...\n")
    for path, data in tree.files.items():
        place, content = path, data
        if ".ko" in path:
            place = uncompressed_path(path) + kind.removeprefix("ko")
            if (compression(path) or "") != kind.removeprefix("ko").removeprefix("."):
                content = _COMPRESS[kind](unpack_module(path, data))
        elif path == "modules.dep":
            names = {name: uncompressed_path(name) + kind.removeprefix("ko") for name in tree.files if ".ko" in name}
            words = [[names.get(word.rstrip(":"), word.rstrip(":")) + ":" * word.endswith(":") for word in line.split()]
                     for line in data.decode().splitlines()]  # fmt: skip
            content = "".join(f"{' '.join(line)}\n" for line in words).encode()
        elif path == "modules.dep.bin":
            continue
        target = folder / tree.kver / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def read_tree(folder: Path) -> ModuleTree:
    """Read modules from a folder, as they would be read from an archive."""
    (root,) = folder.iterdir()
    files = {}
    for place, _, names in os.walk(root):
        for name in names:
            path = f"{place}/{name}"
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123 (a path object costs as much as the reading)
                files[path[len(str(root)) + 1 :]] = stream.read()
    return ModuleTree(root.name, files)


def pack(folder: Path, output: Path) -> None:
    """Pack all modules of a folder."""
    cpio.write_gzip(output, pack_all_modules(read_tree(folder)))


def pack_by_peer(program: str, folder: Path, output: Path) -> None:
    """Do what people do: ``find . | cpio -o -H newc | gzip``."""
    script = f"find . | cpio --create --format=newc --quiet | {program} >{output}"
    run(["sh", "-c", script], cwd=folder, timeout=_TIMEOUT)


def timed(action: Callable[[], None]) -> float:
    """Return how many seconds it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(contestants: Mapping[str, Callable[[], None]], runs: int) -> dict[str, float]:
    """Return the median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, action in contestants.items():
            times[name].append(timed(action))
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def compare(output: Path, folder: Path, scratch: Path) -> int:
    """Unpack our archive with cpio and compare each module with what was packed; return how many there are."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    run(["sh", "-c", f"gzip --decompress --stdout {output} | cpio --extract --quiet --make-directories"], cwd=scratch,
        timeout=_TIMEOUT)  # fmt: skip
    (root,) = folder.iterdir()
    count = 0
    for path in root.rglob("*.ko*"):
        place = scratch / "usr/lib/modules" / root.name / path.relative_to(root)
        if place.exists():
            same = filecmp.cmp(path, place, shallow=False)
        else:
            unpacked = place.with_name(uncompressed_path(place.name))
            same = unpacked.read_bytes() == unpack_module(path.name, path.read_bytes())
        if not same:
            raise SystemExit(f"{path} is not what was packed")
        count += 1
    return count


def measure(rootfs: Path, kinds: list[str], runs: int, scratch: Path) -> dict[str, object]:
    """Measure one root filesystem's modules."""
    tree = read_modules(rootfs)
    folders = {
        kind: write_tree(tree, scratch / kind, kind) for kind in ["ko", *(kind for kind in kinds if kind != "ko")]
    }
    results: dict[str, object] = {}
    for kind in kinds:
        folder, output = folders[kind], scratch / "modules.cpio.gz"
        contestants: dict[str, Callable[[], None]] = {"ours": lambda f=folder, o=output: pack(f, o)}  # type: ignore[misc]
        for program in _PEERS:
            inputs = {f"find | cpio | {program}": folder}
            if kind == "ko.zst":
                inputs[f"find | cpio | {program}, unpacked before"] = folders["ko"]
            for name, place in inputs.items():
                peer = scratch / f"{program}.cpio.gz"
                contestants[name] = lambda p=program, f=place, o=peer: pack_by_peer(p, f, o)  # type: ignore[misc]
        seconds = in_turns(contestants, runs)
        results[kind] = {
            "seconds": seconds,
            "times faster": {
                name: round(each / seconds["ours"], 1) for name, each in seconds.items() if name != "ours"
            },
            "bytes": {"ours": output.stat().st_size, **{p: (scratch / f"{p}.cpio.gz").stat().st_size for p in _PEERS}},
            "modules": compare(output, folder, scratch / "compared"),
        }

    def whole(*, everything: bool) -> None:
        found = read_modules(rootfs)
        chosen = pack_modules(found, INSTALLER_MODULES, optional=INSTALLER_MODULES_OPTIONAL)
        cpio.write_gzip(scratch / "whole", pack_all_modules(found) if everything else chosen)

    contestants = {"all": lambda: whole(everything=True), "installer": lambda: whole(everything=False)}
    results["from rootfs.tar.zst, seconds"] = in_turns(contestants, runs)
    return {"kernel": tree.kver, "rootfs bytes": rootfs.stat().st_size, **results}


def main() -> None:
    """Measure, and write the figures."""
    cache = Workspace.from_environment().cache
    built = [cache.image("debian-12", Arch.X86_64, "rootfs.tar.zst"), cache.provisioner(Arch.X86_64, "rootfs.tar.zst")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs", nargs="*", type=Path, default=[path for path in built if path.exists()])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=_COMPRESS, default=list(_COMPRESS))
    options = parser.parse_args()
    for program in ("cpio", *_PEERS):
        require_program(program)
    results = {}
    for rootfs in options.rootfs:
        with tempfile.TemporaryDirectory(prefix="pvmlab-benchmark.") as scratch:
            results[str(rootfs.relative_to(cache.root) if rootfs.is_relative_to(cache.root) else rootfs)] = measure(
                rootfs, options.kinds, options.runs, Path(scratch)
            )
    sys.stdout.write(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
