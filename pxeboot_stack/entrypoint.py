"""Starts the container: renders the configuration of the services, then runs them until SIGTERM."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from pathlib import Path

from contracts.arch import BIOS_BINARY, Arch
from contracts.lan import Lan
from contracts.names import PROVISIONER_NAME
from pxeboot_stack import accounts, health, logs, services, watcher
from pxeboot_stack.boot_handler import scripts
from pxeboot_stack.boot_handler.settings import LISTEN_ADDRESS, LISTEN_PORT
from pxeboot_stack.paths import HostShares, RunFiles, host_shares, run_files
from pxeboot_stack.publish import publish_text
from pxeboot_stack.supervisor import FlappingError, Supervisor

IPXE = Path("/opt/pvmlab/ipxe")  # the iPXE programs in the container


def prepare(lan: Lan, shares: HostShares, run: RunFiles, *, ipxe: Path) -> None:
    """Write all that the services read: configurations, TFTP root, first reservations.

    :param ipxe: where the iPXE programs are, named as in :mod:`contracts.arch`.
    :raises OSError: if something cannot be written or read. :raises ValueError: if a service has no account here.
    """
    for directory in (run.root, run.tftp, run.nginx):
        directory.mkdir(parents=True, exist_ok=True)
    arches = [arch for arch in Arch if _offer(ipxe / arch.ipxe_binary, run.tftp)]
    bios = _offer(ipxe / BIOS_BINARY, run.tftp)
    account = accounts.find_dnsmasq_account()
    publish_text(run.tftp / "autoexec.ipxe", scripts.render_chain(lan.base_url))
    publish_text(run.dnsmasq_conf, services.render_dnsmasq(lan, run, arches=arches, bios=bios, account=account))
    publish_text(
        run.nginx_conf,
        services.render_nginx(
            shares,
            run,
            listen=f"{lan.provisioner}:80",
            more_listens=[f"[{lan.provisioner_ipv6}]:80"] if lan.provisioner_ipv6 else [],
            handler=f"{LISTEN_ADDRESS}:{LISTEN_PORT}",
            user=choose_worker(shares),
        ),
    )
    watcher.Watcher(shares.vms, lan=lan, run=run).look()


def _offer(program: Path, tftp: Path) -> bool:
    """Link *program* into the TFTP root; tell whether there is such a program."""
    link = tftp / program.name
    link.unlink(missing_ok=True)
    if not program.is_file():
        return False
    link.symlink_to(program)
    return True


def choose_worker(shares: HostShares) -> str:
    """Return the account nginx reads artifacts with: an unprivileged one, if the host lets others read them.

    A host with umask 077 shares directories that only their owner may enter; root in the container may.

    :raises NoAccountError: if there is no such account.
    """
    open_to_all = stat.S_IROTH | stat.S_IXOTH
    modes = [path.stat().st_mode for path in (shares.images, shares.initrds) if path.is_dir()]
    return accounts.find_nginx_account() if all(mode & open_to_all == open_to_all for mode in modes) else "root"


def announce_start(shares: HostShares) -> None:
    """Tell the host that DHCP answers in a moment: it starts a target's firmware now, which takes seconds to ask.

    Told earlier, the firmware would ask in vain, and its pauses between two tries grow to half a minute.

    :raises OSError: if the status directory cannot be written to.
    """
    boot_id = shares.boot_id.read_text().strip()
    said = {"boot_id": boot_id, "message": "the services start", "state": "starting", "time": int(time.time())}
    publish_text(shares.announcement, json.dumps(said, sort_keys=True) + "\n")


def serve() -> None:
    """Run the boot handler."""
    # Here, not above: the server's imports take seconds under emulation, in which dnsmasq and nginx start already.
    from pxeboot_stack.boot_handler import server  # noqa: PLC0415

    server.main()


def check(lan: Lan, run: RunFiles) -> None:
    """Ask the services whether they answer, and end those that hang, for ever."""
    logs.configure("health")
    address = str(lan.provisioner)
    questions = {
        "boot_handler": lambda: health.ask_http(LISTEN_ADDRESS, LISTEN_PORT, "/healthz"),
        "dnsmasq": lambda: health.ask_dns(address, f"{PROVISIONER_NAME}.{lan.domain}"),
        "nginx": lambda: health.ask_http(address, 80, "/alive"),
    }
    health.run(health.Health(questions, record=run.services, healthy=run.healthy))


def main() -> None:
    """Prepare, then supervise until SIGTERM."""
    os.umask(0o022)
    logs.configure("supervisor")
    shares, run = host_shares(), run_files()
    try:
        lan = shares.read_lan()
        prepare(lan, shares, run, ipxe=Path(os.environ.get("PVMLAB_IPXE_DIR") or IPXE))
        announce_start(shares)
    except (OSError, ValueError) as error:
        sys.exit(f"pxeboot_stack cannot start: {error}")
    supervisor = Supervisor(
        {
            "boot_handler": serve,
            "dnsmasq": services.dnsmasq_command(run),
            "nginx": services.nginx_command(run),
            "watcher": watcher.main,
            "health": lambda: check(lan, run),
        },
        record=run.services,
        receivers={"dnsmasq": run.dnsmasq_log},
    )
    try:
        supervisor.run()
    except FlappingError as error:
        sys.exit(f"pxeboot_stack failed: {error}")
