"""The provisioner's system as data, for those who build its disk and start it.

The disk is Debian :data:`SUITE` with :data:`PACKAGES`; :data:`FILES` is laid over it as root:root, modes from the
executable bit; units are enabled and masked by links; the container is put into Docker's store.
"""

from __future__ import annotations

from pathlib import Path

NAME = "provisioner"
SUITE = "trixie"

PACKAGES = (
    "busybox-static",  # its initrd's shell, and wget for announce-ready
    "containerd",
    "docker-cli",
    "docker.io",
    "iproute2",
    "kmod",
    "linux-image-amd64",  # the generic flavour: the one for clouds has no 9p
    "netbase",
    "nftables",
    "openssh-server",
    "systemd-sysv",
    "udev",
)

# dpkg path patterns left out of it, besides documentation and translations.
EXCLUDED_PATHS = (
    "/usr/lib/firmware/*",
    "/usr/lib/modules/*/kernel/drivers/gpu/*",
    "/usr/lib/modules/*/kernel/drivers/media/*",
    "/usr/lib/modules/*/kernel/drivers/infiniband/*",
    "/usr/lib/modules/*/kernel/drivers/isdn/*",
    "/usr/lib/modules/*/kernel/drivers/net/wireless/*",
    "/usr/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/usr/lib/modules/*/kernel/drivers/scsi/*",
    "/usr/lib/modules/*/kernel/drivers/staging/*",
    "/usr/lib/modules/*/kernel/drivers/usb/*",
    "/usr/lib/modules/*/kernel/sound/*",
)

FILES = Path(__file__).parent / "provisioner"  # laid over the root file system

# What the initrd loads before the root file system is there; pxeboot_stack/provisioner-init is its init.
# 9pnet_virtio, though only the mounts in fstab need it: it registers itself before it has found the shares, and a mount
# that comes in between does not find its own ("no channels available").
INITRD_MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9pnet_virtio")

# Runs with the new root as $1 (mmdebstrap's customize hook): what a package made when it was installed here would be
# the same in every copy. sshd's keys come from the lab at each boot.
CUSTOMIZE = 'rm -f "$1"/etc/ssh/ssh_host_*'

# Unit to the target that wants it.
ENABLED_UNITS = {
    "containerd.service": "multi-user.target",
    "docker.service": "multi-user.target",
    "nftables.service": "sysinit.target",
    "pvmlab-setup.service": "sysinit.target",
    "pxeboot_stack.service": "multi-user.target",
    "ssh.service": "multi-user.target",
    "systemd-networkd.service": "multi-user.target",
}

# What Debian would start and a provisioner that lives for an hour does not need. Each costs boot time.
# getty.target: nobody has a password, so there is nothing to log in with on the console.
MASKED_UNITS = (
    "apt-daily-upgrade.service", "apt-daily-upgrade.timer", "apt-daily.service", "apt-daily.timer",
    "console-setup.service", "cron.service", "dev-hugepages.mount", "dev-mqueue.mount", "docker.socket",
    "dpkg-db-backup.service", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "getty.target", "keyboard-setup.service", "kmod-static-nodes.service", "ldconfig.service", "logrotate.timer",
    "man-db.timer", "modprobe@.service", "networking.service", "proc-sys-fs-binfmt_misc.automount", "run-lock.mount",
    "ssh.socket", "sshd-keygen.service", "sys-fs-fuse-connections.mount", "sys-kernel-config.mount",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path", "systemd-binfmt.service", "systemd-boot-random-seed.service",
    "systemd-boot-update.service", "systemd-firstboot.service", "systemd-hibernate-clear.service",
    "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-journal-flush.service",
    "systemd-logind.service", "systemd-machine-id-commit.service", "systemd-modules-load.service",
    "systemd-networkd-persistent-storage.service", "systemd-networkd-wait-online.service",
    "systemd-pcrmachine.service", "systemd-pcrphase-sysinit.service", "systemd-pcrphase.service",
    "systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service", "systemd-rfkill.service",
    "systemd-rfkill.socket", "systemd-sysusers.service", "systemd-timesyncd.service", "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service",
    "systemd-tpm2-setup-early.service", "systemd-tpm2-setup.service", "systemd-udev-load-credentials.service",
    "systemd-update-done.service", "systemd-update-utmp.service", "tmp.mount",
)  # fmt: skip


def unit_path(unit: str) -> str:
    """Return where the unit file of *unit* is in the provisioner: ours, or Debian's."""
    ours = f"etc/systemd/system/{unit}"
    return f"/{ours}" if (FILES / ours).is_file() else f"/usr/lib/systemd/system/{unit}"
