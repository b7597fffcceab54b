"""The verbs of the cache, on a small graph and a lab with disks."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import tasks
from cli import program
from contracts.arch import Arch
from contracts.machine import Installer
from lab.disks import create_empty_disk, create_overlay
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.artifact import Artifact
from pipeline.engine.lock import hold
from pipeline.recipes import graph as recipes
from pipeline.run import PIPE, spawn
from pipeline.workspace import Cache, Workspace
from tests.fakes.lab_files import make_machine
from tests.fakes.toy_cache import DEB_NAME, build_all, files_in, toy_graph, with_recipe

Verb = Callable[..., int]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """The cache of the environment, empty; the graph is a small one."""

    def machine_tasks(distro: str, _arch: Arch, _installer: Installer) -> list[str]:
        return ["pair:toy", f"rootfs:{distro}"]

    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recipes, "artifacts", lambda cache: toy_graph(cache).artifacts.values())
    monkeypatch.setattr(recipes, "machine_tasks", machine_tasks)
    return Cache(tmp_path / "cache")


@pytest.fixture
def built(cache: Cache) -> Cache:
    """The same, with all that is in the graph."""
    build_all(toy_graph(cache))
    return cache


@pytest.fixture
def lab(cache: Cache) -> Lab:
    """The lab of the environment, with a target machine ``web1``."""
    lab = Lab(Workspace.from_environment())
    lab.ensure_folders()
    DefinitionStore(lab).write(make_machine(distro="debian-12"))
    return lab


@pytest.fixture
def verb(cache: Cache) -> Iterator[Verb]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield lambda *words: program.run(tasks.namespace, ["pvmlab", *map(str, words)])
    for number, handler in handlers.items():
        signal.signal(number, handler)


def names(cache: Cache) -> set[str]:
    return set(files_in(cache))


# cache.list


def test_list_says_what_there_is_and_who_needs_it(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    (built.root / "images/toy/two").write_text("damaged")
    (built.root / "lonely/file").unlink()
    (built.root / "mine.txt").write_text("x")
    (built.root / ".half.1.a.partial").write_text("x")
    assert verb("cache.list") == 0
    rows = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    table = {row[1]: row[2] for row in rows if len(row) > 2}
    assert re.fullmatch(r"1\.. KiB  up to date +pair:toy", table["images/toy/base"])
    assert re.search(
        r"out of date: images/toy/two was changed since it was built +machine web1$", table["images/toy/two"]
    )
    assert table["lonely/file"].endswith("not built")
    flat = {row[0]: " ".join(" ".join(row[1:]).split()) for row in rows}
    assert flat["downloads/"] == "21 B 1 file"
    assert flat["mine.txt"] == "1 B not made by pvmlab"
    assert flat[".half.1.a.partial"] == "1 B half-written file"


def test_list_as_json(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    assert verb("cache.list", "--output", "json") == 0
    found = json.loads(capsys.readouterr().out)
    one = next(file for file in found["artifacts"] if file["path"] == "images/toy/one")
    assert (one["task"], one["state"], one["reason"], one["machines"]) == ("pair:toy", "up to date", None, ["web1"])
    assert found["downloads"] == {"count": 1, "size": 21, "unused": 0}
    assert (found["cache"], found["leftovers"], found["unknown"]) == (str(built.root), [], [])
    assert found["size"] > sum(map(len, files_in(built).values()))  # with logs and the state


def test_list_of_a_broken_machine_goes_on(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    (lab.home.vms / "web2.json").write_text("{}")
    assert verb("cache.list") == 0
    captured = capsys.readouterr()
    assert "the definition of web2 is broken: what it needs is not known" in captured.err
    assert "machine web1" in captured.out


# cache.prune


def test_prune_says_what_goes_then_does_it(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    scratch = built.scratch / "rootfs.x/folder"
    scratch.mkdir(parents=True)
    (scratch / "file").write_text("x" * 5000)
    (built.root / "mine.txt").write_text("x")
    before = names(built)
    assert verb("cache.prune", "--dry-run") == 0
    captured = capsys.readouterr()
    assert "tmp/rootfs.x  4.9 KiB  scratch of a build that ended" in captured.out
    assert "mine.txt stays: it was not made by pvmlab" in captured.err
    assert names(built) == before
    assert verb("cache.prune", "--yes") == 0
    assert "freed 4.9 KiB" in capsys.readouterr().err
    assert names(built) == before - {"tmp/rootfs.x/folder/file"}
    assert verb("cache.prune", "--yes") == 0
    assert "there is nothing to remove" in capsys.readouterr().err


def test_prune_keep_used_keeps_what_machines_need(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    assert verb("cache.prune", "--keep-used", "--yes", "--output", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert {each["path"] for each in said["removed"]} == {"lonely/file", "packages/toy/list", DEB_NAME}
    assert said["size"] > 0
    assert all(name.startswith("images/toy/") for name in names(built))
    assert toy_graph(built).artifacts["pair:toy"].reason() is None


def test_prune_asks_first(verb: Verb, built: Cache, capsys: Said) -> None:
    assert verb("cache.prune", "--keep-used") == 2
    assert "will be removed. This cannot be asked without a terminal" in capsys.readouterr().err
    assert "images/toy/base" in names(built)


def test_prune_never_takes_the_base_of_a_disk(verb: Verb, built: Cache, lab: Lab, capsys: Said) -> None:
    base = built.root / "lonely/file"
    create_empty_disk(base, 1)
    create_overlay(lab.home.disks / "web1.qcow2", base, None)
    assert verb("cache.prune", "--keep-used", "--yes") == 0
    assert base.exists()
    assert "lonely/file stays: the disk of a machine is an overlay of it" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["vms/web2.json", "disks/web2.qcow2"])
def test_prune_does_not_guess_what_a_broken_machine_needs(
    verb: Verb, built: Cache, lab: Lab, what: str, capsys: Said
) -> None:
    (lab.home.root / what).write_text("{}")
    before = names(built)
    assert verb("cache.prune", "--keep-used", "--yes") in {1, 4}
    assert "web2" in capsys.readouterr().err
    assert names(built) == before


def test_prune_waits_for_nobody(verb: Verb, built: Cache, capsys: Said) -> None:
    with hold(built):
        assert verb("cache.prune", "--keep-used", "--yes") == 4
    assert "another build is writing to this cache" in capsys.readouterr().err
    assert "images/toy/base" in names(built)


def test_prune_does_what_it_said_or_nothing(
    verb: Verb, built: Cache, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_answer(_question: str, *, yes: bool) -> None:
        (built.root / ".new.1.a.partial").touch()

    monkeypatch.setattr("cli.cache_verbs.require_yes", slow_answer)
    assert verb("cache.prune", "--keep-used") == 4
    assert "the cache has changed meanwhile; nothing was removed" in capsys.readouterr().err
    assert "images/toy/base" in names(built)


# cache.verify


def test_verify_reads_all_and_makes_a_sample_again(verb: Verb, built: Cache, capsys: Said) -> None:
    assert verb("cache.verify", "--output", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == 6
    assert len({each["task"] for each in said["remade"]}) == 1
    assert verb("cache.verify", "--task", "pair:toy") == 0
    out = capsys.readouterr().out
    assert "pair:toy  images/toy/one" in out
    assert out.count("made once more: the same bytes") == 2
    assert verb("cache.verify", "--sample", "0") == 0
    assert "made once more" not in capsys.readouterr().out


def test_verify_of_damage_names_the_files_and_the_command(verb: Verb, built: Cache, capsys: Said) -> None:
    for name in ("images/toy/base", "lonely/file"):
        (built.root / name).write_bytes((built.root / name).read_bytes().upper())
    assert verb("cache.verify") == 7
    said = capsys.readouterr().err
    assert "the cache is damaged: 2 files" in said
    assert f"{built.root / 'images/toy/base'}: its digest is" in said
    assert "`./pvmlab build base:toy lonely:toy` makes them again" in said


def test_verify_of_a_damaged_download(verb: Verb, built: Cache, capsys: Said) -> None:
    (built.root / DEB_NAME).write_text("other")
    assert verb("cache.verify") == 7
    assert "the next build that needs them fetches them again" in capsys.readouterr().err


def test_verify_of_a_recipe_that_gives_other_bytes(
    verb: Verb, built: Cache, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def artifacts(cache: Cache) -> Iterable[Artifact]:
        return with_recipe(toy_graph(cache), "lonely:toy", lambda making: str(making.output)).artifacts.values()

    monkeypatch.setattr(recipes, "artifacts", artifacts)
    assert verb("cache.verify", "lonely:toy", "--keep", tmp_path / "kept") == 7
    said = capsys.readouterr().err
    assert "1 file came out different when made once more" in said
    assert f"kept: {tmp_path / 'kept/remade/lonely/file'}" in said
    assert (tmp_path / "kept/recorded/lonely/file").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--sample", "-1"), 2, "--sample is 0 or more"),
        (("--task", "nope"), 3, "there is no task 'nope'"),
    ],
)
def test_verify_refuses_nonsense(
    verb: Verb, built: Cache, capsys: Said, words: tuple[str, ...], code: int, message: str
) -> None:
    assert verb("cache.verify", *words) == code
    assert message in capsys.readouterr().err


def test_verify_of_nothing_says_so(verb: Verb, cache: Cache, capsys: Said) -> None:
    assert verb("cache.verify") == 0
    assert "nothing here can be made once more" in capsys.readouterr().err


# cache.export and cache.import


def test_a_bundle_goes_from_cache_to_cache(
    verb: Verb, built: Cache, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, content = tmp_path / "bundle.tar", files_in(built)
    assert verb("cache.export", file) == 0
    assert "exported 4 artifacts in 21 files" in capsys.readouterr().err
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "there"))
    assert verb("cache.import", file) == 0
    assert "4 imported; 1 new package" in capsys.readouterr().err
    assert files_in(Cache(tmp_path / "there")) == content
    assert verb("cache.import", file) == 0
    assert "4 already there; 0 new packages" in capsys.readouterr().err
    file.write_bytes(file.read_bytes()[:-600])
    assert verb("cache.import", file) == 7
    assert "the bundle is damaged" in capsys.readouterr().err


def test_export_of_some_tasks(verb: Verb, built: Cache, tmp_path: Path, capsys: Said) -> None:
    (built.root / DEB_NAME).unlink()
    assert verb("cache.export", tmp_path / "bundle.tar", "packages", "lonely:*") == 0
    said = capsys.readouterr().err
    assert "not in the cache, so not in the bundle: 1 package" in said
    assert "exported 2 artifacts in 8 files" in said


def test_import_tells_what_it_left_and_what_is_out_of_date_here(
    verb: Verb, built: Cache, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb("cache.export", tmp_path / "bundle.tar", "lonely")
    monkeypatch.setattr(recipes, "artifacts", lambda cache: toy_graph(cache, "newer").artifacts.values())
    recipes.reload()
    assert verb("cache.import", tmp_path / "bundle.tar") == 0
    assert "lonely:toy: out of date here: option text changed:  -> newer" in capsys.readouterr().err
    recipes.graph().artifacts["lonely:toy"].build()
    assert verb("cache.import", tmp_path / "bundle.tar") == 0
    assert "lonely:toy: the bundle has another one; --replace takes it" in capsys.readouterr().err
    assert (built.root / "lonely/file").read_text().startswith("lonely:toynewer")
    assert verb("cache.import", tmp_path / "bundle.tar", "--replace") == 0
    assert (built.root / "lonely/file").read_text().startswith("lonely:toy,")


def test_import_out_of_a_pipe(verb: Verb, built: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb("cache.export", tmp_path / "bundle.tar")
    process = spawn(["cat", tmp_path / "bundle.tar"], stdout=PIPE)
    assert process.stdout is not None
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "there"))
    with process.stdout as pipe:
        assert verb("cache.import", f"/dev/fd/{pipe.fileno()}") == 0
    assert process.wait(timeout=10) == 0
    assert files_in(Cache(tmp_path / "there")) == files_in(built)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("cache.export",), 2, "cache.export wants FILE"),
        (("cache.export", "."), 2, ". is a folder"),
        (("cache.export", "x.tar", "nope"), 3, "there is no task 'nope'"),
        (("cache.export", "x.tar"), 4, "not all of that is up to date"),
        (("cache.import", "no/such/file"), 3, "there is no file no/such/file"),
        (("cache.import", "."), 3, "there is no file ."),
        (("cache.import", "/dev/null"), 1, "this is no bundle"),
        (("cache.list", "--output", "xml"), 2, "--output 'xml' is unknown"),
        (("cache.prune", "--output", "xml"), 2, "--output 'xml' is unknown"),
    ],
)
def test_nonsense_is_refused(
    verb: Verb, cache: Cache, capsys: Said, words: tuple[str, ...], code: int, message: str
) -> None:
    assert verb(*words) == code
    assert message in capsys.readouterr().err
