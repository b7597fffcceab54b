"""Answer files: what the distributions' own installers are told instead of asking a person.

The boot handler serves them below the machine's token (contracts.tokens). A person's own file lies beside the machine's
definition, as ``$PVMLAB_HOME/vms/<name>.answers``.
"""

from __future__ import annotations

from collections.abc import Mapping

from contracts.machine import Installer

OWN_SUFFIX = ".answers"  # of a person's own file, after the machine's name
MAX_OWN_BYTES = 256 * 1024

REPORT = "report.sh"  # a shell script that posts a contracts.report.Report; for every installer
LATE = "late.sh"  # a shell script that makes the account and the host key inside the new system
HOOKS = "hooks.sh"  # a shell script that has debian-installer say how far it is
OWN = "own.cfg"  # a person's own preseed file, which preseed.cfg includes

MAIN: Mapping[Installer, str] = {
    Installer.PRESEED: "preseed.cfg",
    Installer.AUTOINSTALL: "user-data",
    Installer.KICKSTART: "ks.cfg",
}
"""The answer file proper, by installer."""
DOCUMENTS: Mapping[Installer, tuple[str, ...]] = {
    Installer.PVMLAB: (),
    Installer.PRESEED: (MAIN[Installer.PRESEED], OWN, HOOKS, LATE, REPORT),
    Installer.AUTOINSTALL: (MAIN[Installer.AUTOINSTALL], "meta-data", "vendor-data", REPORT),
    Installer.KICKSTART: (MAIN[Installer.KICKSTART], LATE, REPORT),
}
"""All there is to fetch, by installer."""

BOOT_FILES: Mapping[Installer, tuple[str, ...]] = {
    Installer.PVMLAB: (),
    Installer.PRESEED: ("vmlinuz", "initrd"),
    Installer.AUTOINSTALL: ("vmlinuz", "initrd", "install.iso"),
    Installer.KICKSTART: ("vmlinuz", "initrd", "images/install.img"),
}
"""What each installer is made of, under ``images/<distro>/<arch>/native/``: what iPXE loads, then what itself loads."""
IN_MEMORY: Mapping[Installer, str] = {
    Installer.AUTOINSTALL: "install.iso",
    Installer.KICKSTART: "images/install.img",
}
"""The file that an installer keeps in the machine's memory while it runs."""
MEMORY_BESIDES_MIB = 2048
"""Memory that such an installer needs beside that file."""


def stable_answers_path(name: str) -> str:
    """URL path that stands for a machine's answer documents in a person's own file.

    Nothing is served there: in what the machine gets, the path with its token is in its place.
    """
    return f"/answers/{name}/"
