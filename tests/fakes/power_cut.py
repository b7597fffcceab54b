"""What a power cut can leave on a disk: a program's file operations, recorded with strace and played on a model.

The model is the weakest that POSIX allows: the content of a file is certain as of its last fsync, the names in a folder
as of the folder's; of what came later anything may have reached the disk. A file that was never flushed may be there
under its final name, empty, cut, or full of zeros. Real file systems promise more, each something else.

What the model does not know (links, renames from folder to folder, copying inside the kernel) it refuses. What a
program writes through a memory map it does not see. Both would show: the model must end as the disk does.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from pipeline.run import run

_OPENING = {"open", "openat", "creat"}
_WRITING = {"write", "writev", "pwrite64"}
_FLUSHING = {"fsync", "fdatasync"}
_RENAMING = {"rename", "renameat", "renameat2"}
_REMOVING = {"unlink", "unlinkat", "rmdir"}
_MAKING_FOLDERS = {"mkdir", "mkdirat"}
_NAMING = _RENAMING | _REMOVING | _MAKING_FOLDERS
_KNOWN = {"lseek", "ftruncate", *_OPENING, *_WRITING, *_FLUSHING, *_NAMING}
_REFUSED = {"copy_file_range", "fallocate", "link", "linkat", "pwritev", "pwritev2", "sendfile", "splice", "symlink",
            "symlinkat", "sync_file_range", "truncate"}  # fmt: skip
_LONGEST_WRITE = 1 << 20  # bytes; strace would cut longer ones, which is refused

_HEX = r"(?:\\x[0-9a-f]{2})*"
_LINE = re.compile(r"(?P<process>\d+) +(?P<rest>.*)")
_CALL = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?:<(?P<opened>" + _HEX + r")>)?")
_UNFINISHED, _RESUMED = " <unfinished ...>", re.compile(r"<\.\.\. \w+ resumed>")
_STRING = re.compile(rf'"({_HEX})"(\.\.\.)?')
_DESCRIPTOR = re.compile(rf"(\w+)<({_HEX})>(\(deleted\))?")


@dataclasses.dataclass(frozen=True)
class Call:
    """A system call that did what it was asked.

    :ivar descriptors: those among its arguments, with the path each stands for; None if that was removed.
    :ivar strings: texts among its arguments: paths, data. :ivar plain: all other arguments.
    :ivar opened: the path that *result* stands for, if it is a descriptor.
    """

    name: str
    descriptors: Sequence[tuple[str, Path | None]]
    strings: Sequence[bytes]
    plain: Sequence[str]
    result: int
    opened: Path | None

    @property
    def paths(self) -> list[Path]:
        """Its path arguments, each relative to the descriptor before it, if there is one."""
        names = [Path(os.fsdecode(name)) for name in self.strings]
        folders = [folder or Path("/") for _, folder in self.descriptors] or [Path("/")] * len(names)
        return [folder / name for folder, name in zip(folders, names, strict=True)]


def record(argv: Sequence[str | Path], *, trace: Path, env: Mapping[str, str], cwd: Path, timeout: float) -> list[Call]:
    """Run a program with all it starts to its end; return what they did to files, in the order it was done.

    :param trace: where strace writes.
    :raises CommandError: if the program fails. :raises MissingProgramError: if strace is not installed.
    """
    names = ",".join(f"?{name}" for name in sorted(_KNOWN | _REFUSED))  # "?": not every architecture has all of them
    run(
        [
            "strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--decode-fds=path", "--strings-in-hex=all",
            f"--string-limit={_LONGEST_WRITE}", f"--trace={names}", f"--output={trace}", "--", *argv,
        ],
        env=env, cwd=cwd, timeout=timeout,
    )  # fmt: skip
    return list(parse(trace.read_text().splitlines()))


def parse(lines: Sequence[str]) -> Iterator[Call]:
    """Yield the calls in strace's output that did what they were asked.

    :raises ValueError: if one is not shown whole.
    """
    begun: dict[str, str] = {}  # by process: of two calls at once the second one interrupts the line of the first
    for line in lines:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        process, rest = match["process"], match["rest"]
        if rest.endswith(_UNFINISHED):
            begun[process] = rest.removesuffix(_UNFINISHED)
            continue
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(process) + rest[resumed.end() :]
        call = _CALL.match(rest)
        if call is None or int(call["result"]) < 0:
            continue
        arguments = call["arguments"]
        if any(cut for _, cut in _STRING.findall(arguments)):
            raise ValueError(f"strace has cut this: {rest[:200]}")
        yield Call(
            name=call["name"],
            descriptors=[(fd, None if gone else _path(text)) for fd, text, gone in _DESCRIPTOR.findall(arguments)],
            strings=[_bytes(text) for text, _ in _STRING.findall(arguments)],
            plain=_DESCRIPTOR.sub("", _STRING.sub("", arguments)).split(", "),
            result=int(call["result"]),
            opened=_path(call["opened"]) if call["opened"] else None,
        )


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _path(text: str) -> Path:
    return Path(os.fsdecode(_bytes(text)))


class Contents(enum.Enum):
    """What has become of that part of a file which was not flushed."""

    WRITTEN = "written"
    LOST = "lost"
    CUT = "cut in the middle"
    ZEROS = "full of zeros"


class Entries(enum.Enum):
    """What has become of the changes to a folder that were not flushed."""

    WRITTEN = "written"
    LOST = "lost"
    FIRST = "the first ones written"
    SOME = "some written"


@dataclasses.dataclass(frozen=True)
class Damage:
    """What a power cut does. None: chance decides, for each file and each folder anew.

    :ivar share: of the files and folders that have anything to lose at all, the part that does.
    """

    contents: Contents | None = None
    entries: Entries | None = None
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Remains:
    """What a power cut left of a file. :ivar written: what the program had written."""

    data: bytes
    written: bytes


@dataclasses.dataclass(eq=False)
class _File:
    data: bytes = b""
    flushed: bytes = b""

    def left(self, fate: Contents) -> bytes:
        certain = len(self.flushed) if self.data.startswith(self.flushed) else 0
        return {
            Contents.WRITTEN: self.data,
            Contents.LOST: self.flushed,
            Contents.CUT: self.data[: (certain + len(self.data)) // 2],
            Contents.ZEROS: self.data[:certain].ljust(len(self.data), b"\0"),
        }[fate]


@dataclasses.dataclass(eq=False)
class _Folder:
    """:ivar pending: changes since the last fsync, each made at once: names, with what they stand for from then on."""

    entries: dict[str, _Node] = dataclasses.field(default_factory=dict)
    flushed: dict[str, _Node] = dataclasses.field(default_factory=dict)
    pending: list[dict[str, _Node | None]] = dataclasses.field(default_factory=list)

    def change(self, change: dict[str, _Node | None]) -> bool:
        self.pending.append(change)
        _apply(self.entries, change)
        return True

    def left(self, fate: Entries, chance: random.Random) -> dict[str, _Node]:
        survived = {
            Entries.WRITTEN: self.pending,
            Entries.LOST: [],
            Entries.FIRST: self.pending[: chance.randint(0, len(self.pending))],
            Entries.SOME: [change for change in self.pending if chance.random() < 0.5],
        }
        entries = dict(self.flushed)
        for change in survived[fate]:
            _apply(entries, change)
        return entries


_Node: TypeAlias = _File | _Folder
Tree: TypeAlias = dict[str, Remains | None]  # by relative path, folders first; None for a folder


def _apply(entries: dict[str, _Node], change: Mapping[str, _Node | None]) -> None:
    for name, node in change.items():
        entries.pop(name, None)
        if node is not None:
            entries[name] = node


class Disk:
    """The model: what programs see below *root*, and what of it is certain."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = _Folder()
        self._positions: dict[tuple[_File, str], int] = {}  # of descriptors that do not append

    def play(self, call: Call) -> bool:
        """Do what *call* did; return whether that changed anything, if only what is certain.

        :raises NotImplementedError: if it is one the model does not know.
        """
        if call.name in _OPENING:
            return self._open(call)
        if call.name in _NAMING:
            return self._change_folder(call)
        if not any(self._is_below(path) for path in self._paths(call)):
            return False
        if call.name in _REFUSED:
            raise NotImplementedError(call)
        descriptor, path = call.descriptors[0]
        node = self._find(path)
        match node:
            case _Folder() if call.name in _FLUSHING:
                node.flushed = dict(node.entries)
                node.pending.clear()
                return True
            case _File():
                return self._change_file(call, node, descriptor)
        return False  # a file that has no name any more: nobody will see it again

    def after_power_cut(self, damage: Damage, chance: random.Random) -> Tree:
        """Return what a power cut now could leave."""
        tree: Tree = {}
        self._gather(self._top, Path(), tree, damage, chance)
        return tree

    def as_written(self) -> dict[str, bytes]:
        """Return the files by their relative paths, as programs see them now."""
        tree = self.after_power_cut(Damage(Contents.WRITTEN, Entries.WRITTEN), random.Random(0))
        return {name: remains.data for name, remains in tree.items() if remains is not None}

    def _gather(self, folder: _Folder, place: Path, tree: Tree, damage: Damage, chance: random.Random) -> None:
        entries = damage.entries or chance.choice([*Entries]) if chance.random() < damage.share else Entries.WRITTEN
        for name, node in folder.left(entries, chance).items():
            path = place / name
            if isinstance(node, _File):
                hit = chance.random() < damage.share
                contents = damage.contents or chance.choice([*Contents]) if hit else Contents.WRITTEN
                tree[path.as_posix()] = Remains(node.left(contents), node.data)
            else:
                tree[path.as_posix()] = None
                self._gather(node, path, tree, damage, chance)

    def _open(self, call: Call) -> bool:
        if call.opened is None or not self._is_below(call.opened):
            return False
        flags = set("|".join(call.plain).split("|"))
        if "O_TMPFILE" in flags:
            raise NotImplementedError(call)
        node, changed = self._find(call.opened), False
        if node is None:
            node = _File()
            changed = self._folder_of(call.opened).change({call.opened.name: node})
        if isinstance(node, _File):
            if "O_TRUNC" in flags or call.name == "creat":
                changed, node.data = changed or node.data != b"", b""
            if "O_APPEND" in flags:
                self._positions.pop((node, str(call.result)), None)
            else:
                self._positions[node, str(call.result)] = 0
        return changed

    def _change_file(self, call: Call, file: _File, descriptor: str) -> bool:
        before = (file.data, file.flushed)
        position = self._positions.get((file, descriptor), len(file.data))
        if call.name in _FLUSHING:
            file.flushed = file.data
        elif call.name == "ftruncate":
            length = int(call.plain[-1])
            file.data = file.data[:length].ljust(length, b"\0")
        elif call.name == "lseek":
            if (file, descriptor) in self._positions:
                self._positions[file, descriptor] = call.result
        elif call.name == "pwrite64":
            self._write(file, int(call.plain[-1]), call.strings[0][: call.result])
        elif call.name in _WRITING:
            self._write(file, position, b"".join(call.strings)[: call.result])
            if (file, descriptor) in self._positions:
                self._positions[file, descriptor] = position + call.result
        return (file.data, file.flushed) != before

    @staticmethod
    def _write(file: _File, position: int, data: bytes) -> None:
        head, tail = file.data[:position].ljust(position, b"\0"), file.data[position + len(data) :]
        file.data = head + data + tail

    def _change_folder(self, call: Call) -> bool:
        paths = [path for path in call.paths if self._is_below(path)]
        if not paths:
            return False
        folder, name = self._folder_of(paths[0]), paths[0].name
        if call.name in _MAKING_FOLDERS:
            return folder.change({name: _Folder()})
        if call.name in _REMOVING:
            return folder.change({name: None})
        if {path.parent for path in call.paths} != {paths[0].parent} or "RENAME_EXCHANGE" in call.plain:
            raise NotImplementedError(call)
        return folder.change({name: None, paths[1].name: folder.entries[name]})

    def _paths(self, call: Call) -> list[Path]:
        return [path for _, path in call.descriptors if path is not None] if call.descriptors else call.paths

    def _is_below(self, path: Path) -> bool:
        return path.is_relative_to(self._root)

    def _folder_of(self, path: Path) -> _Folder:
        folder = self._find(path.parent)
        assert isinstance(folder, _Folder), path
        return folder

    def _find(self, path: Path | None) -> _Node | None:
        if path is None or not self._is_below(path):
            return None
        node: _Node | None = self._top
        for name in path.relative_to(self._root).parts:
            node = node.entries.get(name) if isinstance(node, _Folder) else None
        return node
