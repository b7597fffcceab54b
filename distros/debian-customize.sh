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
