# Runs with the root filesystem as $1 (mmdebstrap's customize hook): installs packages from the disc alone, then removes
# what must differ from machine to machine. PVMLAB_DISC: a folder with the disc's dists/ and pool/. PVMLAB_SOURCES: lines
# of sources.list(5), the disc being at /mnt. PVMLAB_PACKAGES: names, none if there is nothing to install.
set -eu
exec >&2
root=$1
work=$root/run/pvmlab # mmdebstrap empties /run at the end

# In a network namespace of its own, which has no network: what is not on the disc is not installed.
in_target() {
    unshare --net -- chroot "$root" env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        LC_ALL=C.UTF-8 TZ=UTC DEBIAN_FRONTEND=noninteractive SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
        APT_CONFIG=/run/pvmlab/apt.conf "$@"
}

install_packages() {
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/keys"
    # The disc's signature is checked with the keys that the system itself has (Ubuntu: in one place or the other).
    for key in "$root"/usr/share/keyrings/*-archive-keyring.gpg "$root"/etc/apt/trusted.gpg.d/*.gpg \
        "$root"/etc/apt/trusted.gpg.d/*.asc; do
        [ ! -f "$key" ] || cp "$key" "$work/keys/"
    done
    printf '%s\n' "$PVMLAB_SOURCES" > "$work/sources.list"
    # Of the system's own settings none: its hooks would tell daemons that do not run, its sources are on the network.
    cat > "$work/apt.conf" <<'END'
Dir::Etc::Parts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "/run/pvmlab/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::Etc::Trusted "/dev/null";
Dir::Etc::TrustedParts "/run/pvmlab/keys";
Dir::State::Lists "/run/pvmlab/lists";
Dir::Cache "/run/pvmlab/cache";
Acquire::Check-Date "false";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
DPkg::Use-Pty "false";
DPkg::Options { "--force-confdef"; "--force-confold"; "--force-unsafe-io"; };
END
    trap unmount EXIT
    mount --bind "$PVMLAB_DISC" "$root/mnt"
    # What this host's firmware is and boots is nothing to a bootloader that is installed here.
    [ ! -d "$root/sys/firmware" ] || mount -t tmpfs none "$root/sys/firmware"
    in_target apt-get update --error-on=any
    # shellcheck disable=SC2086 # names of packages, to be split
    in_target apt-get install --no-install-recommends $PVMLAB_PACKAGES
    trap - EXIT
    unmount
    rm -rf "$work"
}

unmount() {
    for place in "$root/sys/firmware" "$root/mnt"; do
        ! mountpoint --quiet "$place" || umount "$place"
    done
}

# Ubuntu's kernels only recommend initramfs-tools: installed with it, a kernel may come first and stay without an initrd.
make_initrds() {
    for kernel in "$root"/boot/vmlinuz-*; do
        version=${kernel##*/vmlinuz-}
        [ -e "$root/boot/initrd.img-$version" ] || in_target update-initramfs -c -k "$version"
    done
}

remove_traces() {
    # Made when something was installed: every machine must have its own.
    rm -f "$root"/etc/ssh/ssh_host_* "$root"/var/lib/dbus/machine-id "$root"/var/lib/systemd/random-seed \
        "$root"/var/lib/systemd/credential.secret
    : > "$root"/etc/machine-id
    # Of the disc's making.
    rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin "$root"/var/cache/apt/archives/*.deb \
        "$root"/etc/apt/sources.list.d/cdrom.sources "$root"/var/cache/ldconfig/aux-cache
    find "$root"/var/log -type f -delete
    # What the distribution's installer leaves so that cloud-init stays out of its way, and cloud-init of earlier runs.
    rm -rf "$root"/etc/cloud/cloud-init.disabled "$root"/etc/cloud/cloud.cfg.d/*subiquity* \
        "$root"/etc/cloud/cloud.cfg.d/*installer* "$root"/etc/cloud/cloud.cfg.d/*curtin* \
        "$root"/var/lib/cloud/data "$root"/var/lib/cloud/instance "$root"/var/lib/cloud/instances \
        "$root"/var/lib/cloud/sem
}

[ -z "$PVMLAB_PACKAGES" ] || install_packages
make_initrds
remove_traces
# mmdebstrap insists on removing it at the end.
: > "$root"/etc/apt/apt.conf.d/00mmdebstrap
