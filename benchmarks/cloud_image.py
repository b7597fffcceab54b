"""What a cloud image costs beside its peers: ``python benchmarks/cloud_image.py [--runs N] [--read]``.

The image is a disk of 3 GiB with Debian 12's root filesystem (built if it is not), as compressed qcow2.

- The disk: ours, qcow2 to ``disk.img.zst`` in one pass; ``qemu-img convert`` to a raw file, which is not compressed;
  and that followed by ``zstd -3 -T2``. In turns, with the image in the page cache; medians.
- With ``--read``: the root filesystem out of ext4, xfs and btrfs, by the appliance, each once. Boot and shutdown of the
  appliance included; then writing ``rootfs.tar.zst``. Makes these images first, which takes minutes when emulated.

Ends with a table and one JSON document on standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from contracts.arch import Arch  # noqa: E402 (the benchmark is run as a script)
from pipeline.appliance.root_reader import read_members, read_root  # noqa: E402
from pipeline.artifact import Making  # noqa: E402
from pipeline.disk_image import Unpacked, make_ext4_qcow2  # noqa: E402
from pipeline.media.cloud_image import inspect_image, write_disk  # noqa: E402
from pipeline.media.rootfs_tar import write_rootfs  # noqa: E402
from pipeline.recipes.build import ensure  # noqa: E402
from pipeline.recipes.cloud_image import appliance_files  # noqa: E402
from pipeline.run import run  # noqa: E402
from pipeline.state import state_of  # noqa: E402
from pipeline.workspace import Cache, Workspace  # noqa: E402
from tests.fakes.cloud_images import LAYOUTS, make_images, with_room  # noqa: E402

_TIMEOUT = 1800.0
_UUID = "7d1bd3a2-4a0f-4c55-9d7e-1c1c47c4d2a1"
_ROOT_MIB = 1500


def make_disk(tar: Path, folder: Path) -> Path:
    """Make the compressed qcow2 image of a disk of 3 GiB with *tar* unpacked in it."""
    scratch, plain, image = folder / "scratch", folder / "plain.qcow2", folder / "image.qcow2"
    scratch.mkdir()
    making = Making({}, scratch, folder / "log")
    make_ext4_qcow2([Unpacked(tar)], label="root", uuid=_UUID, size_gib=3, epoch=0, making=making, output=plain)
    run(["qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", plain, image], timeout=_TIMEOUT)
    plain.unlink()
    return image


def who_makes_disks(image: Path, folder: Path) -> dict[str, Callable[[], Path]]:
    """Return who makes a file of the disk, by name; each returns it."""
    ours, raw = folder / "ours.zst", folder / "peer.raw"

    def convert() -> Path:
        run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], timeout=_TIMEOUT)
        return raw

    def convert_and_compress() -> Path:
        run(["zstd", "-q", "-f", "-3", "-T2", convert(), "-o", folder / "peer.zst"], timeout=_TIMEOUT)
        return folder / "peer.zst"

    def make_ours() -> Path:
        write_disk(inspect_image(image), ours)
        return ours

    return {"ours": make_ours, "qemu-img convert": convert, "qemu-img convert, then zstd": convert_and_compress}


def measure_disks(image: Path, folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Return seconds and bytes on the disk for each."""
    seconds: dict[str, list[float]] = {}
    sizes: dict[str, int] = {}
    for _ in range(runs):
        for name, make in who_makes_disks(image, folder).items():
            began = time.monotonic()
            made = make()
            seconds.setdefault(name, []).append(time.monotonic() - began)
            sizes[name] = made.stat().st_blocks * 512
            made.unlink()
            (folder / "peer.raw").unlink(missing_ok=True)
    return {name: {"seconds": statistics.median(each), "bytes": sizes[name]} for name, each in seconds.items()}


def measure_reading(tar: Path, folder: Path, cache: Cache) -> dict[str, dict[str, float]]:
    """Return seconds for each file system."""
    appliance, state = appliance_files(Arch.of_host(), cache), state_of(cache)
    folder.mkdir()
    layouts = [with_room(layout, _ROOT_MIB) for layout in LAYOUTS]
    figures: dict[str, dict[str, float]] = {}
    for name, image in make_images(appliance, folder, state, layouts=layouts, content=tar).items():
        work = folder / f"read-{name}"
        work.mkdir()
        began = time.monotonic()
        root, report = read_root(inspect_image(image), appliance, folder=work, log=work / "log", state=state)
        read = time.monotonic()
        write_rootfs(read_members(root), work / "rootfs.tar.zst", epoch=None)
        figures[name] = {"seconds": read - began, "bytes": report.size, "packing": time.monotonic() - read}
        root.unlink()
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--read", action="store_true")
    options = parser.parse_args()
    cache = Workspace.from_environment().cache
    rootfs = cache.image("debian-12", Arch.X86_64, "rootfs.tar.zst")
    ensure([f"rootfs:debian-12:{Arch.X86_64}", *([f"appliance:{Arch.of_host()}"] if options.read else [])])
    with tempfile.TemporaryDirectory(prefix="pvmlab-benchmark-") as name:
        folder = Path(name)
        tar = folder / "root.tar"
        run(["zstd", "-q", "-d", "-f", rootfs, "-o", tar], timeout=_TIMEOUT)
        figures = {"disk": measure_disks(make_disk(tar, folder), folder, options.runs)}
        if options.read:
            figures["read"] = measure_reading(tar, folder / "read", cache)
    for kind, table in figures.items():
        for who, each in table.items():
            print(f"{kind:5} {who:30} {each['seconds']:7.2f} s {each['bytes'] / 1e6:9.1f} MB")  # noqa: T201
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
