"""The one-time token of a machine's boot, and the URL paths below it.

Whoever knows the token and asks from the machine's reserved address is taken for the machine: the boot handler makes
one with each boot script that leads to an install, and it is worth nothing any more when that install has ended.
"""

from __future__ import annotations

import re

TOKEN = re.compile(r"[0-9a-f]{32}\Z")  # 128 random bits
RECORDS = "_tokens"
"""Folder in the status directory: what the boot handler keeps of the tokens. An underscore is in no machine's name."""


def record_name(uuid: str) -> str:
    """Return the name of the file in :data:`RECORDS` that is about the token of the machine *uuid*."""
    return f"{uuid}.json"


def machine_path(token: str) -> str:
    """URL path below which a machine finds what is for it alone, with the final slash."""
    return f"/m/{token}/"


def config_path(token: str) -> str:
    """URL path of a machine's :class:`contracts.install.InstallerConfig`."""
    return f"{machine_path(token)}config"


def report_path(token: str) -> str:
    """URL path to which a machine posts its :class:`contracts.report.Report`."""
    return f"{machine_path(token)}report"


def seed_path(token: str) -> str:
    """URL path of a machine's NoCloud documents, with the final slash that NoCloud wants."""
    return f"{machine_path(token)}cloud-init/"


def answers_path(token: str) -> str:
    """URL path of a machine's answer documents, with the final slash that autoinstall wants."""
    return f"{machine_path(token)}answers/"


def ignition_path(token: str) -> str:
    """URL path of a machine's Ignition configuration, for the kernel argument ``ignition.config.url``."""
    return f"{machine_path(token)}ignition"


PLACEHOLDER = "TOKEN"
"""What stands where a token would, in documents that are shown to people or only tried out. No token looks like it."""
_ANYWHERE = re.compile(r"(?<![0-9a-f-])[0-9a-f]{32}(?![0-9a-f])")


def mask(text: str) -> str:
    """Return *text* without the tokens in it: for logs, consoles and timelines. Digests and UUIDs stay."""
    return _ANYWHERE.sub(PLACEHOLDER, text)
