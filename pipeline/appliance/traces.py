"""What a published image carries that a machine installed from it must not: identities, and states of a first boot."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator

from pipeline.media.member import Member, MemberKind

# Emptied, not removed: systemd takes an empty one for "not yet set", a missing one on a read-only /etc for a fault
# (machine-id(5)). Our installer writes it anew; a root filesystem that somebody else unpacks is right as well.
_EMPTIED = frozenset({"etc/machine-id"})
# One member each, or a folder whose content goes while it stays itself.
_LEFT_OUT = re.compile(
    r"etc/ssh/ssh_host_[^/]+"
    r"|var/lib/dbus/machine-id"
    r"|var/lib/systemd/(?:random-seed|credential\.secret)"
    r"|var/lib/cloud/(?:data|instances|sem)/.+|var/lib/cloud/instance"
    r"|var/lib/NetworkManager/(?:secret_key|timestamps|.*\.lease)"
    r"|var/lib/dhcp(?:client)?/.*\.leases?"
    r"|root/\.ssh/authorized_keys|root/\.bash_history|root/\.ash_history"
)


def without_traces(members: Iterable[Member]) -> Iterator[Member]:
    """Yield *members* without what belongs to the one machine that the image was made on or booted on."""
    for member in members:
        if member.path in _EMPTIED and member.kind is MemberKind.FILE:
            yield dataclasses.replace(member, size=0, content=())
        elif not _LEFT_OUT.fullmatch(member.path):
            yield member
