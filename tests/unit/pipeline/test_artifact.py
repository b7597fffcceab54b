"""What makes an artifact out of date, and that nothing else does."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline import artifact as module
from pipeline.artifact import Artifact, Making, read_sidecar, sidecar_path
from pipeline.errors import ChecksumError, NotFoundError
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
    assert thing.reason() == "not built yet"
    thing.build()
    assert thing.reason() is None
    assert read_sidecar(cache.root / "thing") == {
        "schema": 1,
        "task": "kind:thing",
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        "size": 7,
        "facts": {"tool": "1.0"},
        "inputs": {},
        "sources": {},
        "options": {"level": 9},
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
    assert simple(cache, options={"level": 3, "same": 1}).reason() == "option level changed"


def test_a_changed_input_is_named(cache: Cache) -> None:
    first = simple(cache, "one", name="kind:first", targets=(cache.root / "first",))
    second = simple(cache, name="kind:second", targets=(cache.root / "second",), inputs=first.targets)
    assert second.reason() == "not built yet"
    first.build()
    second.build()
    assert second.reason() is None
    simple(cache, "two", name="kind:first", targets=first.targets).build()
    assert second.reason() == "input first changed"
    first.remove()
    assert second.reason() == "first is not built"


def test_a_changed_source_is_named_whatever_its_time(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPOSITORY", tmp_path)
    source = tmp_path / "recipe.py"
    source.write_text("old")
    simple(cache, sources=(source,)).build()
    os.utime(source, (1, 1))
    module.digest_of_source.cache_clear()
    assert simple(cache, sources=(source,)).reason() is None
    source.write_text("new")
    module.digest_of_source.cache_clear()
    assert simple(cache, sources=(source,)).reason() == "source recipe.py changed"


def test_a_source_folder_counts_names_bytes_and_executable_bits_but_no_bytecode(tmp_path: Path) -> None:
    def digest() -> str:
        module.digest_of_source.cache_clear()
        return module.digest_of_source(tmp_path)

    (tmp_path / "a").write_text("x")
    first = digest()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").touch()
    assert digest() == first
    (tmp_path / "a").chmod(0o755)
    executable = digest()
    assert executable != first
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest() != executable


@pytest.mark.parametrize("damage", ["", "conten", "content and more"])
def test_a_target_of_another_size_is_noticed(cache: Cache, damage: str) -> None:
    simple(cache).build()
    (cache.root / "thing").write_text(damage)
    assert simple(cache).reason() == "thing was changed since it was built"


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
    assert simple(cache).reason() == "not built yet"


def test_a_failed_recipe_leaves_what_was_there(cache: Cache) -> None:
    simple(cache).build()

    def fail(making: Making) -> None:
        making.output.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        simple(cache, make=fail, options={"new": 1}).build()
    assert (cache.root / "thing").read_text() == "content"
    assert sorted(path.name for path in cache.root.iterdir()) == ["logs", "thing", "thing.json", "tmp"]
    assert not any(cache.scratch.iterdir())


def test_a_crash_between_target_and_sidecar_counts_as_not_built(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    simple(cache).build()

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "publish_text", crash)
    with pytest.raises(KeyboardInterrupt):
        simple(cache, "another", options={"new": 1}).build()
    assert (cache.root / "thing").read_text() == "another"
    assert simple(cache).reason() == "not built yet"


def test_the_sidecar_is_sorted_json_so_that_equal_builds_are_equal_bytes(cache: Cache) -> None:
    simple(cache, options={"b": 1, "a": 2}).build()
    text = sidecar_path(cache.root / "thing").read_text()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
