"""The wrapper ./pvmlab in a copy of the repository, with environments really made."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run import PIPE, Completed, Popen, minimal_environment, run, spawn
from pipeline.workspace import REPOSITORY

MAKING = "making .venv from requirements.lock"
NOBODY = "65534"
SYSTEM_PYTHON = os.path.realpath(sys.executable)


class Copy:
    """A copy of the repository, without its environment and artifacts."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.venv = root / ".venv"
        self.script = root / "pvmlab"
        leave_out = shutil.ignore_patterns(".venv", ".git", "cache", "tests", "__pycache__", ".*_cache")
        shutil.copytree(REPOSITORY, root, ignore=leave_out)

    def start(self, *words: str) -> Popen[bytes]:
        """Start the wrapper with the Python of this test run."""
        return spawn([SYSTEM_PYTHON, self.script, *words], network=True, stdout=PIPE, stderr=PIPE)

    def run(self, *words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> Completed:
        """Run the wrapper to its end."""
        command: list[str | Path] = [SYSTEM_PYTHON, self.script, *words]
        return run(command, timeout=600, cwd=cwd, env=env, network=True, check=False)

    def use_small_lock(self) -> None:
        """Lock invoke alone: the command line needs no more to list its verbs, and it is made in seconds."""
        lock = self.root / "requirements.lock"
        found = re.search(r"^invoke==.*(?:\n    --hash.*)+", lock.read_text(), re.MULTILINE)
        assert found is not None
        lock.write_text(found[0].rstrip("\\ ") + "\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy whose environment is made from the real lock, by the first of two that come at once."""
    made = Copy(tmp_path_factory.mktemp("wrapper") / "repository")
    both = [made.start("--list"), made.start("--list")]
    ended = [(*process.communicate(timeout=600), process.returncode) for process in both]
    assert [code for _, _, code in ended] == [0, 0], ended
    assert all(b"vm.start" in out for out, _, _ in ended)
    assert sum(MAKING.encode() in err for _, err, _ in ended) == 1, f"made once, the other waits: {ended}"
    yield made
    shutil.rmtree(made.root)


def test_the_second_run_makes_nothing(copy: Copy) -> None:
    stamp = (copy.venv / "pvmlab-stamp").stat().st_mtime_ns
    begin = time.monotonic()
    done = copy.run("--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - begin < 5
    assert (copy.venv / "pvmlab-stamp").stat().st_mtime_ns == stamp


def test_alone_it_lists_the_verbs(copy: Copy) -> None:
    assert "vm.start" in copy.run().stdout


def test_the_directory_one_stands_in_does_not_matter(copy: Copy, tmp_path: Path) -> None:
    for name in ("cli", "json", "invoke", "tasks"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module was imported')\n")
    done = copy.run("--list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_callers_python_settings_do_not_matter(copy: Copy, tmp_path: Path) -> None:
    odd = {"VIRTUAL_ENV": "/no/such", "PYTHONHOME": "", "PYTHONPATH": "/no/such", "PYTHONWARNINGS": "error", "PATH": ""}
    done = copy.run("--list", env=odd)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_link_to_the_script_works(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "pvmlab").symlink_to(copy.script)
    assert run([SYSTEM_PYTHON, tmp_path / "pvmlab", "--list"], timeout=60).stdout == copy.run("--list").stdout


def test_the_short_way_needs_no_other_python(copy: Copy, tmp_path: Path) -> None:
    """As a program the script is for sh: the environment's own Python is started at once."""
    (tmp_path / "tasks.py").write_text("raise SystemExit('the wrong module was imported')\n")
    odd = {"PATH": "/nowhere", "PYTHONHOME": "/nowhere", "PYTHONPATH": str(tmp_path), "PYTHONSTARTUP": "/nowhere"}
    done = run([copy.script, "--list"], timeout=60, cwd=tmp_path, env=odd, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == copy.run("--list").stdout


def test_errors_keep_their_exit_code(copy: Copy) -> None:
    done = copy.run("no-such-verb")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pvmlab: error: there is no verb 'no-such-verb'")


def _cut_off_creation(copy: Copy, number: signal.Signals) -> tuple[int, str]:
    """Send a signal to the wrapper while it makes the environment; return its exit status and messages."""
    process = copy.start("--list")
    deadline = time.monotonic() + 120
    while not (copy.venv / "lib").exists() or (copy.venv / "pvmlab-stamp").exists():
        assert time.monotonic() < deadline, "the environment was not begun"
        assert process.poll() is None, "the creation ended before it could be cut off"
        time.sleep(0.01)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=60)
    return process.returncode, messages.decode()


def test_a_creation_cut_off_is_done_again(copy: Copy) -> None:
    copy.use_small_lock()
    status, messages = _cut_off_creation(copy, signal.SIGTERM)
    assert status == 130, messages
    assert "pvmlab: interrupted" in messages
    shutil.rmtree(copy.venv)
    status, _ = _cut_off_creation(copy, signal.SIGKILL)
    assert status == -signal.SIGKILL
    done = copy.run("--list")
    assert (done.returncode, MAKING in done.stderr) == (0, True), done
    assert "vm.start" in done.stdout


def test_the_short_way_notices_a_new_lock(copy: Copy) -> None:
    lock = copy.root / "requirements.lock"
    lock.write_text(f"{lock.read_text()}# changed\n")
    done = run([copy.script, "--list"], timeout=600, network=True, env={"PATH": os.environ["PATH"]}, check=False)
    assert (done.returncode, MAKING in done.stderr) == (0, True), done
    assert "vm.start" in done.stdout


def test_a_lock_that_was_tampered_with_is_refused(copy: Copy) -> None:
    lock = copy.root / "requirements.lock"
    lock.write_text(re.sub(r"sha256:\w{64}", f"sha256:{'0' * 64}", lock.read_text()))
    done = copy.run("--list")
    assert done.returncode == 1
    assert "hash" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not (copy.venv / "pvmlab-stamp").exists()


def test_an_ordinary_user_sets_up_with_sudo() -> None:
    """From nothing, as a user who owns the copy alone: the environment is made, and sudo is used for apt only."""
    python = shutil.which("python3", path="/usr/bin:/bin")  # others may not enter root's home, where ours may be
    if python is None or os.geteuid() != 0:
        pytest.skip("needs root, to become an ordinary user, and a Python of the system")
    with tempfile.TemporaryDirectory() as folder:
        made, fakes = Copy(Path(folder) / "repository"), Path(folder) / "bin"
        made.use_small_lock()
        shutil.copytree(REPOSITORY / "tests/fakes/host", fakes)
        with (made.root / "cli/host_packages.py").open("a") as source:
            source.write(
                '\nNEEDS = (Need(name="t", why="w", programs=("pvmlab-t",), packages={Manager.APT: "pvmlab-t"}),)\n'
            )
        run(["chown", "--recursive", NOBODY, folder], timeout=60)
        command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python, str(made.script)]
        env = {"PATH": f"{fakes}:{os.environ['PATH']}", "HOME": folder}
        done = run([*command, "setup"], timeout=600, env=env, network=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (fakes / "calls").read_text().splitlines()[-1].endswith("install --no-install-recommends --yes pvmlab-t")
        assert "sudo --non-interactive env DEBIAN_FRONTEND=noninteractive apt-get" in (fakes / "calls").read_text()
        assert done.stderr.splitlines()[-1] == "the host has all that is needed"
        (fakes / "pvmlab-t").unlink()
        (fakes / "sudo-asks").touch()
        done = run([*command, "setup"], timeout=60, env=env, check=False)
        assert done.returncode == 5
        assert "as root: apt-get install --no-install-recommends --yes pvmlab-t" in done.stderr


def test_an_old_python_says_so(copy: Copy, tmp_path: Path) -> None:
    old = tmp_path / "old.py"
    old.write_text(
        "import runpy, shutil, sys\n"
        "sys.version_info = (3, 9, 2)\n"
        "shutil.which = lambda name: None\n"
        f"runpy.run_path({str(copy.script)!r}, run_name='__main__')\n"
    )
    done = run([SYSTEM_PYTHON, old], timeout=60, env=minimal_environment(), check=False)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
