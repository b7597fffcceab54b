from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cli import provisioner_docker_verbs as verbs
from lab import services_container
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord, write_record
from lab.services_container import ContainerView, ServiceView
from pipeline.errors import ConflictError, NotFoundError, UsageError
from pipeline.workspace import Home
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


@pytest.mark.parametrize("words", [{"docker_tar": "nowhere.tar"}, {"dockerfile": "nowhere"}])
def test_what_is_not_there_is_said_before_anything_is_built(words: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="there is no"):
        verbs.choose(**words, dry=True)  # type: ignore[arg-type]


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
        "network    server        192.168.100.0/24, pvmlab.local",
    ]
    verbs.show_status(output="json")
    said = json.loads(capsys.readouterr().out)
    assert (said["container"]["health"], said["container"]["services"][0]["restarts"]) == ("healthy", 1)
    assert (said["network"]["dhcp"], said["network"]["subnet"]) == ("server", "192.168.100.0/24")


def test_another_choice_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        services_container, "view", lambda _: ContainerView(state="running", image="d" * 64, pending=True)
    )
    verbs.show_status(output="table")
    assert "(another one from the next start)" in capsys.readouterr().out


@pytest.fixture
def host_mode(tmp_path: Path) -> None:
    """Have the lab's services run in namespaces of this host."""
    write_record(Home(tmp_path / "home"), ProvisionerRecord(uuid="u", mode=ProvisionerMode.HOST))


@pytest.mark.usefixtures("host_mode")
@pytest.mark.parametrize(
    "verb",
    [
        verbs.start,
        verbs.stop,
        partial(verbs.show_status, output="table"),
        partial(verbs.print_logs, follow=False, lines=9),
        partial(verbs.shell, None),
        partial(verbs.start, docker_tar="image.tar"),
        partial(verbs.choose, dockerfile="."),
    ],
    ids=["start", "stop", "status", "logs", "shell", "start --docker-tar", "create --dockerfile"],
)
def test_host_mode_has_no_container(verb: Callable[[], object], tmp_path: Path) -> None:
    write_tar(tmp_path / "image.tar", docker_files([layer("x")]))
    with pytest.raises(ConflictError, match="there is no container in host mode") as caught:
        verb()
    assert "provisioner.create --mode=vm" in caught.value.resolution


def test_a_container_for_a_provisioner_that_will_be_in_host_mode_is_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "image.tar", docker_files([layer("x")]))
    for mode in (ProvisionerMode.HOST, ProvisionerMode.VM):
        refused = pytest.raises(ConflictError) if mode is ProvisionerMode.HOST else contextlib.nullcontext()
        with refused:
            verbs.choose(docker_tar=str(tar), mode=mode, dry=True)
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("host_mode")
def test_a_lab_that_leaves_host_mode_may_be_given_a_container(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "image.tar", docker_files([layer("x")]))
    verbs.choose(docker_tar=str(tar), mode=ProvisionerMode.VM, dry=True)
