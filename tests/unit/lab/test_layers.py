"""What a disk stands on, read off its header; tests/integration/lab makes real ones."""

from __future__ import annotations

import struct
from pathlib import Path

from lab.layers import backing_file, chain, layers_folder, sweep
from pipeline.workspace import Home


def write_disk(path: Path, base: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = base.encode() if base else b""
    path.write_bytes(struct.pack(">4sIQI", b"QFI\xfb", 3, 104 if name else 0, len(name)).ljust(104, b"\0") + name)
    return path


def test_the_chain_is_followed_to_its_end(tmp_path: Path) -> None:
    bottom = tmp_path / "raw.img"
    bottom.write_bytes(b"no qcow2")
    middle = write_disk(tmp_path / "middle.qcow2", str(bottom))
    top = write_disk(tmp_path / "top.qcow2", "middle.qcow2")  # relative to its own folder
    assert chain(top) == [middle, bottom]
    assert chain(bottom) == chain(tmp_path / "nowhere") == []
    gone = write_disk(tmp_path / "x.qcow2", "/nowhere/base")
    assert chain(gone) == [Path("/nowhere/base")]


def test_a_circle_ends(tmp_path: Path) -> None:
    one = write_disk(tmp_path / "one", str(tmp_path / "two"))
    two = write_disk(tmp_path / "two", str(tmp_path / "one"))
    assert chain(one) == [two, one]


def test_what_is_no_header_has_no_base(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    for data in (b"", b"QFI\xfb", b"x" * 200, struct.pack(">4sIQI", b"QFI\xfb", 3, 24, 5000) + b"y" * 5000):
        path.write_bytes(data)
        assert backing_file(path) is None


def test_layers_that_nobody_stands_on_go(tmp_path: Path) -> None:
    home = Home(tmp_path)
    folder = layers_folder(home)
    a, b, c, d = (write_disk(folder / f"{name}.qcow2") for name in "abcd")
    write_disk(b, str(a))
    write_disk(home.disks / "web1.qcow2", str(b))
    (folder / ".c.qcow2.1.x.partial").touch()
    assert sweep(home, [d]) == [c]
    assert sorted(folder.iterdir()) == [a, b, d]
