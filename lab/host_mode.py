"""Host mode: the provisioner's services in namespaces of this host (Linux), instead of in a machine of their own.

``unshare`` makes a network of their own, with a private view of files and processes; an ordinary user gets a user
namespace besides, in which the services keep the user's account and have capabilities over nothing but that network.
Targets are on the lab's switch as ever. :mod:`lab.host_mode_inside` is what runs in there;
:mod:`lab.host_mode_uplink` joins it with a real network.

What a provisioner in a machine has and this has not: a way out for the targets, a container, an sshd of its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from contracts.names import PROVISIONER_NAME
from lab import host_mode_uplink, ssh_config
from lab.host_services import HostServices, connect_command
from lab.lab import Lab
from lab.network import NetworkKind
from lab.provisioner_record import find_record
from pipeline.errors import ConflictError, PrerequisiteError
from pipeline.run import find_program, run

PROGRAMS = {
    "dnsmasq": "dnsmasq-base", "nginx": "nginx-light", "ip": "iproute2", "unshare": "util-linux",
    "nsenter": "util-linux", "setpriv": "util-linux", "bash": "bash",
}  # fmt: skip
_MODULES = ("uvicorn", "httptools", "starlette", "jinja2")
_NO_NAMESPACES = """\
the kernel refuses them to ordinary users in some systems; one of these is then set (sysctl -a shows them):
  kernel.apparmor_restrict_unprivileged_userns = 1 (Ubuntu 24.04), kernel.unprivileged_userns_clone = 0, \
user.max_user_namespaces = 0"""


def unshare_arguments() -> list[str]:
    """Return the words before a program that is to run as the first process of namespaces of its own.

    If ``unshare`` is killed, so is that program (``--kill-child``), and with it everything that runs in there.
    """
    # The user stays who he is, as dnsmasq and nginx then need not change accounts, which a user namespace with a single
    # account refuses them. The capabilities are kept for programs that they start (capabilities(7), ambient set).
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"]


def require_host() -> None:
    """Check that host mode can work here. Takes a tenth of a second.

    :raises PrerequisiteError: if something is missing; the resolution says what to do.
    """
    if sys.platform != "linux":
        raise PrerequisiteError(
            "host mode needs Linux",
            details=f"this is {sys.platform}",
            resolution="./pvmlab provisioner.create --mode=vm",
        )
    missing = {program: package for program, package in PROGRAMS.items() if find_program(program) is None}
    if missing:
        raise PrerequisiteError(
            f"host mode needs programs that are not installed: {', '.join(missing)}",
            # plain apt would also start nginx's own service
            resolution="./pvmlab setup --host-mode installs them; "
            f"Debian's packages are {' '.join(sorted(set(missing.values())))}",
        )
    if absent := [name for name in _MODULES if importlib.util.find_spec(name) is None]:
        raise PrerequisiteError(
            f"host mode needs Python modules that are missing: {', '.join(absent)}",
            resolution="remove .venv; the next ./pvmlab makes it again",
        )
    _require_namespaces()


def require_switch(lab: Lab) -> None:
    """:raises ConflictError: if the lab's network is none that host mode knows."""
    if lab.network.kind is not NetworkKind.SWITCH:
        raise ConflictError(
            f"host mode is for labs on the switch, and this lab's network is a {lab.network.kind}",
            resolution="./pvmlab net.create --kind switch, or ./pvmlab provisioner.create --mode vm",
        )


def start(lab: Lab) -> None:
    """Start the services; return when they are on their way. The lab's network is started for them.

    :raises PrerequisiteError: if host mode cannot work here. :raises ConflictError: if they run already.
    :raises PvmlabError: if they do not start.
    """
    require_host()
    require_switch(lab)
    record = find_record(lab.home)
    interface = record.interface if record is not None else ""
    if interface:
        host_mode_uplink.require_interface(interface)
    for folder in (lab.cache.images, lab.cache.initrds, lab.cache.root / "ipxe"):
        with contextlib.suppress(OSError):  # somebody else's cache: what is not in there is not served
            folder.mkdir(parents=True, exist_ok=True)
    switch = lab.network.attach(PROVISIONER_NAME, 1)
    services = HostServices(home=lab.home)
    services.start_services(
        [*unshare_arguments(), sys.executable, "-m", "lab.host_mode_inside",
         services.qmp_socket, str(switch), lab.home.root, lab.cache.root, _libraries()]
    )  # fmt: skip
    if interface:
        try:
            host_mode_uplink.plug_in(interface, services.require_inner_pid())
        except BaseException:  # Ctrl-C too: half a network serves nobody
            services.stop(timeout=0)
            raise


def _libraries() -> Path:
    """Return the folder that Python finds the services' libraries in."""
    spec = importlib.util.find_spec(_MODULES[0])
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(_MODULES[0])  # require_host() would have said so
    return Path(spec.origin).parent.parent


def access(lab: Lab) -> ssh_config.ForwardedAccess:
    """Return how ssh gets to the targets."""
    return ssh_config.ForwardedAccess(connect_command(HostServices(home=lab.home).qmp_socket))


def enter_arguments(lab: Lab, command: str | None) -> list[str]:
    """Return the words that run *command* where the services are.

    :raises ConflictError: if they do not run.
    """
    return HostServices(home=lab.home).enter_arguments(command)


def _require_namespaces() -> None:
    probe = ["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "relay0"]
    done = run([*unshare_arguments(), *probe], timeout=20, check=False)
    if done.returncode != 0:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        is_root = os.geteuid() == 0
        how = (
            "allow this root (of a container?) CAP_SYS_ADMIN" if is_root else "set it otherwise, or run pvmlab as root"
        )
        raise PrerequisiteError(
            "host mode cannot make a network of its own here",
            details=said if is_root else f"{said}\n{_NO_NAMESPACES}",
            resolution=f"{how}; or ./pvmlab provisioner.create --mode=vm",
        )
