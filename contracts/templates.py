"""The documents a person may write templates for, and where the templates lie.

``$PVMLAB_HOME/templates/<what>.j2`` is for all machines, ``<machine>.<what>.j2`` for one. A machine's name has no dot,
so no file can be taken for both.
"""

from __future__ import annotations

import enum

from contracts.machine import Installer

SUFFIX = ".j2"
MAX_TEMPLATE_BYTES = 256 * 1024


class What(enum.StrEnum):
    """A document of a machine that a person's template may make."""

    IPXE = "ipxe"  # the boot script of a machine that is not installed
    USER_DATA = "user-data"
    META_DATA = "meta-data"
    NETWORK_CONFIG = "network-config"
    VENDOR_DATA = "vendor-data"
    AUTOINSTALL = "autoinstall"  # the user-data of Ubuntu's installer
    PRESEED = "preseed"
    KICKSTART = "kickstart"
    IGNITION = "ignition"

    @property
    def is_seed(self) -> bool:
        """Whether it is a NoCloud document of the installed system."""
        return self in {What.USER_DATA, What.META_DATA, What.NETWORK_CONFIG, What.VENDOR_DATA}


def answers_of(installer: Installer) -> What | None:
    """Return what the answer file proper of *installer* is called as a template; None for pvmlab's own."""
    return What(str(installer)) if installer.is_native else None


def template_names(machine: str, what: What) -> tuple[str, str]:
    """Return the file names of the templates that may be used, the first that is there counts."""
    return f"{machine}.{what}{SUFFIX}", f"{what}{SUFFIX}"
