"""Where Debian packages come from: the host's own apt configuration.

No mirror is written down in this project. On a host without apt, ``PVMLAB_DEBIAN_MIRROR`` names one.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import PrerequisiteError
from pipeline.run import find_program, run

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# What of the host's settings concerns the way to the mirror; the rest is the host's business.
_ACQUIRE_SETTING = re.compile(r"Acquire::(?:https?::|Check-|Retries|ForceIPv[46])")


@dataclasses.dataclass(frozen=True)
class Mirror:
    """A Debian mirror.

    :ivar archive: URI of the main archive. :ivar security: URI of the security archive, if the host uses one.
    :ivar options: apt settings to use with it, as ``Name "value"``.
    """

    archive: str
    security: str | None
    options: tuple[str, ...] = ()

    def source_lines(self, suite: str, *, for_host: bool = True) -> list[str]:
        """Return the one-line-style apt sources of *suite*, with its updates (sources.list(5)).

        :param for_host: name the keyring that must have signed them, if this host has it; else a system's own is meant.
        """
        signed_by = f"[signed-by={_KEYRING}] " if for_host and _KEYRING.exists() else ""
        lines = [f"deb {signed_by}{self.archive} {name} main" for name in (suite, f"{suite}-updates")]
        if self.security is not None:
            lines.append(f"deb {signed_by}{self.security} {suite}-security main")
        return lines


def host_mirror() -> Mirror:
    """Return the mirror the host's apt uses for Debian, or the one ``PVMLAB_DEBIAN_MIRROR`` names.

    :raises PrerequisiteError: if there is neither.
    """
    if named := os.environ.get("PVMLAB_DEBIAN_MIRROR"):
        return Mirror(named, os.environ.get("PVMLAB_DEBIAN_SECURITY_MIRROR"), _host_options())
    if find_program("apt-get"):
        targets = run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(REPO_URI)", "Created-By: Packages"],
            timeout=60,
        ).stdout.splitlines()
        if mirror := parse_index_targets(targets):
            security = mirror.security or _unfetched_security_archive(targets)
            return dataclasses.replace(mirror, security=security, options=_host_options())
    raise PrerequisiteError(
        "no Debian mirror is known",
        details="the host's apt configuration names no Debian archive (or its lists were never fetched)",
        resolution="run `apt-get update`, or set PVMLAB_DEBIAN_MIRROR to the URI of a Debian mirror",
    )


def parse_index_targets(lines: Iterable[str]) -> Mirror | None:
    """Return the mirror named by ``apt-get indextargets`` lines ``origin|codename|uri``, or None."""
    archive = security = None
    for line in lines:
        origin, codename, uri = line.split("|", 2)
        if origin != "Debian":
            continue
        if codename.endswith("-security"):
            security = security or uri.rstrip("/")
        elif "-" not in codename:
            archive = archive or uri.rstrip("/")
    return Mirror(archive, security) if archive else None


def parse_release_addresses(addresses: str, codenames: Iterable[str]) -> str | None:
    """Return the security archive of a release *codenames* names, out of ``apt-get update --print-uris``."""
    for codename in codenames:
        if match := re.search(rf"^'(\S+)/dists/{re.escape(codename)}-security/InRelease' ", addresses, re.MULTILINE):
            return match[1]
    return None


def _unfetched_security_archive(targets: Iterable[str]) -> str | None:
    """Return the security archive if one is configured that apt has no list of: then it cannot tell it is Debian's.

    Without it, a host that fetched only half of its lists would silently build systems without security updates.
    """
    codenames = sorted({line.split("|")[1] for line in targets if line.startswith("Debian|")})
    return parse_release_addresses(run(["apt-get", "update", "--print-uris"], timeout=60).stdout, codenames)


def _host_options() -> tuple[str, ...]:
    if not find_program("apt-config"):
        return ()
    dump = run(["apt-config", "dump"], timeout=60).stdout.splitlines()
    return tuple(line.rstrip(";") for line in dump if _ACQUIRE_SETTING.match(line) and not line.endswith(' "";'))
