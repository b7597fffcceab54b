"""What the host tells the provisioner: its kernel arguments, and ``config/provisioner.env`` for its boot scripts."""

from __future__ import annotations

import re

from contracts.lan import Lan

# Kernel arguments, besides console=. The guest runs our own software only: no mitigations, no security modules.
KERNEL_ARGUMENTS = (
    "root=/dev/vda", "rw", "quiet", "mitigations=off", "apparmor=0", "selinux=0", "audit=0", "nowatchdog",
    "systemd.gpt_auto=no", "systemd.ssh_auto=no",  # generators that look for what is not there
)  # fmt: skip

_BOOT_ID = re.compile(r"[0-9a-f]{8,64}\Z")


def render_provisioner_env(lan: Lan, boot_id: str) -> str:
    """Return ``provisioner.env``, one ``NAME=value`` a line, values without spaces and quotes.

    :param boot_id: the content of ``config/boot_id``: tells one start of the provisioner from another.
    :raises ValueError: if *boot_id* is not 8 to 64 lower-case hex digits.
    """
    if not _BOOT_ID.match(boot_id):
        raise ValueError(f"boot id {boot_id!r} is not 8 to 64 lower-case hex digits")
    return (
        f"LAN_ADDRESS={lan.provisioner_interface}\n"
        f"LAN_ADDRESS_IPV6={lan.provisioner_interface_ipv6}\n"  # empty without IPv6
        f"LAN_SUBNET={lan.subnet}\n"
        f"PROVISIONER_IP={lan.provisioner}\n"
        f"BOOT_ID={boot_id}\n"
    )
