"""The one-time token of a machine's boot, and the URL paths below it.

Whoever knows the token and asks from the machine's reserved address is taken for the machine: the boot handler makes
one with each boot script that leads to an install, and it is worth nothing any more when that install has ended.
"""

from __future__ import annotations

import dataclasses
import re

TOKEN = re.compile(r"[0-9a-f]{32}\Z")  # 128 random bits
RECORDS = "_tokens"
"""Folder in the status directory: what the boot handler keeps of the tokens. An underscore is in no machine's name."""
LIFETIME = 24 * 3600.0  # seconds; an emulated install by a distribution's own installer takes hours


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """A document that was handed out. :ivar time: when first, in seconds."""

    document: str
    time: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is kept of a token, in the file :func:`record_name`.

    :ivar uuid: the machine's. :ivar digest: SHA-256 of the token, hex. :ivar issued: seconds, by the store's clock.
    :ivar ended: when the install ended, or None. :ivar given: what was handed out.
    """

    uuid: str
    digest: str
    issued: float
    ended: float | None = None
    given: tuple[Given, ...] = ()


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
