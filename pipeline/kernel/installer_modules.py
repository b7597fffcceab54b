"""Which modules our installer's initrd needs, of whatever kernel it is started with."""

from __future__ import annotations

from pipeline.kernel.modules import Wanted

# Without these there is no install on the machines of the lab. What a kernel has built in is left out: Debian 13's has
# virtio_pci in it, that of Debian 12 for clouds has not.
INSTALLER_MODULES: tuple[Wanted, ...] = (
    "virtio_pci", "virtio_net", "virtio_blk", "nvme",  # the lab's own cards and disks
    "ext4", "vfat", "efivarfs",  # what is written
    # vfat mounts nothing without the two character sets it was built to use. The second differs: ascii is Debian's,
    # iso8859-1 what the kernel's own sources suggest.
    "nls_cp437", ("nls_ascii", "nls_iso8859_1", "nls_utf8"),
)  # fmt: skip

# What other machines have. Flavours for clouds are built without some of them: absent is no fault.
INSTALLER_MODULES_OPTIONAL = (
    "virtio_scsi", "virtio_rng", "virtio_console", "qemu_fw_cfg",
    "ahci", "ata_piix", "sd_mod", "xhci_pci", "uas", "usb_storage", "megaraid_sas", "mpt3sas",
    "hv_storvsc", "vmw_pvscsi",
    "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "r8169", "tg3", "hv_netvsc", "vmxnet3",
    "crc32c_generic", "rtc_cmos",
)  # fmt: skip
