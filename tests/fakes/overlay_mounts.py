"""Has the kernel's overlayfs change trees at random, layer upon layer; run as root in a mount namespace of its own.

``python -m tests.fakes.overlay_mounts FOLDER SEED`` leaves squashfs images of the layers in FOLDER (the names are
printed, the lowest first) and prints what is to be seen of all of them together, as JSON. Exit status 77: overlayfs
cannot be mounted here.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import stat
import sys
from pathlib import Path

from pipeline.run import run

LAYERS, STEPS = 4, 60
NAMES = "abcdef"


def main(folder: Path, seed: int) -> int:
    """Make the layers; print what they are."""
    chance = random.Random(seed)
    place = folder / "mounts"
    place.mkdir()
    mount("tmpfs", place, "tmpfs", "")  # can have what overlayfs notes; the folder's own file system perhaps not
    layers = [place / "layer0"]
    layers[0].mkdir()
    merged = layers[0]
    shake(layers[0], chance)
    for number in range(1, LAYERS):
        upper, work, merged = (place / f"{name}{number}" for name in ("layer", "work", "merged"))
        for path in (upper, work, merged):
            path.mkdir()
        lower = ":".join(str(path) for path in reversed(layers))
        try:
            mount("overlay", merged, "overlay", f"lowerdir={lower},upperdir={upper},workdir={work}")
        except OSError as error:
            sys.stdout.write(str(error))
            return 77
        shake(merged, chance)
        layers.append(upper)
    shown = {path.relative_to(merged).as_posix(): look(path) for path in sorted(merged.rglob("*"))}
    whiteouts = sum(stat.S_ISCHR(path.lstat().st_mode) for layer in layers for path in layer.rglob("*"))
    images = [folder / f"{layer.name}.squashfs" for layer in layers]
    for layer, image in zip(layers, images, strict=True):
        run(["mksquashfs", layer, image, "-noappend", "-quiet", "-no-progress", "-xattrs"], timeout=60)
    json.dump({"layers": [image.name for image in images], "shown": shown, "whiteouts": whiteouts}, sys.stdout)
    return 0


def mount(source: str, target: Path, kind: str, data: str) -> None:
    """Mount, as mount(2) does."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(source.encode(), os.fsencode(target), kind.encode(), 0, data.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def look(path: Path) -> list[object]:
    """Return kind, mode, time, content or target of *path*."""
    status = path.lstat()
    mode, time = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if path.is_symlink():
        return ["symlink", mode, time, str(path.readlink())]
    return ["directory", mode, time, ""] if path.is_dir() else ["file", mode, time, path.read_text()]


def shake(root: Path, chance: random.Random) -> None:
    """Change the tree at *root* at random."""
    for _ in range(STEPS):
        folder = chance.choice(
            [root, *(path for path in sorted(root.rglob("*")) if path.is_dir() and not path.is_symlink())]
        )
        step(folder / chance.choice(NAMES), root, chance)
    for path in sorted(root.rglob("*")):
        if chance.random() < 0.3 and not path.is_symlink():
            os.utime(path, (1_000_000_000, chance.randrange(1_000_000_000, 1_100_000_000)))


def step(path: Path, root: Path, chance: random.Random) -> None:
    """Do one thing at *path*, whatever is there now."""
    act = chance.choice(["write", "write", "mkdir", "mkdir", "link", "symlink", "remove", "renew", "chmod"])
    if act in {"remove", "renew", "write", "symlink", "link"}:
        is_folder = path.is_dir() and not path.is_symlink()
        shutil.rmtree(path) if is_folder else path.unlink(missing_ok=True)
    others = [each for each in sorted(root.rglob("*")) if each.is_file() and not each.is_symlink()]
    if act == "write":
        path.write_text(str(chance.random()))
    elif act == "symlink":
        path.symlink_to(chance.choice(NAMES))
    elif act == "link" and others:
        path.hardlink_to(chance.choice(others))
    elif act in {"mkdir", "renew"} and not os.path.lexists(path):
        path.mkdir()
    elif act == "chmod" and path.is_dir() and not path.is_symlink():
        path.chmod(chance.choice([0o700, 0o755, 0o1777]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
