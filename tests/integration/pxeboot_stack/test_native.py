"""Answer documents and reports over real connections, with the shell scripts that the installers run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from contracts import document
from contracts.answers import BOOT_FILES, DOCUMENTS
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.report import InstallState, MachineStatus, Phase
from contracts.tokens import answers_path
from pipeline.run import Completed, find_program, run, spawn
from pxeboot_stack.boot_handler import answers
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import make_machine, make_settings, write_definition, write_native
from tests.fakes.web_client import wait_until_in_place

SOURCES = ("deb http://mirror.example/debian trixie main",)
NATIVE = [kind for kind in Installer if kind.is_native]


class Lab(Protocol):
    """What the fixtures give."""

    settings: Settings
    client: Any

    def ask(self, path: str, **more: Any) -> Any:
        """Send a request to nginx."""


def machine_of(kind: Installer, **more: Any) -> VmDefinition:
    values = {"installer": kind, "package_sources": SOURCES, "repository": "http://mirror.example/os/"}
    return make_machine(**(values | more))


def define(settings: Settings, machine: VmDefinition) -> VmDefinition:
    write_definition(settings.vms, machine)
    write_native(settings, machine)
    return machine


def token_in(script: str) -> str:
    """Return the token of a boot script."""
    (token,) = set(re.findall(r"/m/([0-9a-f]{32})/", script))
    return str(token)


def state(settings: Settings) -> MachineStatus:
    wait_until_in_place(settings.status)
    return document.loads(MachineStatus, (settings.status / "web1.json").read_bytes())


@pytest.mark.parametrize("kind", NATIVE)
def test_everything_a_script_names_is_served(front: Lab, kind: Installer) -> None:
    machine = define(front.settings, machine_of(kind, ip="127.0.0.11"))
    script = front.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text
    assert f"web1 installs debian-12 by {kind}" in script
    for name in BOOT_FILES[kind]:
        assert front.ask(f"/images/debian-12/x86_64/native/{name}", source=machine.ip).text == name
    for name in DOCUMENTS[kind]:
        if name != "own.cfg":
            assert front.ask(f"{answers_path(token_in(script))}{name}", source=machine.ip).status == 200
    assert (state(front.settings).state, state(front.settings).phase) == (InstallState.INSTALLING, Phase.CONFIGURATION)


@pytest.mark.parametrize("forged", [{}, {"X-Real-IP": "127.0.0.11"}, {"X-Forwarded-For": "127.0.0.11"}])
@pytest.mark.parametrize("kind", NATIVE)
def test_a_neighbour_reads_no_answers(front: Lab, kind: Installer, forged: dict[str, str]) -> None:
    machine = define(front.settings, machine_of(kind, ip="127.0.0.11", answer_file=AnswerFile.VERBATIM))
    (front.settings.vms / "web1.answers").write_text("THE-SECRET\n")
    answers_of = answers_path(token_in(front.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text))
    before = state(front.settings)
    for path in (
        *(f"{answers_of}{name}" for name in DOCUMENTS[kind]),
        f"{answers_of}..%2f..%2fvms/web1.answers",
        f"{answers_of}../config",
        "/vms/web1.answers",
        "/m/../vms/web1.answers",
    ):
        answer = front.ask(path, source="127.0.0.12", headers=forged)
        assert answer.status in {400, 403, 404}
        assert "THE-SECRET" not in answer.text
    assert state(front.settings) == before


@pytest.mark.parametrize("kind", NATIVE)
def test_shell_scripts_are_understood_by_a_shell(tmp_path: Path, kind: Installer) -> None:
    settings = make_settings(tmp_path)
    for name in DOCUMENTS[kind]:
        if name.endswith(".sh"):
            run(["sh", "-n"], input=answers.render(machine_of(kind), name, settings, token="0" * 32), timeout=10)


@pytest.fixture
def tools(tmp_path: Path) -> Any:
    """Make a folder with the programs that an installer has, and one of curl and wget."""

    def make(client: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("sh", "cut", "sed", "tail", "tr", client):
            program = find_program(name)
            if program is None:
                pytest.skip(f"{name} is not here")
            (folder / name).symlink_to(program)
        return folder

    return make


@pytest.mark.parametrize("client", ["curl", "wget"])
def test_an_installer_reports_from_its_beginning_to_its_end(
    stack: Any, network: tuple[str, str], tools: Any, tmp_path: Path, client: str
) -> None:
    settings = stack.settings
    machine = define(settings, machine_of(Installer.PRESEED))
    path, script = tools(client), tmp_path / "report.sh"
    token = token_in(stack.client.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text)
    script.write_text(stack.client.ask(f"{answers_path(token)}report.sh", source=machine.ip).text)

    def report(*words: str) -> Completed:
        command = ["ip", "netns", "exec", network[1], path / "sh", script, *words]
        return run(command, env={"PATH": f"{path}:/usr/sbin:/sbin"}, network=True, timeout=60, check=False)

    assert report("disk", "running", "15", 'it\'s a "disk" \\ $(reboot)\nof two lines').returncode == 0
    now = state(settings)
    assert (now.state, now.phase, now.percent) == (InstallState.INSTALLING, Phase.DISK, 15)
    assert now.message == 'it\'s a "disk" \\ $(reboot) of two lines'

    log = tmp_path / "syslog"
    log.write_bytes(b"first\n" * 100 + b'a "quoted" \\ line\n\ttab \x1b[31m \xff\n' + b"x" * 5000 + b"\nlast")
    assert report("system", "failed", "30", "it went wrong", str(log)).returncode == 0
    now = state(settings)
    assert (now.state, now.message, len(now.lines)) == (InstallState.FAILED, "it went wrong", 30)
    assert now.lines[-4:-2] == ('a "quoted" \\ line', "tab  [31m")
    assert now.lines[-1] == "last"

    assert report("system", "failed", "30", "no log", str(tmp_path / "nothing")).returncode == 0
    assert state(settings).lines == ()
    assert report("bootloader", "done", "100", "done").returncode == 0
    assert (state(settings).state, state(settings).installs) == (InstallState.INSTALLED, 1)
    assert "boots from its disk" in stack.client.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text
    assert report("disk", "running", "15", "too late").returncode != 0


@pytest.fixture
def installer(stack: Any, network: tuple[str, str], tmp_path: Path) -> Iterator[Any]:
    """debian-installer's scripts, below a folder instead of in its file system, ten times as fast; runs them."""
    machine = define(stack.settings, machine_of(Installer.PRESEED))
    token = token_in(stack.client.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text)
    text = stack.client.ask(f"{answers_path(token)}hooks.sh", source=machine.ip).text.replace("sleep 10", "sleep 0.3")
    text = re.sub(r"(?:(?<![\w.])|(?<=\\n))(?=/bin/pvmlab|/var/|/target/|/lib/partman|/usr/lib/)", str(tmp_path), text)
    text, _, _ = text.rpartition(f"\n{tmp_path}/bin/pvmlab-watch")  # started below, to be ended
    for folder in ("bin", "var/log"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "var/log/syslog").touch()

    def call(*words: str | Path) -> None:
        run(["ip", "netns", "exec", network[1], *words], network=True, timeout=60)

    (tmp_path / "hooks.sh").write_text(text)
    call("sh", tmp_path / "hooks.sh")
    watch = spawn(["ip", "netns", "exec", network[1], "sh", str(tmp_path / "bin/pvmlab-watch")])
    try:
        yield call
    finally:
        if watch.poll() is None:
            watch.kill()
        watch.wait(timeout=10)


def log(root: Path, *lines: str) -> None:
    with (root / "var/log/syslog").open("a") as stream:
        stream.writelines(f"Nov 21 13:48:58 {line}\n" for line in lines)


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within 20 s")
        time.sleep(0.05)


HOOKS = {
    "lib/partman/init.d/01pvmlab": Phase.DISK,
    "lib/partman/finish.d/99pvmlab": Phase.SYSTEM,
    "usr/lib/base-installer.d/01pvmlab": Phase.SYSTEM,
    "usr/lib/post-base-installer.d/99pvmlab": Phase.SETUP,
    "usr/lib/pre-pkgsel.d/01pvmlab": Phase.SETUP,
    "usr/lib/finish-install.d/01pvmlab": Phase.BOOTLOADER,
}


def test_debian_installer_is_made_to_report(stack: Any, installer: Any, tmp_path: Path) -> None:
    settings = stack.settings
    assert (state(settings).phase, state(settings).percent) == (Phase.CONFIGURATION, 10)
    log(tmp_path, "debootstrap: Unpacking libc6", "anna[1]: 2026-11-21 URL:http://mirror.example/x [1/1]")
    wait_until("what it logs is told", lambda: state(settings).message == "Unpacking libc6")
    percents = [state(settings).percent]
    for path, phase in HOOKS.items():
        installer(tmp_path / path)
        assert state(settings).phase is phase
        percents.append(state(settings).percent)
    assert percents == sorted(set(percents))
    installer("sh", tmp_path / "usr/lib/finish-install.d/96pvmlab")
    assert (state(settings).state, state(settings).percent) == (InstallState.INSTALLED, 100)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("main-menu[312]: WARNING **: Configuring 'bootstrap-base' failed with error code 1",),
         "WARNING **: Configuring 'bootstrap-base' failed with error code 1"),
        (("main-menu[312]: WARNING **: Menu item 'partman-base' failed.",), "Menu item 'partman-base' failed."),
        (("anna[9]: DEBUG: retrieving e2fsprogs-udeb 1.47", "anna[9]: WARNING **: package retrieval failed"),
         "package retrieval failed: e2fsprogs-udeb 1.47"),
        (("anna[9]: WARNING **: no packages matching running kernel 6.1.0-9-amd64 in archive",),
         "6.1.0-9-amd64 in archive; the mirror has newer kernels than this installer"),
    ],
)  # fmt: skip
def test_a_failure_of_debian_installer_is_told_with_its_cause(
    stack: Any, installer: Any, tmp_path: Path, lines: tuple[str, ...], message: str
) -> None:
    log(tmp_path, "kernel: all is well", *lines, "kernel: goes on")
    wait_until("the failure is told", lambda: state(stack.settings).state is InstallState.FAILED)
    assert message in state(stack.settings).message
    assert state(stack.settings).phase is Phase.CONFIGURATION
    assert state(stack.settings).lines[-1].endswith("kernel: goes on")


def test_fetching_packages_is_a_sign_of_life(stack: Any, installer: Any, tmp_path: Path) -> None:
    archives = tmp_path / "target/var/cache/apt/archives"
    (archives / "partial").mkdir(parents=True)
    for number in range(3):
        (archives / f"package{number}.deb").touch()
    wait_until("it is told", lambda: state(stack.settings).message == "fetched 3 packages")


def test_an_installer_that_logs_nothing_is_silent(stack: Any, installer: Any, tmp_path: Path) -> None:
    log(tmp_path, "kernel: the last word")
    wait_until("it is told", lambda: state(stack.settings).message == "the last word")
    before = state(stack.settings)
    time.sleep(1.5)  # five times its pause
    assert state(stack.settings) == before


def test_the_command_in_an_answer_file_reports(stack: Any, network: tuple[str, str]) -> None:
    """As kickstart's sections and autoinstall's commands have it: fetch the script, run it, never fail."""
    machine = define(stack.settings, machine_of(Installer.KICKSTART))
    token = token_in(stack.client.ask(f"/ipxe?mac={machine.mac}", source=machine.ip).text)
    command = answers.context(machine, stack.settings, token=token)["report"]["done"]("all of it")
    done = run(["ip", "netns", "exec", network[1], "sh", "-c", command], network=True, timeout=60, check=False)
    assert (done.returncode, state(stack.settings).state) == (0, InstallState.INSTALLED)
    assert state(stack.settings).message == "all of it"
    run(["sh", "-c", command], timeout=60)  # from somewhere else: refused, and no failure
