"""What the appliance is packed of, and what is said when a part is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline.appliance.contents import GUEST, find_kernel, initrd_entries, packages, program_entries, read_module_tree
from pipeline.errors import NotFoundError
from pipeline.kernel.modules import ModuleTree
from tests.fakes.kernels import COMPRESS, make_module

KVER = "6.12.1"


def boot(folder: Path, *versions: str) -> Path:
    (folder / "boot").mkdir()
    for version in versions:
        (folder / "boot" / f"vmlinuz-{version}").write_bytes(b"kernel")
    return folder


def test_the_kernel_is_found_whatever_its_version(tmp_path: Path) -> None:
    assert find_kernel(boot(tmp_path, KVER)) == (KVER, tmp_path / f"boot/vmlinuz-{KVER}")


@pytest.mark.parametrize("versions", [(), (KVER, "6.12.2")])
def test_no_kernel_or_two_are_refused(versions: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"hold {len(versions)} kernels, not one"):
        find_kernel(boot(tmp_path, *versions))


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="the appliance needs tar"):
        initrd_entries(tmp_path, ModuleTree(KVER, {}))
    with pytest.raises(NotFoundError, match="the appliance needs mkfs"):
        program_entries(tmp_path, [tmp_path / "usr/sbin/mkfs"])


def test_only_modules_of_some_folders_are_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/modules" / KVER
    for path in ("kernel/fs/ext4/ext4.ko.xz", "kernel/drivers/gpu/drm/drm.ko.xz", "kernel/crypto/crc32c_generic.ko.xz"):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(COMPRESS[".xz"](make_module(KVER)))
    (folder / "modules.builtin").write_text("kernel/lib/crc32.ko\n")
    tree = read_module_tree(tmp_path, KVER)
    assert set(tree.paths) == {"ext4", "crc32c_generic"}
    assert tree.builtin == {"crc32"}


def test_each_architecture_has_its_kernel() -> None:
    assert packages(Arch.X86_64)[0] == "linux-image-amd64"
    assert packages(Arch.AARCH64)[0] == "linux-image-arm64"


def test_every_job_is_there() -> None:
    assert sorted(path.name for path in GUEST.iterdir()) == ["init", "read-root"]
