"""How long a squashfs image takes to become a tar: ``python benchmarks/squashfs.py [--rounds N] [IMAGE]``.

Beside each other, in turns, each into a file of the same scratch folder: our reader and writer, the program it reads
with alone (``sqfs2tar``), and what people do (``unsquashfs`` into a folder, then ``tar``). Then two layers merged.
Without IMAGE they are made of the root filesystem in the cache: all of it, and 2,000 of its files as an upper layer.
Ends with one JSON document on standard output; seconds, the median, lowest and highest of all rounds.
"""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from contracts.arch import Arch  # noqa: E402 (the benchmark is run as a script)
from lab.journey import DEFAULT_DISTRO  # noqa: E402
from pipeline.debian.rootfs import decompress  # noqa: E402
from pipeline.media.layers import Layer, merge  # noqa: E402
from pipeline.media.live_system import write_member  # noqa: E402
from pipeline.media.member import Member  # noqa: E402
from pipeline.media.squashfs import read_squashfs, read_superblock  # noqa: E402
from pipeline.media.tar_writer import TarWriter  # noqa: E402
from pipeline.run import run  # noqa: E402
from pipeline.workspace import Workspace  # noqa: E402

_TIMEOUT = 900.0
_UPPER_FILES = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", type=Path, help="a squashfs image; without, they are made")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        images = [options.image] if options.image is not None else make_images(scratch)
        print(json.dumps(measure(images, scratch, options.rounds), indent=2))  # noqa: T201


def measure(images: list[Path], scratch: Path, rounds: int) -> dict[str, Any]:
    """Return all figures."""
    base, output, tree = images[0], scratch / "out.tar", scratch / "tree"
    ways: dict[str, Callable[[], None]] = {
        "ours": lambda: write(read_squashfs(base), output),
        "sqfs2tar": lambda: to_file(["sqfs2tar", "--root-becomes", ".", base], output),
        "unsquashfs + tar": lambda: unpack_and_pack(base, tree, output),
    }
    if len(images) > 1:
        layers = [Layer(name=image.name, read=functools.partial(read_squashfs, image)) for image in images]
        ways["ours, layers merged"] = lambda: write(merge(layers), output)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, act in ways.items():
            begun = time.monotonic()
            act()
            seconds[way].append(time.monotonic() - begun)
            shutil.rmtree(tree, ignore_errors=True)
    superblock = read_superblock(base)
    return {
        "image": {"bytes": superblock.used, "compressor": superblock.compressor, "files": superblock.inodes},
        "tar_bytes": output.stat().st_size,
        "rounds": rounds,
        "seconds": {
            way: {"median": round(statistics.median(all_), 3), "min": round(min(all_), 3), "max": round(max(all_), 3)}
            for way, all_ in seconds.items()
        },
    }


def write(members: Iterable[Member], output: Path) -> None:
    """Write *members* as a tar."""
    with output.open("wb") as stream:
        writer = TarWriter(stream)
        for member in members:
            write_member(writer, member)
        writer.finish()


def to_file(argv: list[str | Path], output: Path) -> None:
    """Run a program whose standard output is *output*."""
    with output.open("wb") as stream:
        run(argv, timeout=_TIMEOUT, stdout=stream)


def unpack_and_pack(image: Path, tree: Path, output: Path) -> None:
    """Do it as people do."""
    run(["unsquashfs", "-quiet", "-no-progress", "-dest", tree, image], timeout=_TIMEOUT)
    run(
        ["tar", "--create", "--file", output, "--numeric-owner", "--xattrs", "--directory", tree, "."], timeout=_TIMEOUT
    )


def make_images(scratch: Path) -> list[Path]:
    """Return an image of the root filesystem in the cache, and one of some of its files."""
    archive = Workspace.from_environment().cache.image(DEFAULT_DISTRO, Arch.X86_64, "rootfs.tar.zst")
    plain, upper = scratch / "base.tar", scratch / "upper.tar"
    decompress(archive, plain)
    with tarfile.open(plain, "r:") as below, tarfile.open(upper, "w", format=tarfile.PAX_FORMAT) as above:
        files = [member for member in below if member.isreg()]
        for member in files[:: max(1, len(files) // _UPPER_FILES)]:
            above.addfile(member, below.extractfile(member))
    images = []
    for tar in (plain, upper):
        images.append(tar.with_suffix(".squashfs"))
        command = 'exec tar2sqfs --compressor zstd --quiet --force "$1" < "$2"'
        run(["sh", "-c", command, "sh", images[-1], tar], timeout=_TIMEOUT)
        tar.unlink()
    return images


if __name__ == "__main__":
    main()
