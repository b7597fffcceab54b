"""The Debian mirror in apt's source lines, in the pieces that debian-installer asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

_SECURITY_DIRECTORY = "/debian-security"  # debian-installer lets nobody choose another one


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstallerMirror:
    """A mirror.

    :ivar protocol: ``http`` or ``https``. :ivar host: with its port, if it has one.
    :ivar directory: on it, with a leading slash. :ivar suite: code name of the release.
    :ivar security_host: that of the security archive; empty if there is none that debian-installer can use.
    """

    protocol: str
    host: str
    directory: str
    suite: str
    security_host: str = ""

    @property
    def services(self) -> str:
        """What besides the release is installed from: the value of ``apt-setup/services-select``."""
        return "security, updates" if self.security_host else "updates"


def find_mirror(sources: Iterable[str]) -> InstallerMirror | None:
    """Return the mirror that *sources* (one-line style, sources.list(5), without options) name, or None.

    Only one that is reached by HTTP is any: debian-installer can take no other.
    """
    split = [(urlsplit(words[1]), words[2]) for words in map(str.split, sources) if len(words) > 2]
    release = next(((url, suite) for url, suite in split if "-" not in suite and _is_usable(url)), None)
    if release is None:
        return None
    url, suite = release
    security = next((url for url, suite in split if suite.endswith("-security") and _is_usable(url)), None)
    has_security = (
        security is not None and security.scheme == "http" and security.path.rstrip("/") == _SECURITY_DIRECTORY
    )
    return InstallerMirror(
        protocol=url.scheme,
        host=url.netloc,
        directory=url.path.rstrip("/") or "/",
        suite=suite,
        security_host=security.netloc if security is not None and has_security else "",
    )


def _is_usable(url: SplitResult) -> bool:
    return url.scheme in {"http", "https"} and bool(url.netloc) and "@" not in url.netloc
