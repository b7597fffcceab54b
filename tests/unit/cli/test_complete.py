"""What is offered after TAB; tests/integration/cli/test_completion.py has the real shells ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.complete import FILES, answer, distro_names, machine_names, offers
from cli.completion import print_script
from pipeline.errors import UsageError
from tests.fakes.fresh_verbs import fresh_verbs


@pytest.fixture(autouse=True)
def _two_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path))
    monkeypatch.delenv("PVMLAB_DISTROS", raising=False)
    (tmp_path / "vms").mkdir()
    for name in ("clean", "tuned", "_waiting"):
        (tmp_path / "disks/snapshots/web1" / name).mkdir(parents=True)
    for name in ("web1.json", "web2.json", "db1.json", "web1.answers", ".web3.json"):
        (tmp_path / "vms" / name).write_text("never read")


def offered(*words: str) -> list[str]:
    return [word for word, _ in offers(["./pvmlab", *words], fresh_verbs())]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("vm.l",), ["vm.list", "vm.logs"]),
        (("clea",), ["clean"]),
        (("--v",), ["--version"]),
        (("--help", "vm.l"), ["vm.list", "vm.logs"]),
        (("nonsense", ""), []),
        (("vm.logs", "web"), ["web1", "web2"]),
        (("vm.logs", "p"), ["provisioner"]),
        (("vm.clean", "p"), []),
        (("vm.create", "w"), []),
        (("vm.logs", "web1", ""), []),
        (("vm.logs", "web1", "--which", ""), ["serial", "qemu", "lab"]),
        (("vm.logs", "web1", "--which=q"), ["--which=qemu"]),
        (("vm.logs", "--which", "qemu", "d"), ["db1"]),
        (("vm.logs", "web1", "--f"), ["--follow"]),
        (("vm.logs", "web1", "--follow", "--f"), []),
        (("vm.create", "web9", "--distro", "debian"), ["debian-12", "debian-13"]),
        (("vm.create", "web9", "--answer-file", "x"), [FILES]),
        (("vm.create", "web9", "--disk", "x"), [FILES]),
        (("vm.create", "web9", "--disk", "--cp"), ["--cpus"]),
        (("vm.shell", "web1", "--", "ls", ""), [FILES]),
        (("completion", ""), ["bash", "zsh", "fish"]),
        (("net.create", "--kind", "b"), ["bridge"]),
        (("build", "rootfs:debian-12:x"), ["rootfs:debian-12:x86_64"]),
        (("build", "initrd", "initrd"), ["initrd:x86_64"]),
        (("up", "--name", "w"), ["web1", "web2"]),
        (("vm.restore", "web1", ""), ["clean", "tuned"]),
        (("vm.restore", "web2", ""), []),
        (("vm.snapshot", "web1", ""), []),
        (("vm.snapshots", "web1", "--remove", "c"), ["clean"]),
        (("vm.copy", "we"), [FILES, "web1:", "web2:"]),
        (("vm.clone", "we"), ["web1", "web2"]),
        (("vm.clone", "web1", "we"), []),
        (("vm.run", "web1", "we"), ["web2"]),
        (("vm.create", "web9", "w"), []),
        (("lab.up", ""), [FILES]),
    ],
)
def test_what_fits_is_offered(words: tuple[str, ...], wanted: list[str]) -> None:
    assert sorted(offered(*words)) == sorted(wanted)


def test_options_have_their_meaning_and_a_positional_is_none() -> None:
    found = dict(offers(["./pvmlab", "vm.logs", "web1", "--"], fresh_verbs()))
    assert found["--follow"] == "go on with what is added, until Ctrl-C"
    assert "--help" in found
    assert "--name" not in found


def test_every_verb_is_offered_with_its_meaning() -> None:
    verbs = fresh_verbs()
    found = dict(offers(["./pvmlab", ""], verbs))
    assert found.keys() == verbs.task_names.keys()
    assert all(found.values())


def test_every_verb_survives_any_line() -> None:
    verbs = fresh_verbs()
    for verb in verbs.task_names:
        for words in ((verb, ""), (verb, "--"), (verb, "--x="), (verb, "a", "b", "c", ""), (verb, "--output", "")):
            offers(["./pvmlab", *words], fresh_verbs())


def test_trouble_offers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    answer([], fresh_verbs())
    answer(["./pvmlab", "vm.start", ""], None)  # type: ignore[arg-type]
    assert capsys.readouterr().err == ""


def test_a_lab_that_is_not_there_has_no_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "nowhere"))
    assert machine_names() == []
    monkeypatch.setenv("PVMLAB_DISTROS", f"{tmp_path}:{tmp_path / 'nowhere'}")
    (tmp_path / "mine-1.yaml").write_text("never read")
    assert "mine-1" in distro_names()
    assert "lock" not in distro_names()


def test_other_shells_have_no_script() -> None:
    with pytest.raises(UsageError, match="no completion for 'tcsh'"):
        print_script("tcsh")
