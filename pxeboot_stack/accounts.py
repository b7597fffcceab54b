"""The accounts that the services give up root to: in the container Debian's, in host mode those that the host has."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Sequence

DNSMASQ = ("dnsmasq", "nobody")
# Of Debian and Ubuntu; Fedora, RHEL and openSUSE; Arch; and what every system has.
NGINX = ("www-data", "nginx", "http", "nobody")
_NO_GROUP = "nogroup"  # Debian's, of whoever has no group; on others the account's own group does


class NoAccountError(ValueError):
    """A service has no account to run as."""

    def __init__(self, service: str, names: Sequence[str]) -> None:
        super().__init__(
            f"this system has no account for {service}, none of {', '.join(names)}: "
            f"useradd --system --no-create-home {names[0]} makes one"
        )


def find_dnsmasq_account() -> tuple[str, str]:
    """Return user and group for dnsmasq, which looks both up even if it cannot change to them.

    :raises NoAccountError: if there is no such user.
    """
    user = _find_user("dnsmasq", DNSMASQ)
    return user.pw_name, _NO_GROUP if _has_group(_NO_GROUP) else _group_of(user)


def find_nginx_account() -> str:
    """Return what nginx's directive ``user`` gets: a user, and its group unless that has the same name.

    :raises NoAccountError: if there is no such user.
    """
    user = _find_user("nginx", NGINX)
    group = _group_of(user)
    return user.pw_name if group == user.pw_name else f"{user.pw_name} {group}"


def _find_user(service: str, names: Sequence[str]) -> pwd.struct_passwd:
    for name in names:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoAccountError(service, names)


def _group_of(user: pwd.struct_passwd) -> str:
    """Return the name of the user's group; its number if it has no name."""
    try:
        return grp.getgrgid(user.pw_gid).gr_name
    except KeyError:
        return str(user.pw_gid)


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
