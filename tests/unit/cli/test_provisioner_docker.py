from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli import provisioner_docker_verbs as verbs
from lab import services_container
from lab.services_container import ContainerView, ServiceView
from pipeline.errors import ConflictError, UsageError
from tests.fakes.image_tars import docker_files, layer, write_tar

VIEW = ContainerView(
    state="running", health="healthy", image="a" * 64, version="0.1.0", revision="b" * 64, digest="c" * 64,
    since="2026-01-01T00:00:00Z", own=False,
    services=(ServiceView(name="nginx", running=True, since=1_700_000_000, restarts=1, last="ended with status 1"),
              ServiceView(name="dnsmasq", running=False, since=1_700_000_000, restarts=0, last="")),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    "words",
    [{"docker_tar": "a", "dockerfile": "b"}, {"docker_tar": "a", "previous": True}, {"image": "x"},
     {"dockerfile": "a", "built_in": True}, {"previous": True, "built_in": True}, {"image": "x", "dockerfile": "b"}],
)  # fmt: skip
def test_words_that_contradict_each_other_are_refused(words: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        verbs.start(**words)


def test_a_provisioner_that_is_off_keeps_its_container(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "image.tar", docker_files([layer("x")]))
    with pytest.raises(ConflictError, match="the provisioner is off"):
        verbs.start(docker_tar=str(tar))
    assert not (tmp_path / "home").exists()


def test_create_remembers_the_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tar = write_tar(tmp_path / "image.tar", docker_files([layer("x")]))
    verbs.choose(docker_tar=str(tar), image="web:1")
    assert (tmp_path / "home/config/container.env").exists()
    assert "the services will run in web:1 (" in capsys.readouterr().err


def test_nothing_named_is_nothing_done(tmp_path: Path) -> None:
    verbs.choose()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("lines", [0, -1, 100_001])
def test_lines_have_bounds(lines: int) -> None:
    with pytest.raises(UsageError, match="--lines"):
        verbs.print_logs(follow=False, lines=lines)


def test_the_status_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(services_container, "view", lambda _: VIEW)
    verbs.show_status(output="table")
    assert capsys.readouterr().out.splitlines() == [
        "WHAT       STATE         DETAILS",
        "container  running       healthy, since 2026-01-01T00:00:00Z",
        f"image      built-in      {'a' * 64}",
        f"version    0.1.0         {'b' * 64}",
        f"tar                      {'c' * 64}",
        "nginx      running       since 2023-11-14T22:13:20Z, 1 restarts, last: ended with status 1",
        "dnsmasq    starts again  since 2023-11-14T22:13:20Z, 0 restarts",
    ]
    verbs.show_status(output="json")
    said = json.loads(capsys.readouterr().out)["container"]
    assert (said["health"], said["services"][0]["restarts"]) == ("healthy", 1)


def test_another_choice_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        services_container, "view", lambda _: ContainerView(state="running", image="d" * 64, pending=True)
    )
    verbs.show_status(output="table")
    assert "(another one from the next start)" in capsys.readouterr().out
