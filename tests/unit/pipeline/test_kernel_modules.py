"""Choosing and packing kernel modules."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard

from pipeline import kernel_modules
from pipeline.errors import PvmlabError
from pipeline.kernel_modules import (
    KernelChoiceError,
    ModuleTree,
    UnknownModuleError,
    pack_modules,
    read_modules,
    resolve,
)

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


def test_packed_modules_are_uncompressed_and_indexes_cut_to_them() -> None:
    packed = {entry.path.removeprefix(f"usr/lib/modules/{KVER}/"): entry.data for entry in pack_modules(TREE, ["ext4"])}
    assert packed == {
        "kernel/fs/ext4/ext4.ko": b"ext4",
        "kernel/fs/jbd2/jbd2.ko": b"jbd2",
        "kernel/crypto/crc32c_generic.ko": b"crc32c",
        "modules.dep": (
            b"kernel/crypto/crc32c_generic.ko:\n"
            b"kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko\n"
            b"kernel/fs/jbd2/jbd2.ko:\n"
        ),
        "modules.alias": b"alias crc32c crc32c_generic\nalias fs-ext4 ext4\n",
        "modules.softdep": b"softdep ext4 pre: crc32c never-there\n",
        "modules.builtin": b"kernel/drivers/nvme/host/nvme.ko\n",
    }


def test_all_means_all() -> None:
    names = {
        entry.path.rsplit("/", 1)[-1] for entry in kernel_modules.pack_all_modules(TREE) if entry.path.endswith(".ko")
    }
    assert names == {"ext4.ko", "jbd2.ko", "crc32c_generic.ko", "nls_iso8859-1.ko", "other.ko"}


def test_an_index_that_names_a_missing_file_is_refused() -> None:
    broken = ModuleTree(KVER, {"modules.dep": b"kernel/gone.ko:\n", "modules.builtin": b""})
    with pytest.raises(PvmlabError, match=r"modules.dep names a file that is not there: kernel/gone.ko"):
        pack_modules(broken, ["gone"])


def make_rootfs(path: Path, files: dict[str, bytes]) -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(zstandard.ZstdCompressor().compress(raw.getvalue()))
    return path


@pytest.mark.parametrize("prefix", ["./usr/lib/modules", "usr/lib/modules", "./lib/modules", "lib/modules"])
def test_modules_are_read_out_of_a_root_filesystem(tmp_path: Path, prefix: str) -> None:
    rootfs = make_rootfs(
        tmp_path / "rootfs.tar.zst", {"./etc/passwd": b"root", f"{prefix}/{KVER}/modules.dep": b"kernel/a.ko:\n"}
    )
    assert read_modules(rootfs) == ModuleTree(KVER, {"modules.dep": b"kernel/a.ko:\n"})


def test_several_kernels_need_a_choice(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", {f"lib/modules/{version}/modules.dep": b"" for version in ("6.1-1", "6.1-2")})
    with pytest.raises(KernelChoiceError) as caught:
        read_modules(rootfs)
    assert caught.value.found == ("6.1-1", "6.1-2")
    assert "6.1-1, 6.1-2" in caught.value.details
    assert read_modules(rootfs, kver="6.1-2").kver == "6.1-2"


def test_a_root_filesystem_without_the_kernel_is_refused(tmp_path: Path) -> None:
    rootfs = make_rootfs(tmp_path / "r", {"./etc/passwd": b"root"})
    with pytest.raises(KernelChoiceError, match="no single kernel"):
        read_modules(rootfs)
    with pytest.raises(KernelChoiceError, match=r"no modules of kernel 6\.9"):
        read_modules(rootfs, kver="6.9")
