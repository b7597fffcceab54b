"""The library closure, over small ELF files made here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pipeline.elf import LibraryNotFoundError, find_libraries, read_dynamic
from pipeline.errors import PvmlabError


def make_elf(path: Path, *, needed: tuple[str, ...] = (), interpreter: str | None = None) -> Path:
    """Write an x86-64 ELF file with these DT_NEEDED entries and this PT_INTERP, and nothing else."""
    strings, offsets = b"\0", []
    for name in needed:
        offsets.append(len(strings))
        strings += name.encode() + b"\0"
    names = b"\0.dynamic\0.dynstr\0.shstrtab\0"
    dynamic = b"".join(struct.pack("<QQ", 1, offset) for offset in offsets) + struct.pack("<QQ", 0, 0)
    interp = (interpreter or "").encode() + b"\0"
    blobs = [interp, dynamic, strings, names]
    starts = [64 + 56]
    for blob in blobs:
        starts.append(starts[-1] + len(blob))
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1" + bytes(9),
        3,
        62,
        1,
        0,
        64,
        starts[4],
        0,
        64,
        56,
        int(bool(interpreter)),
        64,
        4,
        3,
    )
    segment = struct.pack("<IIQQQQQQ", 3, 4, starts[0], 0, 0, len(interp), len(interp), 1)

    def section(name: int, kind: int, index: int, link: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, starts[index], len(blobs[index]), link, 0, 1, size)

    sections = bytes(64) + section(1, 6, 1, 2, 16) + section(10, 3, 2, 0, 0) + section(18, 3, 3, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + segment + b"".join(blobs) + sections)
    return path


def test_the_closure_follows_libraries_of_libraries_and_the_linker(tmp_path: Path) -> None:
    lib = tmp_path / "usr/lib/x86_64-linux-gnu"
    make_elf(lib / "libc.so.6", needed=("ld-linux-x86-64.so.2",))
    make_elf(lib / "libz.so.1", needed=("libc.so.6",))
    make_elf(lib / "unused.so.1")
    make_elf(lib / "ld-linux-x86-64.so.2")
    program = make_elf(tmp_path / "usr/bin/tool", needed=("libz.so.1",), interpreter="/lib64/ld-linux-x86-64.so.2")
    found = find_libraries(tmp_path, [program])
    assert found == {
        f"usr/lib/x86_64-linux-gnu/{name}": lib / name for name in ("libz.so.1", "libc.so.6", "ld-linux-x86-64.so.2")
    }


def test_a_missing_library_is_named_with_who_needs_it(tmp_path: Path) -> None:
    program = make_elf(tmp_path / "usr/bin/tool", needed=("libgone.so.3",))
    with pytest.raises(LibraryNotFoundError, match=r"tool needs the shared library libgone.so.3"):
        find_libraries(tmp_path, [program])


def test_a_library_of_this_machine_is_not_taken_for_one_of_the_tree(tmp_path: Path) -> None:
    program = make_elf(tmp_path / "usr/bin/tool", needed=("libc.so.6",))
    with pytest.raises(LibraryNotFoundError):
        find_libraries(tmp_path, [program])


def test_a_static_program_needs_nothing(tmp_path: Path) -> None:
    program = make_elf(tmp_path / "busybox")
    assert read_dynamic(program).interpreter is None
    assert find_libraries(tmp_path, [program]) == {}


def test_a_script_is_refused(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(PvmlabError, match="not an ELF file"):
        read_dynamic(tmp_path / "script")
