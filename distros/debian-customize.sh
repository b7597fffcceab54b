# Runs with the new root filesystem as $1 (mmdebstrap's customize hook).
set -eu
root=$1

# Made at package installation: every machine must have its own.
rm -f "$root"/etc/ssh/ssh_host_*
: > "$root"/etc/machine-id
rm -f "$root"/var/lib/dbus/machine-id "$root"/var/lib/systemd/random-seed

# Of the build host, not of the machine.
rm -f "$root"/etc/hostname "$root"/etc/resolv.conf
ln -s ../run/systemd/resolve/stub-resolv.conf "$root"/etc/resolv.conf

chroot "$root" systemctl enable systemd-networkd.service systemd-resolved.service

# Keys only, as in the user-data; said here, cloud-init need not write it and start sshd again.
cat > "$root"/etc/ssh/sshd_config.d/10-pvmlab.conf <<'END'
PasswordAuthentication no
KbdInteractiveAuthentication no
END

# What costs seconds of each boot under emulation, or takes apt's lock behind a person's back.
chroot "$root" systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer cloud-init-hotplugd.socket dev-hugepages.mount dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer ldconfig.service proc-sys-fs-binfmt_misc.automount \
    sys-kernel-debug.mount sys-kernel-tracing.mount systemd-binfmt.service systemd-hwdb-update.service \
    systemd-journal-catalog-update.service systemd-networkd-wait-online.service systemd-pstore.service

# Modules that nothing in a lab asks for are left out of cloud-init's stages: each costs a third of a second under
# emulation. Locales are not installed, so none can be set; the mirror is the one the system was built from; the
# installer's root file system fills the disk already.
cat > "$root"/etc/cloud/cloud.cfg.d/50-pvmlab.cfg <<'END'
locale: false
apt:
  preserve_sources_list: true
cloud_init_modules: [bootcmd, write-files, set_hostname, update_hostname, users-groups, ssh]
cloud_config_modules: [set-passwords, timezone, runcmd]
cloud_final_modules: [package-update-upgrade-install, write-files-deferred, scripts-per-boot, scripts-per-instance,
                      scripts-user, phone-home, final-message, power-state-change]
END
