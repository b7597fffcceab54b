"""``./pvmlab doctor``: what this host has and lacks, and the command that repairs each finding.

It changes nothing; ``--fix`` is :mod:`cli.doctor_repairs`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import platform
import pwd
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.failures import describe
from cli.host_packages import NEEDS, Manager, Need, find_manager, needs_here, program_version
from cli.output import emit, require_format
from contracts.arch import Arch
from pipeline.errors import ExitCode, MissingProgramError, PvmlabError
from pipeline.run import find_program, run
from pipeline.workspace import Home, Workspace

GIB = 1024**3
CACHE_SPACE = 4 * GIB  # all artifacts of one distribution, and the scratch space to make them
HOME_SPACE = 2 * GIB  # the overlays of a provisioner and one installed machine
MEMORY = 3 * GIB  # both machines' processes, and something for the host
_SUBORDINATE_IDS = 65536


class State(enum.StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"  # works, but worse; or only the tests need it
    MISSING = "missing"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    :ivar repair: the command that repairs it, or what to do; empty if nothing is to be done.
    """

    name: str
    state: State
    found: str
    repair: str = ""


def doctor(*, output: str, fix: bool = False, yes: bool = False) -> ExitCode:
    """Print the report; return 5 if something is missing that the lab cannot work without.

    :param fix: carry out what can be repaired, then look again. :param yes: do not ask before changing the host.
    :raises UsageError: for an unknown *output*.
    """
    require_format(output)
    findings, fixed = list(examine(Workspace.from_environment())), list[str]()
    if fix:
        from cli.doctor_repairs import carry_out, plan_repairs

        fixed = carry_out(plan_repairs(findings), yes=yes)
        findings = list(examine(Workspace.from_environment())) if fixed else findings
    healthy = all(finding.state is not State.MISSING for finding in findings)
    rows = [(finding.name, finding.state.value, finding.found, finding.repair) for finding in findings]
    data = {"healthy": healthy, "findings": findings} | ({"fixed": fixed} if fix else {})
    emit(data, output=output, table=[("CHECK", "STATE", "FOUND", "REPAIR"), *rows])
    return ExitCode.DONE if healthy else ExitCode.PREREQUISITE


def examine(workspace: Workspace) -> Iterator[Finding]:
    """Look at everything, one finding each."""
    yield Finding("python", State.OK, f"{platform.python_version()} ({sys.prefix})")
    manager = find_manager()
    for need in NEEDS:
        if need in needs_here(for_tests=True):
            yield examine_need(need, manager)
    yield examine_accelerator()
    yield examine_mirror()
    if os.geteuid() != 0:
        yield examine_account(os.geteuid())
        yield examine_user_namespace()
    yield examine_place("cache", workspace.cache.root, CACHE_SPACE, variable="PVMLAB_CACHE")
    yield examine_place("home", workspace.home.root, HOME_SPACE, variable="PVMLAB_HOME")
    yield examine_memory(Path("/proc/meminfo"))
    yield examine_loopback()
    yield examine_privacy(workspace.home)
    yield examine_leftovers()


def examine_need(need: Need, manager: Manager | None) -> Finding:
    """Look for a program or a file."""
    problem = need.problem()
    if problem is None:
        return Finding(need.name, State.OK, _what_is_there(need))
    state = State.WARNING if need.for_tests else State.MISSING
    if manager is None or need.packages.get(manager) is None:
        return Finding(
            need.name, state, f"{problem} ({need.why})", "install it by hand: no package of it is known here"
        )
    return Finding(need.name, state, f"{problem} ({need.why})", manager.advice([need.packages[manager]]))


def _what_is_there(need: Need) -> str:
    if need.programs:
        version = program_version(need.programs[0]) if need.oldest else None
        return f"{find_program(need.programs[0])}{f' {version[0]}.{version[1]}' if version else ''}"
    return next(file for file in need.files if Path(file).exists())


def examine_accelerator() -> Finding:
    """Probe how guests would run. A short boot: the device file alone proves nothing."""
    from lab.accelerator import choose_accelerator
    from lab.spec import AcceleratorKind

    try:
        with tempfile.TemporaryDirectory() as state:  # a fresh probe, that leaves nothing behind
            chosen = choose_accelerator(Arch.of_host(), state=Path(state))
    except (PvmlabError, ValueError) as error:
        return Finding("accelerator", State.MISSING, str(error), "./pvmlab setup")
    if chosen.kind is AcceleratorKind.TCG:
        hint = "the lab works, some 5 to 10 times slower; for KVM: a host with virtualisation and access to /dev/kvm"
        return Finding("accelerator", State.WARNING, f"{chosen.kind}: {chosen.reason}", hint)
    return Finding("accelerator", State.OK, f"{chosen.kind}: {chosen.reason}")


def examine_mirror() -> Finding:
    """Find where Debian's packages come from."""
    from pipeline.debian.apt_sources import host_mirror

    try:
        return Finding("debian mirror", State.OK, host_mirror().archive)
    except PvmlabError as error:
        return Finding("debian mirror", State.MISSING, error.details or error.brief, error.resolution)


def examine_account(uid: int) -> Finding:
    """Look for the account of an ordinary user, then for what it may."""
    try:
        return examine_subordinate_ids(pwd.getpwuid(uid).pw_name)
    except KeyError:  # as in a container that was started for any user id
        return Finding(
            "account", State.MISSING, f"the user id {uid} has no account", f"as root: useradd --uid {uid} NAME"
        )


def examine_subordinate_ids(user: str, *, folder: Path = Path("/etc")) -> Finding:
    """Look for the user and group ids that an ordinary user may give to files of a root filesystem."""
    repair = f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
    for name in ("subuid", "subgid"):
        path = folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        fields = [line.split(":") for line in lines]
        if not any(len(f) == 3 and f[0] == user and f[2].isdigit() and int(f[2]) >= _SUBORDINATE_IDS for f in fields):
            found = f"{path} gives {user} fewer than {_SUBORDINATE_IDS} ids"
            return Finding("subordinate ids", State.MISSING, found, repair)
    return Finding("subordinate ids", State.OK, f"{folder}/subuid and {folder}/subgid")


def examine_user_namespace() -> Finding:
    """Try to make a user namespace, as mmdebstrap does for an ordinary user."""
    try:
        tried = run(["unshare", "--user", "--map-root-user", "true"], timeout=60, check=False)
    except MissingProgramError as error:
        return Finding("user namespaces", State.MISSING, error.brief, "see above, unshare")
    if tried.returncode == 0:
        return Finding("user namespaces", State.OK, "allowed")
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text().strip() == "1":
        repair = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    else:
        repair = "sudo sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000"
    return Finding("user namespaces", State.MISSING, tried.stderr.strip(), repair)


def examine_place(name: str, path: Path, wanted: int, *, variable: str) -> Finding:
    """Look at a folder we write to, or the parent it would be made in: may we, and is there room?

    :param wanted: bytes.
    """
    existing = next(folder for folder in (path, *path.parents) if _is_seen(folder))
    move = f"set {variable} to a folder of yours with {wanted // GIB} GiB of space"
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        return Finding(name, State.MISSING, f"{existing} is not a folder you may write to", move)
    free = shutil.disk_usage(existing).free
    found = f"{path}, {free / GIB:.1f} GiB free"
    if free < wanted:
        return Finding(name, State.WARNING, found, f"{wanted // GIB} GiB are wanted: free some, or {move}")
    return Finding(name, State.OK, found)


def _is_seen(path: Path) -> bool:
    with contextlib.suppress(OSError):  # it is in a folder that this user may not look into
        return path.exists()
    return False


def examine_memory(meminfo: Path) -> Finding:
    """Look at the memory that is free for machines."""
    if not meminfo.exists():  # macOS
        return Finding("memory", State.OK, "not looked at on this system")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    found = f"{available / GIB:.1f} GiB available"
    if available < MEMORY:
        return Finding("memory", State.WARNING, found, f"{MEMORY // GIB} GiB are wanted: end something, or add memory")
    return Finding("memory", State.OK, found)


def examine_loopback() -> Finding:
    """Take a port on 127.0.0.1, as the way into the provisioner does."""
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding("loopback", State.OK, "a port on 127.0.0.1 can be taken")
    except OSError as error:
        return Finding("loopback", State.MISSING, f"no port on 127.0.0.1: {error.strerror}", "sudo ip link set lo up")


def examine_privacy(home: Home) -> Finding:
    """Look whether others may enter the folders with keys and sockets."""
    if exposed := [str(folder) for folder in exposed_folders(home)]:
        return Finding(
            "private folders", State.WARNING, f"{', '.join(exposed)}: open to others",
            "./pvmlab doctor --fix, or chmod 700 " + " ".join(exposed),
        )  # fmt: skip
    return Finding("private folders", State.OK, f"{home.root}: nobody else may enter them")


def exposed_folders(home: Home) -> list[Path]:
    """Return the folders with keys and sockets that others may enter."""
    folders = [folder for folder in (home.run, home.ssh, home.config, home.disks) if _is_seen(folder)]
    return [folder for folder in folders if folder.stat().st_mode & 0o077]


def examine_leftovers() -> Finding:
    """Look for what killed commands and crashes left in the lab and in the host's network."""
    from lab.garbage import plan_garbage
    from lab.lab import Lab

    try:
        items = plan_garbage(Lab.from_environment()).items
    except (PvmlabError, OSError) as error:
        return Finding("leftovers", State.WARNING, describe(error).message, "see `./pvmlab gc --dry-run`")
    if items:
        kinds = sorted({item.kind.value for item in items})
        return Finding("leftovers", State.WARNING, f"{len(items)}: {', '.join(kinds)}", "./pvmlab gc")
    return Finding("leftovers", State.OK, "none")
