"""Pictures of machines' screens."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import screenshots
from lab.screenshots import take_screenshot
from pipeline.errors import ConflictError, PvmlabError
from tests.fakes.idle_machines import IdleLab


@pytest.fixture
def place(tmp_path: Path) -> Iterator[IdleLab]:
    """A lab without machines."""
    idle = IdleLab(tmp_path)
    yield idle
    idle.end()


def colours(picture: Path) -> set[bytes]:
    """Return the colours in a PNG of 8 bits a channel without interlacing, as QEMU writes them, by their bytes."""
    data, at, packed = picture.read_bytes(), 8, b""
    width, height, depth, kind, *_ = struct.unpack_from(">IIBBBBB", data, 16)
    assert (depth, kind) == (8, 2)
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        packed += data[at + 8 : at + 8 + length] if name == b"IDAT" else b""
        at += 12 + length
    lines, step = zlib.decompress(packed), 3 * width + 1
    # a filter only encodes differences: a picture of one colour has none but in its first pixel
    return {
        line[i : i + 3]
        for row in range(height)
        if (line := lines[row * step + 1 : (row + 1) * step])
        for i in range(0, len(line), 3)
    }


@pytest.mark.vm
def test_the_firmwares_screen_is_a_picture(place: IdleLab, tmp_path: Path) -> None:
    place.make("web1")
    machine = place.start("web1", runs=True)
    deadline, picture = time.monotonic() + 60, tmp_path / "pictures" / "web1.png"
    while True:
        width, height = take_screenshot(machine, picture)
        if (width, height) != (640, 480) and len(colours(picture)) > 2:  # the firmware has set its mode and drawn
            break
        assert time.monotonic() < deadline, (width, height)
        time.sleep(0.5)
    assert (width, height) == (1280, 800)
    assert picture.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in picture.parent.iterdir()] == ["web1.png"]


def test_a_machine_that_has_not_begun_shows_a_dark_screen(place: IdleLab, tmp_path: Path) -> None:
    place.make("web1")
    assert take_screenshot(place.start("web1"), tmp_path / "web1.png") == (640, 480)


def test_a_machine_that_is_off_or_has_no_card_shows_nothing(place: IdleLab, tmp_path: Path) -> None:
    import dataclasses

    from lab import target

    definition = place.make("web1")
    machine, picture = place.lab.machine("web1"), tmp_path / "web1.png"
    with pytest.raises(ConflictError, match="web1 is off"):
        take_screenshot(machine, picture)
    spec = target.prepare(place.lab, definition, place.accelerator)
    machine.start(dataclasses.replace(spec, display=False, paused=True))
    with pytest.raises(ConflictError, match="there is no picture of web1") as caught:
        take_screenshot(machine, picture)
    assert "without a graphics card" in caught.value.resolution
    assert not picture.exists()


def test_a_place_that_takes_no_files_is_told(place: IdleLab, tmp_path: Path) -> None:
    place.make("web1")
    machine = place.start("web1")
    for path, message in ((Path("/proc/web1.png"), "the picture cannot be written to /proc/web1.png"),
                          (tmp_path / "file" / "web1.png", "the picture cannot be written")):  # fmt: skip
        (tmp_path / "file").touch()
        with pytest.raises(PvmlabError, match=message) as caught:
            take_screenshot(machine, path)
        assert caught.value.resolution == "choose another --file"


def test_what_is_no_png_is_told() -> None:
    with pytest.raises(PvmlabError, match="QEMU wrote no PNG"):
        screenshots._size(b"P6 640 480")
