"""The bootloader's texts and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.arch import Arch
from installer import bootloader
from installer.bootloader import Kernel
from installer.disk import Layout
from installer.errors import InstallError

LAYOUT = Layout("/dev/nvme0n1", Arch.X86_64, "disk-uuid", "esp-partuuid", "root-partuuid", "root-uuid", "1a2b3c4d")
ARGS = ("console=ttyS0,115200", "quiet")
DIRECT = Kernel("6.1.0-9-cloud", has_initrd=True, builtin=frozenset({"ext4", "nvme"}))
MODULAR = Kernel("6.12.1", has_initrd=True, builtin=frozenset())
_HEAD = (
    "# Written by the pvmlab installer.\n"
    "set timeout=0\n"
    "set default=0\n"
    "search --no-floppy --fs-uuid --set=root root-uuid\n"
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "boot/vmlinuz-6.1.0-9-cloud": "kernel",
        "boot/initrd.img-6.1.0-9-cloud": "initrd",
        "usr/lib/modules/6.1.0-9-cloud/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/drivers/nvme/host/nvme.ko\n",
        "usr/lib/shim/shimx64.efi.signed": "shim",
        "usr/lib/shim/mmx64.efi.signed": "mok manager",
        "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed": "grub",
        "usr/lib/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "boot/efi").mkdir()
    return tmp_path


def test_the_menu_of_a_kernel_that_needs_no_initrd() -> None:
    assert bootloader.render_menu(LAYOUT, DIRECT, ARGS) == _HEAD + (
        "menuentry 'Linux 6.1.0-9-cloud' {\n"
        "    linux /boot/vmlinuz-6.1.0-9-cloud root=PARTUUID=root-partuuid rootfstype=ext4 rootwait ro"
        " console=ttyS0,115200 quiet\n"
        "}\n"
        "menuentry 'Linux 6.1.0-9-cloud, with initrd' {\n"
        "    linux /boot/vmlinuz-6.1.0-9-cloud root=UUID=root-uuid ro console=ttyS0,115200 quiet\n"
        "    initrd /boot/initrd.img-6.1.0-9-cloud\n"
        "}\n"
    )


def test_the_menu_of_a_modular_kernel() -> None:
    assert bootloader.render_menu(LAYOUT, MODULAR, ARGS) == _HEAD + (
        "menuentry 'Linux 6.12.1, with initrd' {\n"
        "    linux /boot/vmlinuz-6.12.1 root=UUID=root-uuid ro console=ttyS0,115200 quiet\n"
        "    initrd /boot/initrd.img-6.12.1\n"
        "}\n"
    )


def test_a_modular_kernel_without_an_initrd_is_refused() -> None:
    with pytest.raises(InstallError, match=r"6\.12\.1 needs an initrd to reach /dev/nvme0n1, and has none"):
        bootloader.render_menu(LAYOUT, Kernel("6.12.1", has_initrd=False, builtin=frozenset({"ext4"})), ARGS)


def test_a_virtio_disk_needs_its_bus_built_in_too() -> None:
    assert not Kernel("1", has_initrd=True, builtin=frozenset({"ext4", "virtio_blk"})).boots_without_initrd("/dev/vda")
    assert Kernel("1", has_initrd=True, builtin=frozenset({"ext4", "virtio_blk", "virtio_pci"})).boots_without_initrd(
        "/dev/vda"
    )
    assert not DIRECT.boots_without_initrd("/dev/vda")
    assert not DIRECT.boots_without_initrd("/dev/sda")
    sata = frozenset({"ext4", "ahci", "libata", "sd_mod"})
    assert Kernel("1", has_initrd=True, builtin=sata).boots_without_initrd("/dev/sdb")
    assert not Kernel("1", has_initrd=True, builtin=sata).boots_without_initrd("/dev/mmcblk0")


def test_the_configuration_on_the_esp_leads_to_the_root() -> None:
    assert bootloader.render_esp_config(LAYOUT) == (
        "search --no-floppy --fs-uuid --set=root root-uuid\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
    )


def test_everything_is_where_firmware_and_grub_look(root: Path) -> None:
    assert bootloader.install(LAYOUT, ARGS, root) == "kernel 6.1.0-9-cloud, without initrd"
    esp = root / "boot/efi/EFI"
    found = {path.relative_to(esp).as_posix(): path.read_bytes() for path in esp.rglob("*") if path.is_file()}
    assert found == {
        "BOOT/BOOTX64.EFI": b"shim",
        "BOOT/grubx64.efi": b"grub",
        "BOOT/mmx64.efi": b"mok manager",
        "debian/shimx64.efi": b"shim",
        "debian/grubx64.efi": b"grub",
        "debian/mmx64.efi": b"mok manager",
        "debian/grub.cfg": bootloader.render_esp_config(LAYOUT).encode(),
        "debian/BOOTX64.CSV": "shimx64.efi,debian,,This is the boot entry for debian\n".encode("utf-16"),
    }
    assert (root / "boot/grub/grub.cfg").read_text() == bootloader.render_menu(LAYOUT, DIRECT, ARGS)


def test_each_distribution_has_its_own_folder(root: Path) -> None:
    (root / "usr/lib/os-release").write_text('ID_LIKE=debian\nID="ubuntu"\nVERSION_ID="24.04"\n')
    bootloader.install(LAYOUT, ARGS, root)
    esp = root / "boot/efi/EFI"
    assert sorted(path.name for path in esp.iterdir()) == ["BOOT", "ubuntu"]
    expected = "shimx64.efi,ubuntu,,This is the boot entry for ubuntu\n".encode("utf-16")
    assert (esp / "ubuntu/BOOTX64.CSV").read_bytes() == expected


def test_os_release_may_be_in_etc_alone(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "usr/lib/os-release").rename(root / "etc/os-release")
    assert bootloader.find_vendor(root) == "debian"


@pytest.mark.parametrize(
    "text", ["", "ID=\n", "ID=..\n", "ID=../../boot\n", 'ID="deb ian"\n', "XID=debian\n", "ID='debian\n"]
)
def test_a_system_that_does_not_say_what_it_is_is_refused(root: Path, text: str) -> None:
    (root / "usr/lib/os-release").write_text(text)
    with pytest.raises(InstallError, match="no os-release with an ID"):
        bootloader.install(LAYOUT, ARGS, root)
    assert not list((root / "boot/efi").rglob("*.EFI"))


def test_a_shim_that_is_an_alternative_is_found_under_its_own_name(root: Path) -> None:
    """As Ubuntu's package leaves it; in the installer the link leads into the installer's own system."""
    shim = root / "usr/lib/shim/shimx64.efi.signed"
    shim.rename(shim.with_name("shimx64.efi.signed.latest"))
    shim.with_name("shimx64.efi.signed.previous").write_text("older")
    elsewhere = root / "of the installer"
    elsewhere.write_text("not ours")
    shim.symlink_to(elsewhere)
    bootloader.install(LAYOUT, ARGS, root)
    assert (root / "boot/efi/EFI/BOOT/BOOTX64.EFI").read_bytes() == b"shim"


def test_the_mok_manager_is_no_must(root: Path) -> None:
    (root / "usr/lib/shim/mmx64.efi.signed").unlink()
    bootloader.install(LAYOUT, ARGS, root)
    assert not (root / "boot/efi/EFI/BOOT/mmx64.efi").exists()


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("usr/lib/shim/shimx64.efi.signed", "no /usr/lib/shim/shimx64.efi.signed: the package"),
        ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "grubx64.efi.signed: the package"),
        ("usr/lib/os-release", "no os-release with an ID"),
        ("boot/vmlinuz-6.1.0-9-cloud", "holds no kernel to boot"),
        ("usr/lib/modules/6.1.0-9-cloud/modules.builtin", "the kernel 6.1.0-9-cloud, but not its modules"),
    ],
)
def test_a_root_filesystem_that_cannot_boot_is_refused_and_nothing_is_on_the_esp(
    root: Path, missing: str, message: str
) -> None:
    (root / missing).unlink()
    with pytest.raises(InstallError, match=message):
        bootloader.install(LAYOUT, ARGS, root)
    assert not list((root / "boot/efi").rglob("*.EFI"))


def test_a_bootloader_that_is_empty_is_refused(root: Path) -> None:
    (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed").write_bytes(b"")
    with pytest.raises(InstallError, match=r"grubx64\.efi was not written whole"):
        bootloader.install(LAYOUT, ARGS, root)
    assert not (root / "boot/efi/EFI/BOOT/BOOTX64.EFI").exists()


def test_the_newest_kernel_is_taken_by_number_not_by_letter(root: Path) -> None:
    (root / "boot/vmlinuz-6.1.0-10-cloud").write_text("newer")
    modules = root / "usr/lib/modules/6.1.0-10-cloud"
    modules.mkdir()
    (modules / "modules.builtin").write_text("")
    kernel = bootloader.find_kernel(root)
    assert (kernel.kver, kernel.has_initrd) == ("6.1.0-10-cloud", False)
