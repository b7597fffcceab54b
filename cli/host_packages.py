"""What pvmlab needs of the host, and how each package manager calls it.

A need is met when its programs and files are there; what the package database says does not count.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.run import find_program, run

_VERSION = re.compile(r"version (\d+)\.(\d+)")


class Manager(enum.StrEnum):
    """A package manager, by the name of its program."""

    APT = "apt-get"
    DNF = "dnf"
    PACMAN = "pacman"
    BREW = "brew"

    def install_command(self, packages: Iterable[str]) -> list[str]:
        """Return the command that installs *packages*, without the sudo."""
        options = {
            Manager.APT: ["install", "--no-install-recommends", "--yes"],
            Manager.DNF: ["install", "--setopt=install_weak_deps=False", "--assumeyes"],
            Manager.PACMAN: ["--sync", "--needed"],
            Manager.BREW: ["install"],
        }[self]
        return [self.value, *options, *packages]

    def advice(self, packages: Iterable[str]) -> str:
        """Return the line a person types to install *packages*."""
        # Homebrew refuses to run as root
        prefix = "" if self is Manager.BREW or os.geteuid() == 0 else "sudo "
        return prefix + shlex.join(self.install_command(packages))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
    """One thing the host must have.

    :ivar why: what for, in a few words. :ivar programs: all of them must be on the PATH.
    :ivar files: one of them must exist, if any is given.
    :ivar oldest: the oldest usable version of the first program.
    :ivar packages: for each manager; a manager left out has no such package.
    :ivar services: units these packages would enable; setup leaves them off.
    :ivar for_tests: only the tests need it. :ivar for_host_mode: ... and a provisioner in host mode.
    :ivar as_user: only ordinary users need it, root does not.
    """

    name: str
    why: str
    programs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    oldest: tuple[int, int] | None = None
    packages: dict[Manager, str]
    services: tuple[str, ...] = ()
    for_tests: bool = False
    for_host_mode: bool = False
    as_user: bool = False

    def problem(self) -> str | None:
        """Return what is wrong, or None if the need is met."""
        absent = [program for program in self.programs if find_program(program) is None]
        if absent:
            return f"{', '.join(absent)} not installed"
        if self.files and not any(Path(file).exists() for file in self.files):
            return f"no file {' or '.join(self.files)}"
        if self.oldest is not None and (found := program_version(self.programs[0])) and found < self.oldest:
            return f"{self.programs[0]} is version {_dotted(found)}, {_dotted(self.oldest)} is needed"
        return None


def program_version(program: str) -> tuple[int, int] | None:
    """Return major and minor version that ``PROGRAM --version`` tells, or None if it tells none."""
    found = _VERSION.search(run([program, "--version"], timeout=60, check=False).stdout)
    return (int(found[1]), int(found[2])) if found else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def find_manager(os_release: str | None = None) -> Manager | None:
    """Return the package manager of this host, or None.

    :param os_release: the text of os-release(5), read from the host if None.
    """
    if os_release is None:
        paths = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
        os_release = next((path.read_text() for path in paths if path.exists()), "")
    pairs = (line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    fields = {name: value.strip("\"'") for name, value in pairs}
    families = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".split()
    known = {
        "debian": Manager.APT,
        "ubuntu": Manager.APT,
        "fedora": Manager.DNF,
        "rhel": Manager.DNF,
        "arch": Manager.PACMAN,
    }
    for family in families:
        if family in known:
            return known[family]
    return next((manager for manager in Manager if find_program(manager)), None)


NEEDS: tuple[Need, ...] = (
    Need(
        name="qemu", why="runs the machines", programs=("qemu-system-x86_64",),
        oldest=(7, 2),  # -netdev stream
        packages={Manager.APT: "qemu-system-x86", Manager.DNF: "qemu-system-x86-core",
                  Manager.PACMAN: "qemu-system-x86", Manager.BREW: "qemu"},
    ),
    Need(
        name="qemu-img", why="makes disks, and changes what is on them", programs=("qemu-img", "qemu-nbd"),
        packages={Manager.APT: "qemu-utils", Manager.DNF: "qemu-img", Manager.PACMAN: "qemu-img", Manager.BREW: "qemu"},
    ),
    Need(
        name="firmware", why="the UEFI firmware of the machines",
        files=("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_CODE.fd",
               "/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/opt/homebrew/share/qemu/edk2-x86_64-code.fd",
               "/usr/local/share/qemu/edk2-x86_64-code.fd"),
        packages={Manager.APT: "ovmf", Manager.DNF: "edk2-ovmf", Manager.PACMAN: "edk2-ovmf", Manager.BREW: "qemu"},
    ),
    Need(
        name="mmdebstrap", why="builds root filesystems", programs=("mmdebstrap",),
        packages={Manager.APT: "mmdebstrap", Manager.DNF: "mmdebstrap"},
    ),
    Need(
        name="archive keys", why="checks the signatures of Debian's archive",
        files=("/usr/share/keyrings/debian-archive-keyring.gpg",),
        packages={Manager.APT: "debian-archive-keyring", Manager.DNF: "debian-keyring",
                  Manager.PACMAN: "debian-archive-keyring"},
    ),
    Need(
        name="uidmap", why="lets an ordinary user build root filesystems", programs=("newuidmap", "newgidmap"),
        packages={Manager.APT: "uidmap", Manager.DNF: "shadow-utils", Manager.PACMAN: "shadow"}, as_user=True,
    ),
    Need(
        name="e2fsprogs", why="makes ext4 file systems", programs=("mke2fs",),
        packages={Manager.APT: "e2fsprogs", Manager.DNF: "e2fsprogs", Manager.PACMAN: "e2fsprogs",
                  Manager.BREW: "e2fsprogs"},
    ),
    Need(
        name="ssh", why="the way into the machines", programs=("ssh", "ssh-keygen", "scp"),
        packages={Manager.APT: "openssh-client", Manager.DNF: "openssh-clients", Manager.PACMAN: "openssh",
                  Manager.BREW: "openssh"},
    ),
    Need(
        name="libarchive", why="reads archives and discs",
        files=("/usr/lib/x86_64-linux-gnu/libarchive.so.13", "/usr/lib/aarch64-linux-gnu/libarchive.so.13",
               "/usr/lib64/libarchive.so.13", "/usr/lib/libarchive.so.13",
               "/opt/homebrew/opt/libarchive/lib/libarchive.dylib", "/usr/local/opt/libarchive/lib/libarchive.dylib"),
        packages={Manager.APT: "libarchive13", Manager.DNF: "libarchive", Manager.PACMAN: "libarchive",
                  Manager.BREW: "libarchive"},
    ),
    Need(
        name="7-Zip", why="reads discs that are UDF only", programs=("7zz",),
        packages={Manager.APT: "7zip", Manager.DNF: "7zip-standalone-all", Manager.PACMAN: "7zip",
                  Manager.BREW: "sevenzip"},
    ),
    Need(
        name="squashfs-tools-ng", why="reads the file systems on live discs", programs=("sqfs2tar",),
        packages={Manager.APT: "squashfs-tools-ng", Manager.DNF: "squashfs-tools-ng",
                  Manager.PACMAN: "squashfs-tools-ng", Manager.BREW: "squashfs"},
    ),
    Need(
        name="gpgv", why="checks the signatures of distributions", programs=("gpgv",),
        packages={Manager.APT: "gpgv", Manager.DNF: "gnupg2", Manager.PACMAN: "gnupg", Manager.BREW: "gnupg"},
    ),
    Need(
        name="tar", why="unpacks what is built", programs=("tar",),
        packages={Manager.APT: "tar", Manager.DNF: "tar", Manager.PACMAN: "tar"},
    ),
    Need(
        name="unshare", why="separates what is built from the host", programs=("unshare",),
        packages={Manager.APT: "util-linux", Manager.DNF: "util-linux", Manager.PACMAN: "util-linux"},
    ),
    Need(
        name="dnsmasq", why="host mode, tests: DHCP, TFTP and DNS", programs=("dnsmasq",), for_tests=True,
        for_host_mode=True,
        packages={Manager.APT: "dnsmasq-base", Manager.DNF: "dnsmasq", Manager.PACMAN: "dnsmasq",
                  Manager.BREW: "dnsmasq"},
    ),
    Need(
        name="nginx", why="host mode, tests: the web server", programs=("nginx",), for_tests=True, for_host_mode=True,
        packages={Manager.APT: "nginx-light", Manager.DNF: "nginx-core", Manager.PACMAN: "nginx",
                  Manager.BREW: "nginx"},
        services=("nginx.service",),
    ),
    Need(
        name="swtpm", why="machines with a TPM (vm.create --tpm), tests", programs=("swtpm",), for_tests=True,
        packages={Manager.APT: "swtpm", Manager.DNF: "swtpm", Manager.PACMAN: "swtpm", Manager.BREW: "swtpm"},
    ),
    Need(
        name="secure firmware", why="machines with Secure Boot (vm.create --secure-boot), tests", for_tests=True,
        files=("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_CODE.ms.fd",
               "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd"),
        packages={Manager.APT: "ovmf", Manager.DNF: "edk2-ovmf"},
    ),
    Need(
        name="qemu for arm64", why="machines of arm64 (vm.create --arch aarch64), tests", for_tests=True,
        programs=("qemu-system-aarch64",),
        packages={Manager.APT: "qemu-system-arm", Manager.DNF: "qemu-system-aarch64-core",
                  Manager.PACMAN: "qemu-system-aarch64", Manager.BREW: "qemu"},
    ),
    Need(
        name="firmware for arm64", why="machines of arm64 (vm.create --arch aarch64), tests", for_tests=True,
        files=("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_CODE.fd",
               "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw", "/usr/share/edk2/aarch64/QEMU_CODE.fd",
               "/opt/homebrew/share/qemu/edk2-aarch64-code.fd", "/usr/local/share/qemu/edk2-aarch64-code.fd"),
        packages={Manager.APT: "qemu-efi-aarch64", Manager.DNF: "edk2-aarch64", Manager.PACMAN: "edk2-aarch64",
                  Manager.BREW: "qemu"},
    ),
    Need(
        name="zstd", why="tests: reads our archives with another's eyes", programs=("zstd",), for_tests=True,
        packages={Manager.APT: "zstd", Manager.DNF: "zstd", Manager.PACMAN: "zstd", Manager.BREW: "zstd"},
    ),
    Need(
        name="zsh", why="tests: its completion", programs=("zsh",), for_tests=True,
        packages={Manager.APT: "zsh", Manager.DNF: "zsh", Manager.PACMAN: "zsh", Manager.BREW: "zsh"},
    ),
    Need(
        name="fish", why="tests: its completion", programs=("fish",), for_tests=True,
        packages={Manager.APT: "fish", Manager.DNF: "fish", Manager.PACMAN: "fish", Manager.BREW: "fish"},
    ),
    Need(
        name="strace", why="tests: what reaches the disk, and in which order", programs=("strace",), for_tests=True,
        packages={Manager.APT: "strace", Manager.DNF: "strace", Manager.PACMAN: "strace"},
    ),
    Need(
        name="xorriso", why="tests: makes discs as distributions do", programs=("xorriso",), for_tests=True,
        packages={Manager.APT: "xorriso", Manager.DNF: "xorriso", Manager.PACMAN: "libisoburn",
                  Manager.BREW: "xorriso"},
    ),
    Need(
        name="squashfs-tools", why="tests: makes the file systems of live discs", programs=("mksquashfs", "unsquashfs"),
        for_tests=True,
        packages={Manager.APT: "squashfs-tools", Manager.DNF: "squashfs-tools", Manager.PACMAN: "squashfs-tools",
                  Manager.BREW: "squashfs"},
    ),
    Need(
        name="xfsprogs", why="tests: makes cloud images", programs=("mkfs.xfs",), for_tests=True,
        packages={Manager.APT: "xfsprogs", Manager.DNF: "xfsprogs", Manager.PACMAN: "xfsprogs"},
    ),
    Need(
        name="btrfs-progs", why="tests: makes cloud images", programs=("mkfs.btrfs",), for_tests=True,
        packages={Manager.APT: "btrfs-progs", Manager.DNF: "btrfs-progs", Manager.PACMAN: "btrfs-progs"},
    ),
    Need(
        name="dosfstools", why="tests: makes cloud images", programs=("mkfs.vfat",), for_tests=True,
        packages={Manager.APT: "dosfstools", Manager.DNF: "dosfstools", Manager.PACMAN: "dosfstools"},
    ),
    Need(
        name="gnupg", why="tests: signs with a throw-away key", programs=("gpg",), for_tests=True,
        packages={Manager.APT: "gnupg", Manager.DNF: "gnupg2", Manager.PACMAN: "gnupg", Manager.BREW: "gnupg"},
    ),
    Need(
        name="kmod", why="tests: another eye on the index of modules", programs=("depmod", "modprobe"), for_tests=True,
        packages={Manager.APT: "kmod", Manager.DNF: "kmod", Manager.PACMAN: "kmod"},
    ),
    Need(
        name="openssl", why="tests: a mirror with a certificate of its own", programs=("openssl",), for_tests=True,
        packages={Manager.APT: "openssl", Manager.DNF: "openssl", Manager.PACMAN: "openssl", Manager.BREW: "openssl"},
    ),
    Need(
        name="lz4", why="tests: an archive as few make it", programs=("lz4",), for_tests=True,
        packages={Manager.APT: "lz4", Manager.DNF: "lz4", Manager.PACMAN: "lz4", Manager.BREW: "lz4"},
    ),
    Need(
        name="cpio", why="tests: reads our initrds with another's eyes", programs=("cpio",), for_tests=True,
        packages={Manager.APT: "cpio", Manager.DNF: "cpio", Manager.PACMAN: "cpio"},
    ),
    Need(
        name="sfdisk", why="tests: partitions image files as the installer does", programs=("sfdisk",), for_tests=True,
        packages={Manager.APT: "fdisk", Manager.DNF: "util-linux", Manager.PACMAN: "util-linux"},
    ),
    Need(
        name="docker", why="tests: loads the services container", programs=("dockerd", "docker"), for_tests=True,
        packages={Manager.APT: "docker.io", Manager.DNF: "moby-engine", Manager.PACMAN: "docker"},
        services=("docker.service", "docker.socket", "containerd.service"),
    ),
    Need(
        name="sshd", why="tests: an SSH server to log in to", programs=("sshd",), for_tests=True,
        packages={Manager.APT: "openssh-server", Manager.DNF: "openssh-server", Manager.PACMAN: "openssh",
                  Manager.BREW: "openssh"},
        services=("ssh.service", "ssh.socket"),
    ),
    Need(
        name="iproute2", why="host mode, tests: networks of their own", programs=("ip",), for_tests=True,
        for_host_mode=True,
        packages={Manager.APT: "iproute2", Manager.DNF: "iproute", Manager.PACMAN: "iproute2"},
    ),
)  # fmt: skip


def needs_here(*, for_tests: bool, for_host_mode: bool = False) -> list[Need]:
    """Return the needs that concern this user, with those of the tests or of host mode if asked for.

    Root's tests work as an ordinary user too, so they need what such a one needs.
    """
    as_user = for_tests or os.geteuid() != 0
    return [
        need
        for need in NEEDS
        if (for_tests or not need.for_tests or (for_host_mode and need.for_host_mode)) and (as_user or not need.as_user)
    ]


def unmet(needs: Sequence[Need]) -> list[tuple[Need, str]]:
    """Return the needs that are not met, each with what is wrong."""
    return [(need, problem) for need in needs if (problem := need.problem())]
