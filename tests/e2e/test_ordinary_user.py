"""What the README says of privileges: none, besides installing packages.

Run by root (as CI is), these tests work as an account of their own that is made for them and removed again; run by an
ordinary user, they work as that user.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.run import Completed, run
from pipeline.workspace import REPOSITORY, Cache
from tests.e2e.command_line import qemu_processes

SYSTEM_PYTHON = Path("/usr/bin/python3")
BUILD = """
import sys
from pathlib import Path
from pipeline.artifact import Making
from pipeline.disk_image import Unpacked, make_ext4_qcow2
from pipeline.graph import Graph
from pipeline.recipes.graph import artifacts
from pipeline.tree_tar import TreeTar
from pipeline.workspace import Cache

folder = Path(sys.argv[1])
for artifact in Graph(artifacts(Cache(folder / "cache"))).closure(["container:x86_64"]):
    artifact.build()
with TreeTar(folder / "tree.tar") as tree:
    tree.file("etc/secret", b"x", mode=0o600)
(folder / "scratch").mkdir()
making = Making({}, folder / "scratch", folder / "log")
make_ext4_qcow2(
    [Unpacked(folder / "tree.tar")], label="test", uuid="7d1bd3a2-4a0f-4c55-9d7e-1c1c47c4d2a1", size_gib=1,
    epoch=1_700_000_000, making=making, output=folder / "disk.qcow2",
)
"""


class OrdinaryUser:
    """Runs our Python as an account without privileges, in a folder of its own."""

    def __init__(self, name: str | None, folder: Path) -> None:
        self.name, self.folder = name, folder

    def python(self, *arguments: str | Path, timeout: float, check: bool = True) -> Completed:
        """Run a Python program with the project and its libraries."""
        account = pwd.getpwnam(self.name) if self.name else None
        prefix = [
            "setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--",
        ] if account else []  # fmt: skip
        environment = {
            "HOME": str(self.folder),
            "PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}",
            "PVMLAB_HOME": str(self.folder / "home"),
        }
        python = SYSTEM_PYTHON if account else sys.executable
        done = run(
            [*prefix, python, "-P", "-B", *arguments],
            timeout=timeout, env=environment, network=True, cwd=self.folder, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    """An ordinary user, whose folder ends with the test."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvmlab-user-")))
        if os.geteuid() != 0:
            yield OrdinaryUser(None, folder)
            return
        reason = find_obstacle()
        if reason:
            pytest.skip(reason)
        name = f"pvmlab-{secrets.token_hex(4)}"
        run(["useradd", "--no-create-home", "--home-dir", folder, "--shell", "/bin/sh", name], timeout=60)
        stack.callback(run, ["userdel", name], timeout=60)
        shutil.chown(folder, name, name)
        folder.chmod(0o755)
        yield OrdinaryUser(name, folder)


def find_obstacle() -> str | None:
    """Return why another account cannot run this checkout, or None."""
    if not SYSTEM_PYTHON.exists():
        return f"an ordinary user needs a Python that is not root's own: there is no {SYSTEM_PYTHON}"
    version = run([SYSTEM_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], timeout=30).stdout.split()
    if tuple(map(int, version)) != sys.version_info[:2]:
        return f"the libraries of .venv are for Python {sys.version_info[:2]}, {SYSTEM_PYTHON} is {'.'.join(version)}"
    if any(not folder.stat().st_mode & 0o001 for folder in (REPOSITORY, *REPOSITORY.parents)):
        return f"other accounts cannot enter {REPOSITORY}"
    return None


@pytest.mark.artifacts
def test_artifacts_are_built_without_root(user: OrdinaryUser) -> None:
    user.python("-c", BUILD, user.folder, timeout=600)
    assert (user.folder / "cache/ipxe" / Arch.X86_64.ipxe_binary).stat().st_size > 500_000
    content = run(["qemu-img", "convert", "-O", "raw", user.folder / "disk.qcow2", user.folder / "raw"], timeout=60)
    assert content.returncode == 0
    listing = run(["debugfs", "-R", "stat /etc/secret", user.folder / "raw"], timeout=60).stdout
    assert "User:     0   Group:     0" in listing
    assert "Mode:  0600" in listing
    assert not any((user.folder / "scratch").glob("tree"))


@pytest.mark.vm
def test_the_provisioner_runs_without_root(user: OrdinaryUser, artifacts: Cache) -> None:
    assert artifacts.provisioner(Arch.X86_64, "disk.qcow2").exists()
    home = user.folder / "home"
    try:
        user.python("-m", "cli", "provisioner.start", timeout=600)
        assert user.python("-m", "cli", "vm.shell", "provisioner", "--", "id", "-u", timeout=120).stdout == "0\n"
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in qemu_processes(home)}
        assert owners == {(user.folder).stat().st_uid}
    finally:
        user.python("-m", "cli", "clean", "--yes", timeout=120, check=False)
    assert qemu_processes(home) == {}
