"""Merging layers: what overlayfs's documentation says is to be seen, against a model that looks paths up as it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media.layers import Layer, LayerError, merge
from pipeline.media.member import Member, MemberKind

OPAQUE = "trusted.overlay.opaque"


@dataclasses.dataclass(frozen=True)
class File:
    """A file. :ivar inode: those of a layer that have the same one are hard links."""

    inode: int


@dataclasses.dataclass(frozen=True)
class Folder:
    """A directory. :ivar entries: name to what is there."""

    entries: Mapping[str, Any]
    opaque: bool = False


WHITEOUT = "whiteout"
LINK = "symbolic link"


class StaleError(Exception):
    """Somebody reads the content of a member that has passed by."""


class Stream:
    """A layer as a stream: contents can be read until the next member is asked for. :ivar readings: how many began."""

    def __init__(self, number: int, tree: Folder) -> None:
        self.name, self._tree, self._number = f"layer{number}", tree, number
        self.readings = 0
        self._at = ""

    @property
    def layer(self) -> Layer:
        """It, for merging."""
        return Layer(name=self.name, read=self.read)

    def read(self) -> Generator[Member, None, None]:
        """Yield the members."""
        self.readings += 1
        first: dict[int, str] = {}
        for path, node in walk(self._tree):
            self._at = path
            yield self._member(path, node, first)
        self._at = ""

    def _member(self, path: str, node: Any, first: dict[int, str]) -> Member:
        # the owner tells from which layer a member is
        status: dict[str, Any] = {"path": path, "mode": 0o644, "uid": self._number}
        if isinstance(node, Folder):
            return Member(kind=MemberKind.DIRECTORY, xattrs={OPAQUE: b"y"} if node.opaque else {}, **status)
        if node == WHITEOUT:
            return Member(kind=MemberKind.CHARACTER_DEVICE, device=(0, 0), **status)
        if node == LINK:
            return Member(kind=MemberKind.SYMLINK, target="anywhere", **status)
        if (target := first.setdefault(node.inode, path)) != path:
            return Member(kind=MemberKind.HARDLINK, target=target, **status)
        text = f"{self._number}.{node.inode}".encode()
        return Member(kind=MemberKind.FILE, size=len(text), content=self._content(path, text), **status)

    def _content(self, path: str, text: bytes) -> Iterator[bytes]:
        if self._at != path:
            raise StaleError(path)
        yield text


def walk(folder: Folder, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, node in sorted(folder.entries.items()):
        path = f"{above}{name}"
        yield path, node
        if isinstance(node, Folder):
            yield from walk(node, f"{path}/")


def looked_up(stack: list[tuple[int, Folder]], above: str = "") -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield what is to be seen of directories that lie on one another, the topmost first: layer, directory."""
    for name in sorted({name for _, folder in stack for name in folder.entries}):
        path, found = f"{above}{name}", list[tuple[int, Folder]]()
        for number, folder in stack:
            node = folder.entries.get(name)
            if node is None:
                continue
            if not isinstance(node, Folder):
                if not found and node != WHITEOUT:
                    yield path, ("link", number) if node == LINK else ("file", number, f"{number}.{node.inode}")
                break
            found.append((number, node))
            if node.opaque:
                break
        if found:
            yield path, ("directory", found[0][0])
            yield from looked_up(found, f"{path}/")


def seen(streams: list[Stream]) -> dict[str, tuple[Any, ...]]:
    """Return what merging shows, and check what it promises to whoever reads it."""
    found: dict[str, tuple[Any, ...]] = {}
    for member in merge([stream.layer for stream in streams]):
        assert member.path not in found
        parent = member.path.rpartition("/")[0]
        assert not parent or found[parent][0] == "directory"
        assert not any(name.startswith("trusted.overlay.") for name in member.xattrs)
        content = b"".join(member.content).decode()
        match member.kind:
            case MemberKind.DIRECTORY:
                found[member.path] = ("directory", member.uid)
            case MemberKind.SYMLINK:
                found[member.path] = ("link", member.uid)
            case MemberKind.HARDLINK:
                assert found[member.target][:2] == ("file", member.uid)
                found[member.path] = found[member.target]
            case _:
                assert member.kind is MemberKind.FILE
                assert len(content) == member.size
                found[member.path] = ("file", member.uid, content)
    return found


names = st.sampled_from(["a", "b", "c"])
leaves = st.one_of(st.builds(File, st.integers(0, 3)), st.just(WHITEOUT), st.just(LINK))
nodes = st.recursive(
    leaves,
    lambda below: st.builds(Folder, st.dictionaries(names, below, max_size=3), opaque=st.booleans()),
    max_leaves=12,
)
trees = st.builds(Folder, st.dictionaries(names, nodes, max_size=3))


@given(st.lists(trees, min_size=1, max_size=4))
@settings(max_examples=600, deadline=None)
def test_what_is_seen_is_what_overlayfs_would_look_up(layers: list[Folder]) -> None:
    streams = [Stream(number, tree) for number, tree in enumerate(layers)]
    expected = dict(looked_up([(number, tree) for number, tree in enumerate(layers)][::-1]))
    assert seen(streams) == expected
    assert all(stream.readings <= 2 for stream in streams)


def merged(*layers: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return seen([Stream(number, Folder(entries)) for number, entries in enumerate(layers)])


def test_a_file_takes_the_place_of_a_directory_and_the_other_way() -> None:
    lower = {"etc": Folder({"d": Folder({"x": File(1)}), "f": File(2)})}
    upper = {"etc": Folder({"d": File(1), "f": Folder({"y": File(2)})})}
    assert merged(lower, upper) == {
        "etc": ("directory", 1), "etc/d": ("file", 1, "1.1"), "etc/f": ("directory", 1), "etc/f/y": ("file", 1, "1.2"),
    }  # fmt: skip


def test_a_directory_over_a_whiteout_shows_nothing_of_what_was_removed() -> None:
    bottom, middle, top = {"d": Folder({"old": File(1)})}, {"d": WHITEOUT}, {"d": Folder({"new": File(1)})}
    assert merged(bottom, middle, top) == {"d": ("directory", 2), "d/new": ("file", 2, "2.1")}


def test_a_file_whose_other_name_is_hidden_keeps_its_content() -> None:
    lower = Stream(0, Folder({"a": File(7), "b": File(7), "c": File(7), "d": File(8)}))
    found = seen([lower, Stream(1, Folder({"a": WHITEOUT}))])
    assert found == {"b": ("file", 0, "0.7"), "c": ("file", 0, "0.7"), "d": ("file", 0, "0.8")}
    assert lower.readings == 2  # once more for that content


def test_a_layer_is_read_once_if_nothing_is_lost() -> None:
    lower = Stream(0, Folder({"a": File(7), "b": File(7), "c": WHITEOUT}))
    assert seen([lower, Stream(1, Folder({"b": WHITEOUT}))]) == {"a": ("file", 0, "0.7")}
    assert lower.readings == 1


@pytest.mark.parametrize(
    ("xattrs", "named"),
    [
        ({"trusted.overlay.redirect": b"/elsewhere"}, "redirect"),
        ({"trusted.overlay.metacopy": b""}, "metacopy"),
        ({"user.overlay.whiteout": b""}, "whiteout"),
        ({"trusted.overlay.opaque": b"x"}, "opaque"),
    ],
)
def test_notes_of_overlayfs_that_only_it_can_follow_are_refused(xattrs: dict[str, bytes], named: str) -> None:
    def read() -> Generator[Member, None, None]:
        yield Member(path="usr", kind=MemberKind.DIRECTORY, mode=0o755, xattrs=xattrs)

    with pytest.raises(LayerError, match=r"the layer top\.squashfs cannot be merged") as caught:
        list(merge([Layer(name="top.squashfs", read=read)]))
    assert caught.value.details.startswith(f"usr has overlayfs's attribute '{named}'")


def test_other_notes_are_left_out_and_other_attributes_kept() -> None:
    xattrs = {"trusted.overlay.origin": b"\0", "user.overlay.opaque": b"y", "security.capability": b"cap"}

    def read() -> Generator[Member, None, None]:
        yield Member(path="usr", kind=MemberKind.DIRECTORY, mode=0o755, xattrs=xattrs)

    (member,) = merge([Layer(name="x", read=read)])
    assert member.xattrs == {"security.capability": b"cap"}


def test_a_link_to_what_is_not_there_is_refused() -> None:
    def read() -> Generator[Member, None, None]:
        yield Member(path="b", kind=MemberKind.HARDLINK, mode=0o644, target="a")

    with pytest.raises(LayerError, match="contradicts itself") as caught:
        list(merge([Layer(name="x", read=read)]))
    assert caught.value.details == "b is a hard link to a, which is no file in it"


def test_a_reader_is_closed_when_nobody_reads_on() -> None:
    closed = []

    def read() -> Generator[Member, None, None]:
        try:
            for name in "ab":
                yield Member(path=name, kind=MemberKind.SYMLINK, mode=0o777, target="x")
        finally:
            closed.append(True)

    members = merge([Layer(name="x", read=read)])
    next(members)
    members.close()
    assert closed == [True]
