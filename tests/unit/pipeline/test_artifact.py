"""What makes an artifact out of date, and that nothing else does."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import artifact as module
from pipeline.artifact import Artifact, Making
from pipeline.digests import file_digest, source_digest, tree_digest
from pipeline.errors import ChecksumError, NotFoundError
from pipeline.sidecar import files_of, read_sidecar, sidecar_path
from pipeline.workspace import Cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def write(text: str, facts: Mapping[str, Any] | None = None) -> Any:
    def make(making: Making) -> Mapping[str, Any] | None:
        making.output.write_text(text)
        return facts

    return make


def simple(cache: Cache, text: str = "content", **changes: Any) -> Artifact:
    fields: dict[str, Any] = {"name": "kind:thing", "doc": "", "cache": cache, "targets": (cache.root / "thing",)}
    return Artifact(**{**fields, "make": write(text), **changes})


def test_a_built_artifact_is_up_to_date_and_says_how_it_was_made(cache: Cache) -> None:
    thing = simple(cache, make=write("content", {"tool": "1.0"}), options={"level": 9})
    assert thing.reason() == "thing is not built"
    thing.build()
    assert thing.reason() is None
    assert read_sidecar(cache.root / "thing") == {
        "schema": 2,
        "task": "kind:thing",
        "key": "8c82e736b86c3d7a387d27df5599f93a275f916c0376a2298b258421688c6876",
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "size": 7,
        "facts": {"tool": "1.0"},
        "inputs": {},
        "sources": {},
        "options": {"level": 9},
        "tools": {},
        "documents": {
            ".intoto.json": file_digest(cache.root / "thing.intoto.json"),
            ".spdx.json": file_digest(cache.root / "thing.spdx.json"),
        },
    }
    assert not any(cache.scratch.iterdir())


def test_touching_or_moving_rebuilds_nothing(cache: Cache, tmp_path: Path) -> None:
    simple(cache).build()
    os.utime(cache.root / "thing", (1, 1))
    assert simple(cache).reason() is None
    cache.root.rename(tmp_path / "moved")
    assert simple(Cache(tmp_path / "moved")).reason() is None


def test_a_changed_option_is_named(cache: Cache) -> None:
    simple(cache, options={"level": 9, "same": 1}).build()
    assert simple(cache, options={"level": 3, "same": 1}).reason() == "option level changed: 9 -> 3"


def test_a_changed_input_is_named(cache: Cache) -> None:
    first = simple(cache, "one", name="kind:first", targets=(cache.root / "first",))
    second = simple(cache, name="kind:second", targets=(cache.root / "second",), inputs=first.targets)
    assert [str(reason) for reason in second.reasons()] == ["second is not built", "input first is not built"]
    first.build()
    second.build()
    assert second.reason() is None
    simple(cache, "two", name="kind:first", targets=first.targets).build()
    assert second.reason() == "input first changed"
    first.remove()
    assert second.reason() == "input first is not built"


def test_a_changed_source_is_named_whatever_its_time(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    source = tmp_path / "recipe.py"
    source.write_text("old")
    simple(cache, sources=(source,)).build()
    os.utime(source, (1, 1))
    source_digest.cache_clear()
    assert simple(cache, sources=(source,)).reason() is None
    source.write_text("new")
    source_digest.cache_clear()
    assert simple(cache, sources=(source,)).reason() == "source recipe.py changed"


def test_a_source_folder_counts_names_bytes_and_executable_bits_but_no_bytecode(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    first = tree_digest(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").touch()
    assert tree_digest(tmp_path) == first
    (tmp_path / "a").chmod(0o755)
    executable = tree_digest(tmp_path)
    assert executable != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert tree_digest(tmp_path) != executable


@pytest.mark.parametrize("damage", ["", "conten", "content and more", "Content"])
def test_a_damaged_target_is_noticed_even_with_its_old_times(cache: Cache, damage: str) -> None:
    simple(cache).build()
    assert simple(cache).reason() is None
    target = cache.root / "thing"
    before = target.stat()
    target.write_text(damage)
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert simple(cache).reason() == "thing was changed since it was built"


def test_a_target_swapped_for_a_file_of_equal_size_and_time_is_noticed(cache: Cache) -> None:
    simple(cache).build()
    target, other = cache.root / "thing", cache.root / "other"
    other.write_text("CONTENT")
    os.utime(other, ns=(target.stat().st_atime_ns, target.stat().st_mtime_ns))
    other.replace(target)
    assert simple(cache).reason() == "thing was changed since it was built"


def test_the_version_of_a_tool_is_part_of_the_key_unless_this_host_lacks_it(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: dict[str, str | None] = {"packer": "1.0"}
    monkeypatch.setattr(module, "tool_version", lambda tool, _state: versions[tool])
    thing = simple(cache, tools=("packer",))
    thing.build()
    key = (read_sidecar(cache.root / "thing") or {})["key"]
    versions["packer"] = None
    assert thing.reason() is None
    versions["packer"] = "2.0"
    assert thing.reason() == "tool packer changed: 1.0 -> 2.0"
    thing.build()
    assert (read_sidecar(cache.root / "thing") or {})["key"] != key


def test_of_a_changed_list_only_what_differs_is_told(cache: Cache) -> None:
    simple(cache, options={"packages": ["base", "old"]}).build()
    changed = simple(cache, options={"packages": ["base", "new"], "level": 1})
    assert [str(reason) for reason in changed.reasons()] == [
        "option level is new: 1", 'option packages changed: ["old"] -> ["new"]',
    ]  # fmt: skip


def test_a_sidecar_that_was_edited_is_none(cache: Cache) -> None:
    simple(cache, make=write("content", {"kernel": "6.1"})).build()
    path = sidecar_path(cache.root / "thing")
    path.write_text(path.read_text().replace("6.1", "6.2"))
    assert simple(cache).reason() == "thing is not built"


def test_the_time_a_build_took_is_remembered(cache: Cache) -> None:
    assert simple(cache).expected_seconds() is None
    simple(cache).build()
    assert simple(cache).expected_seconds() == pytest.approx(0, abs=5)


@pytest.mark.parametrize("suffix", [".spdx.json", ".intoto.json"])
def test_documents_that_were_edited_or_removed_are_made_again(cache: Cache, suffix: str) -> None:
    simple(cache).build()
    document = cache.root / f"thing{suffix}"
    text = document.read_text()
    document.write_text(text.replace("thing", "think"))
    assert simple(cache).reason() == f"thing{suffix} was changed or removed since it was built"
    document.unlink()
    assert simple(cache).reason() == f"thing{suffix} was changed or removed since it was built"
    simple(cache).build()
    assert document.read_text() == text


def test_removing_leaves_nothing_but_the_log(cache: Cache) -> None:
    simple(cache).build()
    simple(cache).remove()
    assert sorted(path.name for path in cache.root.iterdir() if not path.name.startswith(".")) == ["logs", "tmp"]


def test_verify_refuses_a_flipped_byte(cache: Cache) -> None:
    thing = simple(cache)
    with pytest.raises(NotFoundError):
        thing.verify()
    thing.build()
    thing.verify()
    (cache.root / "thing").write_text("Content")
    with pytest.raises(ChecksumError, match="thing is damaged"):
        thing.verify()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}'])
def test_a_sidecar_that_cannot_be_read_counts_as_none(cache: Cache, text: str) -> None:
    simple(cache).build()
    sidecar_path(cache.root / "thing").write_text(text)
    assert simple(cache).reason() == "thing is not built"


def test_a_failed_recipe_leaves_what_was_there(cache: Cache) -> None:
    simple(cache).build()

    def fail(making: Making) -> None:
        making.output.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        simple(cache, make=fail, options={"new": 1}).build()
    assert (cache.root / "thing").read_text() == "content"
    assert sorted(path.name for path in cache.root.iterdir() if not path.name.startswith(".state")) == [
        "logs", "thing", "thing.intoto.json", "thing.json", "thing.spdx.json", "tmp",
    ]  # fmt: skip
    assert not any(cache.scratch.iterdir())


def test_a_crash_between_target_and_sidecar_counts_as_not_built(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    simple(cache).build()

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish_sidecar", crash)
    with pytest.raises(KeyboardInterrupt):
        simple(cache, "another", options={"new": 1}).build()
    assert (cache.root / "thing").read_text() == "another"
    assert simple(cache).reason() == "thing is not built"


def test_the_sidecar_is_sorted_json_so_that_equal_builds_are_equal_bytes(cache: Cache) -> None:
    simple(cache, options={"b": 1, "a": 2}).build()
    text = sidecar_path(cache.root / "thing").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_a_target_put_back_from_a_copy_with_its_sidecar_is_noticed(cache: Cache, tmp_path: Path) -> None:
    """By a restore, say: each file is whole, but they are not of one build."""

    def pair(option: int) -> Artifact:
        def make(making: Making) -> None:
            for path, output in making.outputs.items():
                output.write_text(f"{path.name} {option}")

        return simple(cache, targets=(cache.root / "a", cache.root / "b"), options={"option": option}, make=make)

    pair(1).build()
    copies = {path: path.read_bytes() for path in files_of(cache.root / "b")}
    pair(2).build()
    assert pair(2).reason() is None
    for path, content in copies.items():
        path.write_bytes(content)
    assert pair(2).reason() == "option option changed: 1 -> 2"
