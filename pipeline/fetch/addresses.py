"""Addresses of downloads: which ones are asked at all, how far inside they lead, and how they are told to people."""

from __future__ import annotations

import enum
import ipaddress
import re
import urllib.parse

from pipeline.errors import UsageError

_SCHEMES = ("http", "https")
_LONGEST = 4096  # characters
# A browser takes a backslash for a slash and drops white space; what parsers disagree about is not asked.
_ODD = re.compile(r"[\x00-\x20\x7f\\]")
_ADDRESSED = re.compile(r"(?:\[[0-9A-Fa-f:.%]*\]|[^:]*)(?::\d*)?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes


class Reach(enum.IntEnum):
    """How far inside an address lies."""

    PUBLIC = 0
    PRIVATE = 1  # RFC 1918, RFC 4193, and all else that is not routed globally
    HOST = 2  # loopback, the link (among it the metadata service of clouds), no address at all

    @classmethod
    def of(cls, address: str) -> Reach:
        """Return the reach of an IP address.

        :raises ValueError: if it is none.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address):
            inner = ip.ipv4_mapped or ip.sixtofour
            if ip in _NAT64:
                inner = ipaddress.IPv4Address(ip.packed[-4:])
            if inner is not None:
                return cls.of(str(inner))
        if ip.is_loopback or ip.is_link_local or ip.is_unspecified:
            return cls.HOST
        return cls.PUBLIC if ip.is_global and not ip.is_multicast else cls.PRIVATE


def reach_of_name(url: str) -> Reach:
    """Return the reach of the host in *url* as far as its name tells it; a name that does not is public."""
    host = (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761
        return Reach.HOST
    try:
        return Reach.of(host)
    except ValueError:
        # 0177.1, 2130706433, 0x7f.1: the C library takes them for IPv4 addresses, nobody publishes media there
        return Reach.HOST if re.fullmatch(r"[0-9.]+|0x[0-9a-fx.]*", host) else Reach.PUBLIC


def require_url(url: str) -> str:
    """Return *url* if it is one that can be asked for: http or https, a host, nothing that parsers disagree about.

    :raises UsageError: if it is not.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        why = "it cannot be read as one"
    else:
        if len(url) > _LONGEST or _ODD.search(url):
            why = "it is too long" if len(url) > _LONGEST else "there is white space, a backslash or a control in it"
        elif parts.scheme.lower() not in _SCHEMES:
            why = f"its scheme is {parts.scheme[:20]!r}: only http and https are asked"
        elif not parts.hostname or port == 0:
            why = "it names no host or no port"
        else:
            return url
    raise UsageError(f"{scrubbed(url)!r} is no address to download from", details=why)


def scrubbed(url: str) -> str:
    """Return *url* as it may be told and kept: without user, password, query and fragment, which can be secrets."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if _ADDRESSED.fullmatch(host) is None:  # user:pass#word@host has no host but what looks like one
            host = "..."
    except ValueError:
        return "(an address that cannot be read)"
    query = "?..." if parts.query else ""
    text = f"{parts.scheme}://{host}{parts.path}" if parts.netloc else f"{parts.scheme}:..."
    return _ODD.sub("_", text[:_LONGEST]) + query


def is_plain(url: str) -> bool:
    """Return whether *url* holds nothing that :func:`scrubbed` takes away."""
    return scrubbed(url) == url
