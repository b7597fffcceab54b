"""Choosing and packing kernel modules."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from pipeline import cpio
from pipeline.errors import PvmlabError
from pipeline.kernel.module_file import ModuleMismatchError
from pipeline.kernel.modules import (
    ModuleTree,
    UnknownModuleError,
    pack_all_modules,
    pack_modules,
    read_modules,
    resolve,
)
from pipeline.kernel.packed import DamagedFileError
from pipeline.kernel.rootfs import KernelChoiceError, KernelMismatchError
from pipeline.kernel.version import AmbiguousKernelError
from tests.fakes.kernels import COMPRESS, make_module, make_rootfs, make_vmlinuz

KVER = "6.12.1-amd64"
TREE = ModuleTree(
    KVER,
    {
        "kernel/fs/ext4/ext4.ko.xz": lzma.compress(b"ext4"),
        "kernel/fs/jbd2/jbd2.ko.zst": zstandard.ZstdCompressor().compress(b"jbd2"),
        "kernel/crypto/crc32c_generic.ko.gz": gzip.compress(b"crc32c"),
        "kernel/fs/nls/nls_iso8859-1.ko": b"nls",
        "kernel/net/other.ko": b"other",
        "modules.dep": (
            b"kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.zst\n"
            b"kernel/fs/jbd2/jbd2.ko.zst:\n"
            b"kernel/crypto/crc32c_generic.ko.gz:\n"
            b"kernel/fs/nls/nls_iso8859-1.ko:\n"
            b"kernel/net/other.ko:\n"
        ),
        "modules.alias": (
            b"# Aliases extracted from modules themselves.\n"
            b"alias fs-ext4 ext4\nalias crc32c crc32c_generic\nalias pci:v*d* other\n"
        ),
        "modules.softdep": b"# Soft dependencies\nsoftdep ext4 pre: crc32c post: never-there\n",
        "modules.builtin": b"kernel/drivers/nvme/host/nvme.ko\n",
    },
)
EXT4_CLOSURE = ["kernel/crypto/crc32c_generic.ko.gz", "kernel/fs/ext4/ext4.ko.xz", "kernel/fs/jbd2/jbd2.ko.zst"]


def test_the_closure_has_hard_and_soft_dependencies_these_through_aliases() -> None:
    assert resolve(TREE, ["ext4"]) == EXT4_CLOSURE


def test_a_built_in_module_needs_no_file() -> None:
    assert resolve(TREE, ["nvme"]) == []


def test_hyphen_and_underscore_are_one() -> None:
    assert resolve(TREE, ["nls_iso8859-1"]) == resolve(TREE, ["nls_iso8859_1"]) == ["kernel/fs/nls/nls_iso8859-1.ko"]


def test_an_unknown_module_is_refused_by_name() -> None:
    with pytest.raises(UnknownModuleError, match=f"kernel {KVER} has no module e1000e, ext5") as caught:
        resolve(TREE, ["ext5", "ext4", "e1000e"])
    assert caught.value.names == ("e1000e", "ext5")


def test_an_unknown_module_that_is_optional_is_left_out() -> None:
    assert resolve(TREE, [], optional=["e1000e", "jbd2"]) == ["kernel/fs/jbd2/jbd2.ko.zst"]


def test_of_alternatives_all_that_are_there_are_wanted_and_one_must_be() -> None:
    assert resolve(TREE, [("jbd2", "nls-iso8859-1", "never")]) == [
        "kernel/fs/jbd2/jbd2.ko.zst",
        "kernel/fs/nls/nls_iso8859-1.ko",
    ]
    assert resolve(TREE, [("never", "nvme")]) == []
    with pytest.raises(UnknownModuleError, match="has no module ever or never"):
        resolve(TREE, [("never", "ever")])


def packed(entries: list[cpio.Entry]) -> dict[str, bytes]:
    return {entry.path.removeprefix(f"usr/lib/modules/{KVER}/"): entry.data for entry in entries}


def texts(entries: list[cpio.Entry]) -> dict[str, bytes]:
    return {path: data for path, data in packed(entries).items() if not path.endswith(".bin")}


def test_packed_modules_are_uncompressed_and_indexes_cut_to_them() -> None:
    assert texts(pack_modules(TREE, ["ext4"])) == {
        "kernel/fs/ext4/ext4.ko": b"ext4",
        "kernel/fs/jbd2/jbd2.ko": b"jbd2",
        "kernel/crypto/crc32c_generic.ko": b"crc32c",
        "modules.order": b"kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\nkernel/crypto/crc32c_generic.ko\n",
        "modules.dep": (
            b"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n"
            b"kernel/fs/jbd2/jbd2.ko:\n"
            b"kernel/crypto/crc32c_generic.ko:\n"
        ),
        "modules.alias": b"alias fs-ext4 ext4\nalias crc32c crc32c_generic\n",
        "modules.softdep": b"softdep ext4 pre: crc32c post: never-there\n",
        "modules.builtin": b"kernel/drivers/nvme/host/nvme.ko\n",
    }


def test_binary_indexes_come_with_the_texts() -> None:
    names = {path for path in packed(pack_modules(TREE, ["ext4"])) if path.endswith(".bin")}
    kinds = ("dep", "alias", "symbols", "builtin", "builtin.alias")
    assert names == {f"modules.{kind}.bin" for kind in kinds}


def test_all_means_all_and_keeps_what_busybox_can_unpack() -> None:
    files = packed(pack_all_modules(TREE))
    assert {path: data for path, data in files.items() if ".ko" in path} == {
        "kernel/fs/ext4/ext4.ko.xz": TREE.files["kernel/fs/ext4/ext4.ko.xz"],
        "kernel/fs/jbd2/jbd2.ko": b"jbd2",
        "kernel/crypto/crc32c_generic.ko.gz": TREE.files["kernel/crypto/crc32c_generic.ko.gz"],
        "kernel/fs/nls/nls_iso8859-1.ko": b"nls",
        "kernel/net/other.ko": b"other",
    }
    assert files["modules.dep"].startswith(
        b"kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko\nkernel/fs/jbd2/jbd2.ko:\n"
    )
    assert files["modules.alias"] == TREE.files["modules.alias"]  # as it is, with its comment


def test_an_index_that_names_a_missing_file_is_refused() -> None:
    broken = ModuleTree(KVER, {"modules.dep": b"kernel/gone.ko:\n", "modules.builtin": b""})
    with pytest.raises(PvmlabError, match=r"modules.dep names a file that is not there: kernel/gone.ko"):
        pack_modules(broken, ["gone"])


@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_a_module_of_another_kernel_is_refused(suffix: str) -> None:
    path = f"kernel/a.ko{suffix}"
    tree = ModuleTree(KVER, {path: COMPRESS[suffix](make_module("6.1.0-other")), "modules.dep": f"{path}:\n".encode()})
    complaint = rf"kernel/a.ko{suffix} is a module of kernel 6.1.0-other, not of {KVER}"
    with pytest.raises(ModuleMismatchError, match=complaint):
        pack_modules(tree, ["a"])
    with pytest.raises(ModuleMismatchError, match=complaint):
        pack_all_modules(tree)


def test_a_damaged_module_is_refused_by_name() -> None:
    path = "kernel/a.ko.zst"
    data = zstandard.compress(make_module(KVER))
    tree = ModuleTree(KVER, {path: data[:-4], "modules.dep": f"{path}:\n".encode()})
    with pytest.raises(DamagedFileError, match=r"kernel/a\.ko\.zst is damaged"):
        pack_modules(tree, ["a"])


def test_what_depmod_never_saw_is_read_off_the_modules() -> None:
    files = {
        "kernel/fs/ext4.ko.zst": make_module(
            KVER, depends="jbd2,mbcache", alias=["fs-ext4", "ext3"], softdep="pre: crc32c"
        ),
        "kernel/fs/jbd2.ko.xz": make_module(KVER, depends=""),
        "kernel/fs/mbcache.ko": make_module(KVER, depends="jbd2"),
        "kernel/lib/crc32c-intel.ko.gz": make_module(KVER, depends="", alias=["crc32c"]),
        "kernel/net/alone.ko": make_module(KVER, depends="in_the_kernel"),
    }
    stored = {path: COMPRESS[path.partition(".ko")[2]](data) for path, data in files.items()}
    order = b"kernel/fs/jbd2.ko\nkernel/net/alone.ko\nkernel/fs/ext4.ko\n"
    tree = ModuleTree(KVER, {**stored, "modules.order": order, "modules.builtin": b"kernel/nvme.ko\n"})
    found = texts(pack_modules(tree, ["ext4", "nvme"]))
    assert found["modules.dep"].decode().splitlines() == [
        "kernel/fs/jbd2.ko:",
        "kernel/fs/ext4.ko: kernel/fs/mbcache.ko kernel/fs/jbd2.ko",
        "kernel/fs/mbcache.ko: kernel/fs/jbd2.ko",
        "kernel/lib/crc32c-intel.ko:",
    ]
    assert found["modules.alias"] == b"alias fs-ext4 ext4\nalias ext3 ext4\nalias crc32c crc32c_intel\n"
    assert found["modules.softdep"] == b"softdep ext4 pre: crc32c\n"
    assert found["kernel/fs/ext4.ko"] == files["kernel/fs/ext4.ko.zst"]


def test_a_module_that_is_none_is_refused_when_it_must_be_read() -> None:
    with pytest.raises(PvmlabError, match=r"kernel/a\.ko is no kernel module"):
        resolve(ModuleTree(KVER, {"kernel/a.ko": b"<html>"}), ["a"])


@pytest.mark.parametrize("prefix", ["./usr/lib/modules", "usr/lib/modules", "./lib/modules", "lib/modules"])
def test_modules_are_read_out_of_a_root_filesystem(tmp_path: Path, prefix: str) -> None:
    files: dict[str, bytes | str] = {
        "./etc/passwd": b"root",
        f"{prefix}/{KVER}/kernel/a.ko": b"a",
        f"{prefix}/{KVER}/modules.dep": b"kernel/a.ko:\n",
        f"{prefix}/{KVER}/build": "/usr/src/linux",
        f"{prefix}/{KVER}/System.map": b"symbols",
        f"{prefix}-load.d/modules.conf": b"a",
    }
    rootfs = make_rootfs(tmp_path / "rootfs.tar.zst", files)
    assert read_modules(rootfs) == ModuleTree(KVER, {"kernel/a.ko": b"a", "modules.dep": b"kernel/a.ko:\n"})


def test_links_between_modules_are_followed(tmp_path: Path) -> None:
    rootfs = make_rootfs(
        tmp_path / "r",
        {
            "lib": "usr/lib",
            "usr/lib/modules/6.1-1/kernel/a.ko": b"a",
            "usr/lib/modules/6.1-1/kernel/b.ko": "=./usr/lib/modules/6.1-1/kernel/a.ko",
            "usr/lib/modules/6.1-1/weak-updates/c.ko": "/lib/modules/6.1-0/extra/c.ko",
            "usr/lib/modules/6.1-1/weak-updates/d.ko": "../kernel/b.ko",
            "usr/lib/modules/6.1-1/weak-updates/e.ko": "../gone.ko",
            "usr/lib/modules/6.1-1/weak-updates/f.ko": "f.ko",
            "usr/lib/modules/6.1-0/extra/c.ko": b"c",
        },
    )
    files = read_modules(rootfs).files
    assert files == {"kernel/a.ko": b"a", "kernel/b.ko": b"a", "weak-updates/c.ko": b"c", "weak-updates/d.ko": b"a"}


def modules_of(*versions: str) -> dict[str, bytes | str]:
    return {f"lib/modules/{version}/modules.builtin": b"" for version in versions}


def test_of_several_kernels_the_newest_counts(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", modules_of("6.1-9", "6.1-10"))
    assert read_modules(rootfs).kver == "6.1-10"
    assert read_modules(rootfs, kver="6.1-9").kver == "6.1-9"


def test_modules_that_a_removed_kernel_left_behind_do_not_count(tmp_path: Path) -> None:
    files = modules_of("6.1-9", "6.1-10") | {"boot/vmlinuz-6.1-9": make_vmlinuz("6.1-9")}
    assert read_modules(make_rootfs(tmp_path / "r", files)).kver == "6.1-9"
    empty: dict[str, bytes | str] = {"lib/modules/6.1-11/modules.softdep": b"", "lib/modules/6.1-11/build": "/usr/src"}
    assert read_modules(make_rootfs(tmp_path / "r", modules_of("6.1-9") | empty)).kver == "6.1-9"


def test_several_flavours_need_a_choice(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", modules_of("6.1-9-amd64", "6.1-10-rt-amd64"))
    with pytest.raises(AmbiguousKernelError):
        read_modules(rootfs)
    assert read_modules(rootfs, kver="6.1-9-amd64").kver == "6.1-9-amd64"


def test_modules_of_another_kernel_than_the_one_that_boots_are_refused(tmp_path: Path) -> None:
    files = modules_of("6.1-10") | {"boot/vmlinuz-6.1-9": make_vmlinuz("6.1-9")}
    with pytest.raises(KernelMismatchError, match=r"the modules are not those of the kernel: 6\.1-10") as caught:
        read_modules(make_rootfs(tmp_path / "r", files))
    assert "6.1-9" in caught.value.details


def test_a_root_filesystem_without_the_kernel_is_refused(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", {"./etc/passwd": b"root"})
    with pytest.raises(KernelChoiceError, match="no kernel modules in the root filesystem"):
        read_modules(rootfs)
    with pytest.raises(KernelChoiceError, match=r"no modules of kernel 6\.9") as caught:
        read_modules(make_rootfs(tmp_path / "r", modules_of("6.1-1", "6.1-2")), kver="6.9")
    assert caught.value.found == ("6.1-1", "6.1-2")
    assert "6.1-1, 6.1-2" in caught.value.details
