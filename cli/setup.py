"""``./pvmlab setup``: installs the system packages that are missing, after saying which and why.

The only verb that changes the host outside the cache and the lab's home. Runs before ``.venv`` exists too (it
installs Python's venv module where Debian has split it off), so it uses the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli.host_packages import Manager, Need, find_manager, needs_here, unmet
from cli.output import say
from pipeline.errors import CommandError, PrerequisiteError
from pipeline.run import attach, find_program, run

INSTALL_TIMEOUT = 1800.0  # seconds; QEMU and Docker are some 250 MB to fetch and unpack
_LISTS = Path("/var/lib/apt/lists")
# Maintainer scripts ask this program before they start a service; ours says no. Only there while we install.
_POLICY = Path("/usr/sbin/policy-rc.d")
_OUR_POLICY = Path(__file__).with_name("policy-rc.d")
_UNITS = Path("/usr/lib/systemd/system")


def setup(*, for_tests: bool, for_host_mode: bool = False) -> None:
    """Install what is missing on this host. Costs milliseconds if nothing is.

    :param for_tests: also what only the tests need. :param for_host_mode: also what a provisioner in host mode needs.
    :raises PrerequisiteError: if it cannot be installed from here; the resolution is the command for a person.
    """
    missing = unmet(needs_here(for_tests=for_tests, for_host_mode=for_host_mode))
    if not missing:
        _ensure_apt_lists()
        return
    manager = find_manager()
    details = "\n".join(f"{need.name} ({need.why}): {problem}" for need, problem in missing)
    if manager is None:
        raise PrerequisiteError(
            "system packages are missing", details=details, resolution="install them, then try again"
        )
    packages = sorted({need.packages[manager] for need, _ in missing if manager in need.packages})
    strangers = [need.name for need, _ in missing if manager not in need.packages]
    if manager is not Manager.APT or strangers:
        advice = manager.advice(packages) if packages else f"{manager} has no package for them"
        if packages and strangers:
            advice += f"; {manager} has no package for {', '.join(strangers)}"
        raise PrerequisiteError("system packages are missing", details=details, resolution=advice)
    say("missing on this host:\n  " + details.replace("\n", "\n  "))
    install_packages(packages, reason="", services=[unit for need, _ in missing for unit in need.services])
    _verify([need for need, _ in missing])


def install_packages(packages: Sequence[str], *, reason: str, services: Sequence[str] = ()) -> None:
    """Install Debian *packages* without starting or enabling their *services*.

    :param reason: said with what is done, as ``to make .venv``.
    :raises PrerequisiteError: if this user may not; the resolution is the command for a person.
    :raises CommandError: if apt fails.
    """
    _require_root_access(packages)
    how = "" if os.geteuid() == 0 else " with sudo"
    say(f"installing{how}{f' {reason}' if reason else ''}: {' '.join(packages)}")
    if services:
        say(f"  (their services stay off: {' '.join(services)})")
    with _services_kept_off(services):
        try:
            _apt(Manager.APT.install_command(packages)[1:])
        except CommandError:  # a fresh system has no lists yet, an old one has outdated ones
            _apt(["update"])
            _apt(Manager.APT.install_command(packages)[1:])


@contextlib.contextmanager
def _services_kept_off(services: Sequence[str]) -> Iterator[None]:
    """Install in this block: the new *services* are neither started now nor at the next boot."""
    if not services:
        yield
        return
    # An administrator's policy stays. One of ours was left by a setup that was killed.
    ours = not _POLICY.exists() or _POLICY.read_bytes() == _OUR_POLICY.read_bytes()
    try:
        if ours:
            as_root(["install", "--mode=0755", str(_OUR_POLICY), str(_POLICY)])
        yield
        units = [unit for unit in services if (_UNITS / unit).exists()]
        if units and find_program("systemctl"):
            as_root(["systemctl", "--quiet", "disable", *units])
    finally:
        if ours:
            as_root(["rm", "--force", str(_POLICY)])


def _verify(needs: Sequence[Need]) -> None:
    still = unmet(needs)
    if still:
        raise PrerequisiteError(
            "the packages are installed, and something is still missing",
            details="\n".join(f"{need.name}: {problem}" for need, problem in still),
            resolution="./pvmlab doctor shows all that was looked for",
        )
    say("the host has all that is needed")


def _ensure_apt_lists() -> None:
    """Fetch apt's package lists if there are none: builds read off them where Debian's packages come from."""
    if find_program("apt-get") is None or os.environ.get("PVMLAB_DEBIAN_MIRROR"):
        return
    if not any(_LISTS.glob("*Release")):
        say("fetching apt's package lists (there are none yet)")
        _require_root_access([])
        _apt(["update"])


def _apt(arguments: Sequence[str]) -> None:
    # Lock::Timeout: wait for another apt at work instead of failing
    as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--option=DPkg::Lock::Timeout=600", *arguments])


def _require_root_access(packages: Sequence[str]) -> None:
    if os.geteuid() == 0 or (find_program("sudo") and (_sudo_is_silent() or sys.stdin.isatty())):
        return
    command = ["apt-get", *(Manager.APT.install_command(packages)[1:] if packages else ["update"])]
    raise PrerequisiteError(
        "system packages are missing, and installing them needs root",
        details="this user has no sudo, or sudo would ask for a password and there is no terminal to ask on",
        resolution=f"as root: {shlex.join(command)}",
    )


def _sudo_is_silent() -> bool:
    return run(["sudo", "--non-interactive", "true"], timeout=60, check=False).returncode == 0


def as_root(argv: Sequence[str]) -> None:
    """Run a command as root: directly, or by sudo, which may ask for the password on our terminal.

    :raises CommandError: if it fails.
    """
    if os.geteuid() == 0:
        run(argv, timeout=INSTALL_TIMEOUT, network=True)
    elif _sudo_is_silent():
        run(["sudo", "--non-interactive", *argv], timeout=INSTALL_TIMEOUT, network=True)
    elif (status := attach(["sudo", *argv])) != 0:
        raise CommandError(
            ["sudo", *argv], returncode=status, tail=(), log=None, how=f"failed with exit status {status}, see above"
        )
