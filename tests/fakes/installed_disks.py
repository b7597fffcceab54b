"""A small disk as pvmlab's installer leaves it: a GPT with an ESP and an ext4 root that holds a machine's seed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from lab.identity import SEED_FOLDER
from pipeline.run import run

_TIMEOUT = 60
_ESP_MIB, _ROOT_MIB = 4, 40
_TABLE = f"label: gpt\nsize={_ESP_MIB}MiB, type=U, name=ESP\nsize={_ROOT_MIB}MiB, type=L, name=root\n"
_START = 1 << 20  # where sfdisk begins
_CORRUPTIBLE = "^orphan_file,^metadata_csum_seed"  # the features that the installer leaves out


def system_files(name: str, documents: Mapping[str, str]) -> dict[str, str]:
    """Return the files of an installed system that an identity is in."""
    return {
        "etc/hostname": f"{name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {name}.pvmlab.local {name}\n",
        "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
        **{f"{SEED_FOLDER}/{kind}": text for kind, text in documents.items()},
    }


def write_installed_disk(path: Path, files: Mapping[str, str], *, mounted: bool = False) -> int:
    """Write a qcow2 disk with *files* on its root; return where that begins, in bytes.

    :param mounted: as of a machine that was never shut down: its journal counts as needed.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree, raw, root = Path(folder, "tree"), Path(folder, "raw"), Path(folder, "root")
        for name, text in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", _CORRUPTIBLE, "-d", tree, root, f"{_ROOT_MIB}M"],
            timeout=_TIMEOUT)  # fmt: skip
        if mounted:
            run(["debugfs", "-w", "-R", "feature needs_recovery", root], timeout=_TIMEOUT)
        with raw.open("wb") as disk:
            disk.truncate(_START + (_ESP_MIB + _ROOT_MIB + 1) * (1 << 20))
        run(["sfdisk", "--quiet", raw], input=_TABLE, timeout=_TIMEOUT)
        begin = _START + _ESP_MIB * (1 << 20)
        with raw.open("r+b") as disk:
            disk.seek(begin)
            disk.write(root.read_bytes())
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], timeout=_TIMEOUT)
    return begin


def read_files(disk: Path, begin: int, names: Mapping[str, str]) -> dict[str, str]:
    """Return the files as e2fsprogs reads them from the qcow2 *disk*, having checked the whole file system."""
    with tempfile.TemporaryDirectory() as folder:
        raw, root = Path(folder, "raw"), Path(folder, "root")
        run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw], timeout=_TIMEOUT)
        root.write_bytes(raw.read_bytes()[begin : begin + _ROOT_MIB * (1 << 20)])
        run(["debugfs", "-w", "-R", "feature -needs_recovery", root], timeout=_TIMEOUT)
        run(["e2fsck", "-fn", root], timeout=_TIMEOUT)
        return {
            name: run(["debugfs", "-R", f"cat /{name}", root], timeout=_TIMEOUT).stdout.rstrip("\n") + "\n"
            for name in names
        }
