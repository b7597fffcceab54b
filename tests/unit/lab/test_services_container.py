from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.arch import Arch
from lab import services_container
from lab.lab import Lab
from lab.provisioner import ProvisionerError
from lab.provisioner_record import ProvisionerMode, ProvisionerRecord, write_record
from lab.services_container import ContainerChoice, choose_built_in, choose_tar, go_back, read_choice
from lab.wait import Deadline
from pipeline.errors import CommandError, ConflictError, NotFoundError, PvmlabError
from pipeline.run import Completed
from pipeline.sidecar import publish_sidecar
from tests.fakes.image_tars import docker_files, layer, write_tar

UUID = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[[str], Path]:
    return lambda text: write_tar(tmp_path / f"{text}.tar", docker_files([layer(text)], names=(f"{text}:1",)))


def files(lab: Lab) -> set[str]:
    return {path.name for path in (lab.home.config / "containers").iterdir()}


def test_an_image_is_kept_and_named(lab: Lab, make_tar: Callable[[str], Path]) -> None:
    own = choose_tar(lab, make_tar("one"))
    assert own.names == ("one:1",)
    assert files(lab) == {f"{own.image}.tar"}
    assert (lab.home.config / "container.env").read_text() == (
        f"CONTAINER_IMAGE=sha256:{own.image}\nCONTAINER_TAR={own.image}.tar\n"
    )
    assert read_choice(lab) == ContainerChoice(current=own)


def test_one_can_go_back_and_forth(lab: Lab, make_tar: Callable[[str], Path]) -> None:
    one, two = choose_tar(lab, make_tar("one")), choose_tar(lab, make_tar("two"))
    assert files(lab) == {one.file, two.file}
    assert go_back(lab) == one
    assert one.image in (lab.home.config / "container.env").read_text()
    assert go_back(lab) == two
    choose_built_in(lab)
    assert not (lab.home.config / "container.env").exists()
    assert files(lab) == {two.file}
    assert go_back(lab) == two
    assert go_back(lab) is None
    three = choose_tar(lab, make_tar("three"))
    assert files(lab) == {three.file}


def test_the_same_again_changes_nothing(lab: Lab, make_tar: Callable[[str], Path]) -> None:
    one = choose_tar(lab, make_tar("one"))
    two = choose_tar(lab, make_tar("two"))
    choose_tar(lab, make_tar("two"))
    assert read_choice(lab).previous == one
    assert go_back(lab) == one
    assert go_back(lab) == two


def test_without_a_past_there_is_no_going_back(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="no container to go back to"):
        go_back(lab)


def test_what_is_no_image_changes_nothing(lab: Lab, make_tar: Callable[[str], Path], tmp_path: Path) -> None:
    one = choose_tar(lab, make_tar("one"))
    (tmp_path / "bad.tar").write_bytes(b"bad")
    with pytest.raises(PvmlabError):
        choose_tar(lab, tmp_path / "bad.tar")
    assert read_choice(lab) == ContainerChoice(current=one)
    assert files(lab) == {one.file}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "current": 7}'])
def test_a_broken_choice_is_none(lab: Lab, text: str) -> None:
    (lab.home.config / "container.json").write_text(text)
    assert read_choice(lab) == ContainerChoice()


class Remote:
    """What the provisioner answers, by the beginning of the command; what it was told."""

    def __init__(self) -> None:
        self.said: list[list[str]] = []
        self.answers: dict[str, tuple[int, str]] = {}

    def __call__(self, _lab: Lab, _name: str, argv: list[str], *, timeout: float, check: bool = True) -> Completed:
        assert timeout > 0
        self.said.append(list(argv))
        code, text = next((value for key, value in self.answers.items() if " ".join(argv).startswith(key)), (0, ""))
        if check and code:
            raise CommandError(argv, returncode=code, tail=[text], log=None, how="failed")
        return Completed(tuple(argv), code, text, text)


@pytest.fixture
def remote(lab: Lab, monkeypatch: pytest.MonkeyPatch, mark_running: Callable[[str], None]) -> Remote:
    made = Remote()
    monkeypatch.setattr("lab.ssh.run_on", made)
    write_record(lab.home, ProvisionerRecord(uuid=UUID))
    mark_running("provisioner")
    return made


def test_a_new_image_is_loaded_before_the_old_one_ends(
    lab: Lab,
    remote: Remote,
    make_tar: Callable[[str], Path],
    announce: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce("ready")
    own = choose_tar(lab, make_tar("one"))
    waited: list[bool] = []
    said = lab.home.status / "provisioner.json"
    monkeypatch.setattr("lab.provisioner.wait_until", lambda *_, **__: waited.append(said.exists()))
    remote.answers["docker image inspect"] = (1, "no such image")
    services_container.start(lab, deadline=Deadline(1))
    assert [argv[:2] for argv in remote.said] == [
        ["docker", "image"], ["docker", "load"], ["systemctl", "stop"], ["systemctl", "reset-failed"],
        ["systemctl", "start"],
    ]  # fmt: skip
    assert remote.said[1][-1] == f"/mnt/host/config/containers/{own.file}"
    assert waited == [False]  # not what the old one had said


def test_an_image_that_cannot_be_loaded_leaves_the_old_one_alone(
    lab: Lab, remote: Remote, make_tar: Callable[[str], Path], announce: Callable[..., None]
) -> None:
    announce("ready")
    choose_tar(lab, make_tar("one"))
    remote.answers |= {"docker image inspect": (1, ""), "docker load": (1, "no space left on device")}
    with pytest.raises(CommandError) as caught:
        services_container.start(lab, deadline=Deadline(1))
    assert "no space left on device" in caught.value.details
    assert not [argv for argv in remote.said if argv[0] == "systemctl"]
    assert (lab.home.status / "provisioner.json").exists()


def test_an_image_that_does_not_answer_is_replaced_by_the_one_before(
    lab: Lab, remote: Remote, make_tar: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = choose_tar(lab, make_tar("one"))
    before = read_choice(lab)
    two = choose_tar(lab, make_tar("two"))
    ran: list[str] = []

    def wait(*_: object, **__: object) -> None:
        ran.append((lab.home.config / "container.env").read_text().splitlines()[1])
        if two.file in ran[-1]:
            raise ProvisionerError("the services failed", details="I give up")

    monkeypatch.setattr("lab.provisioner.wait_until", wait)
    with pytest.raises(ProvisionerError, match=r"the services failed; they run again in .*one\.tar") as caught:
        services_container.start_other(lab, before, seconds=1)
    assert caught.value.details == "I give up"
    assert ran == [f"CONTAINER_TAR={two.file}", f"CONTAINER_TAR={one.file}"]
    assert (read_choice(lab), files(lab)) == (before, {one.file})


def test_an_image_that_cannot_be_loaded_is_not_chosen(
    lab: Lab, remote: Remote, make_tar: Callable[[str], Path]
) -> None:
    before = read_choice(lab)
    choose_tar(lab, make_tar("one"))
    remote.answers |= {"docker image inspect": (1, ""), "docker load": (1, "no space left on device")}
    with pytest.raises(CommandError):
        services_container.start_other(lab, before, seconds=1)
    assert not [argv for argv in remote.said if argv[0] == "systemctl"]
    assert (read_choice(lab), files(lab)) == (before, set())


def test_a_choice_whose_past_is_gone_goes_back_to_the_built_in(lab: Lab, make_tar: Callable[[str], Path]) -> None:
    choose_tar(lab, make_tar("one"))
    two = choose_tar(lab, make_tar("two"))
    before = read_choice(lab)
    choose_tar(lab, make_tar("three"))  # now the tar of one is gone
    services_container._write_choice(lab, before)
    assert read_choice(lab) == ContainerChoice(current=two)


def inspected(**state: Any) -> str:
    labels = {"org.opencontainers.image.version": "0.1.0", "org.opencontainers.image.revision": "r" * 64}
    return json.dumps([{
        "Image": f"sha256:{'a' * 64}", "Config": {"Labels": labels},
        "State": {"Status": "running", "Running": True, "StartedAt": "2026-01-01T00:00:00.123456789Z", **state},
    }])  # fmt: skip


def test_the_view_tells_all(lab: Lab, remote: Remote) -> None:
    record = {"nginx": {"pid": 8, "since": 5, "restarts": 2, "last": "ended with status 1"},
              "dnsmasq": {"pid": None, "since": 6, "restarts": 0, "last": ""}}  # fmt: skip
    remote.answers |= {
        "docker container inspect": (0, inspected(Health={"Status": "healthy"})),
        "docker exec": (0, json.dumps(record)),
    }
    built = lab.cache.container(Arch.X86_64)
    built.parent.mkdir(parents=True)
    built.write_bytes(b"x")
    publish_sidecar(built, {"sha256": "d" * 64, "size": 1, "facts": {"image": "a" * 64}})
    view = services_container.view(lab)
    assert (view.state, view.health, view.image, view.version, view.digest, view.own) == (
        "running", "healthy", "a" * 64, "0.1.0", "d" * 64, False
    )  # fmt: skip
    assert view.since == "2026-01-01T00:00:00Z"
    nginx, dnsmasq = view.services
    assert (nginx.running, nginx.restarts, nginx.last) == (True, 2, "ended with status 1")
    assert not dnsmasq.running


def test_the_view_tells_which_image_is_whose(lab: Lab, remote: Remote, make_tar: Callable[[str], Path]) -> None:
    remote.answers["docker container inspect"] = (0, inspected())
    assert not services_container.view(lab).pending
    own = choose_tar(lab, make_tar("one"))
    view = services_container.view(lab)  # the built-in one still runs
    assert (view.own, view.pending) == (False, True)
    remote.answers["docker container inspect"] = (0, inspected().replace("a" * 64, own.image))
    view = services_container.view(lab)
    assert (view.own, view.pending, view.digest) == (True, False, own.sha256)
    choose_built_in(lab)
    view = services_container.view(lab)
    assert (view.own, view.pending) == (True, True)
    remote.answers["docker container inspect"] = (1, "[]")
    assert not services_container.view(lab).own


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', '{"x": {}}', "no such file"])
def test_an_image_without_our_supervisor_has_no_services_to_show(lab: Lab, remote: Remote, text: str) -> None:
    remote.answers |= {"docker container inspect": (0, inspected()), "docker exec": (1, text)}
    assert services_container.view(lab).services == ()


def test_no_container_is_off_and_tells_why(lab: Lab, remote: Remote, announce: Callable[..., None]) -> None:
    remote.answers["docker container inspect"] = (1, "[]")
    assert services_container.view(lab).state == "off"
    announce("ready")
    assert services_container.view(lab).message == ""  # it was stopped on purpose
    announce("failed", message="the container ended: exit-code exited 3")
    assert services_container.view(lab).message == "the container ended: exit-code exited 3"


class Input:
    def __init__(self, *, terminal: bool) -> None:
        self.isatty = lambda: terminal


@pytest.mark.parametrize(
    ("command", "terminal", "words"),
    [
        (None, True, "docker exec --interactive --tty pxeboot_stack /bin/sh"),
        (None, False, "docker exec --interactive pxeboot_stack /bin/sh"),
        ("echo $x", True, "docker exec --interactive pxeboot_stack /bin/sh -c 'echo $x'"),
    ],
)
def test_the_shell_has_a_terminal_where_we_have_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, command: str | None, words: str, *, terminal: bool
) -> None:
    ran: list[list[str]] = []

    def attach(argv: list[str]) -> int:
        ran.append(argv)
        return 0

    monkeypatch.setattr("sys.stdin", Input(terminal=terminal))
    monkeypatch.setattr(services_container, "attach", attach)
    monkeypatch.setattr("lab.ssh.attach", attach)
    services_container.enter(lab, command)
    (argv,) = ran
    assert argv[-1] == words
    assert ("-t" in argv) is ("--tty" in words)


def test_a_provisioner_that_does_not_answer_is_not_taken_for_an_answer(lab: Lab, remote: Remote) -> None:
    remote.answers["docker container inspect"] = (255, "ssh: connect to host: Connection refused")
    with pytest.raises(CommandError) as caught:
        services_container.view(lab)
    assert "Connection refused" in caught.value.details


def test_a_provisioner_that_is_off_says_so(lab: Lab) -> None:
    for action in (services_container.stop, services_container.view):
        with pytest.raises(ConflictError, match="the provisioner is off") as caught:
            action(lab)
        assert caught.value.resolution == "./pvmlab provisioner.start"


def test_host_mode_has_no_container(lab: Lab) -> None:
    write_record(lab.home, ProvisionerRecord(uuid=UUID, mode=ProvisionerMode.HOST))
    with pytest.raises(ConflictError, match="no container in host mode"):
        services_container.view(lab)


def test_the_log_is_the_units() -> None:
    assert services_container.log_arguments(follow=True, lines=5) == (
        "journalctl --output=cat --no-pager --lines=5 --follow --unit pxeboot_stack.service"
    )
