"""Members of archives as they might come, and the smallest tree that is a system."""

from __future__ import annotations

import random
from collections.abc import Iterator

from pipeline.media.member import Member, MemberKind

OS_RELEASE = b'NAME="Toy"\nID=toy\nVERSION_ID="1"\nPRETTY_NAME="Toy Linux 1 (o\'clock)"\n# a comment\nBROKEN="\n'
KERNEL = "6.1.0-1-toy"


def folder(path: str, mode: int = 0o755, **more: object) -> Member:
    """Return a directory."""
    return Member(path=path, kind=MemberKind.DIRECTORY, mode=mode, **more)  # type: ignore[arg-type]


def file(path: str, content: bytes = b"", mode: int = 0o644, **more: object) -> Member:
    """Return a file."""
    chunks = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    return Member(path=path, kind=MemberKind.FILE, mode=mode, size=len(content), content=chunks, **more)  # type: ignore[arg-type]


def link(path: str, target: str, kind: MemberKind = MemberKind.SYMLINK) -> Member:
    """Return a symbolic or a hard link."""
    return Member(path=path, kind=kind, mode=0o777, target=target)


def special(path: str, kind: MemberKind) -> Member:
    """Return a device node, pipe or socket."""
    return Member(path=path, kind=kind, mode=0o666, device=(1, 3))


def system() -> list[Member]:
    """Return what makes a tree a system."""
    return [
        folder("."),
        folder("usr"),
        file("usr/lib/os-release", OS_RELEASE),
        link("etc/os-release", "../usr/lib/os-release"),
        link("lib", "usr/lib"),
        file(f"usr/lib/modules/{KERNEL}/kernel/a.ko.xz", b"module"),
    ]


_NAMES = (
    "a",
    "b",
    "usr",
    "..",
    ".",
    "",
    "etc",
    "dev",
    "tmp",
    "lost+found",
    "é",
    "n" * 120,
    "\x1b[2J",
    "caf\udce9",
    "run",
)
_TARGETS = ("/", "..", "../../..", "/etc", "a", "b", "usr", ".", "/proc/self/root", "a/b", "")


def hostile_members(seed: int, *, outside: str) -> Iterator[Member]:
    """Yield a system with a few members that want out of it, to *outside*, or to be what nobody should unpack.

    Names are few, so that members meet: below links, after links, as something else than before.
    """
    dice = random.Random(seed)
    made = system()

    def path() -> str:
        kind = dice.random()
        if kind < 0.04:
            return dice.choice((outside + "/x", "/" + outside, "../" * dice.randint(1, 9) + "x", "a/../../x", "/x"))
        harmless = _NAMES[:3] if dice.random() < 0.8 else _NAMES
        return "/".join(dice.choice(harmless) for _ in range(dice.randint(1, 4)))

    def target() -> str:
        return dice.choice((*_TARGETS, outside, path(), "../" * 8 + outside.lstrip("/")))

    for _ in range(dice.randint(1, 12)):
        kind = dice.random()
        if kind < 0.35:
            made.append(file(path(), b"x" * dice.choice((0, 5, 600)), dice.choice((0o644, 0o6755, 0o7777))))
        elif kind < 0.55:
            made.append(folder(path(), dice.choice((0o755, 0o1777, 0o000))))
        elif kind < 0.8:
            made.append(link(path(), target()))
        elif kind < 0.92:
            made.append(
                link(path(), dice.choice((target(), made[dice.randrange(len(made))].path)), MemberKind.HARDLINK)
            )
        else:
            kinds = (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE, MemberKind.FIFO, MemberKind.SOCKET)
            made.append(special(path(), dice.choice(kinds)))
    if dice.random() < 0.5:
        dice.shuffle(made)
    yield from made
