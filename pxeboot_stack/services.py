"""The configuration files and command lines of dnsmasq and nginx, as pure functions of the lab's network and of paths.

The templates are ``string.Template`` with ``%{name}``, since nginx has its own ``$name``. A template engine would
cost a second of the container's start under emulation, and there is nothing here that needs one.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from contracts.arch import Arch
from contracts.lan import Lan
from pxeboot_stack.paths import HostShares, RunFiles

LAN_INTERFACE = "lan0"
RESOLV_FILE = Path("/etc/resolv.conf")  # Docker copies the provisioner's into the container
_TEMPLATES = Path(__file__).parent / "templates"


class _Template(string.Template):
    delimiter = "%"
    idpattern = r"(?!)"  # no unbraced form
    braceidpattern = r"[a-z_]+"


def render_dnsmasq(
    lan: Lan,
    run: RunFiles,
    *,
    arches: Sequence[Arch],
    interface: str = LAN_INTERFACE,
    resolv_file: Path = RESOLV_FILE,
) -> str:
    """Return ``dnsmasq.conf``.

    :param arches: the architectures whose iPXE program is in the TFTP root. Firmware of others gets no boot file.
    """
    first, last = lan.pool
    return _render(
        "dnsmasq.conf",
        interface=interface,
        pool_first=str(first),
        pool_last=str(last),
        netmask=str(lan.network.netmask),
        lease_max=str(lan.network.num_addresses),
        provisioner=str(lan.provisioner),
        base_url=lan.base_url,
        domain=lan.domain,
        boot_lines="\n".join(line for arch in arches for line in _boot_lines(arch)),
        pid_file=str(run.dnsmasq_pid),
        dhcp_hosts=str(run.dhcp_hosts),
        dns_hosts=str(run.dns_hosts),
        leases=str(run.leases),
        tftp=str(run.tftp),
        resolv_file=str(resolv_file),
    )


def render_nginx(shares: HostShares, run: RunFiles, *, listen: str, handler: str, user: str = "www-data") -> str:
    """Return ``nginx.conf``.

    :param listen: address and port, the provisioner's on the private network only. :param handler: address and port
        of the boot handler. :param user: the account of the worker process.
    """
    return _render(
        "nginx.conf",
        listen=listen,
        handler=handler,
        user=user,
        run=str(run.nginx),
        images=str(shares.images),
        initrds=str(shares.initrds),
    )


def dnsmasq_command(run: RunFiles) -> list[str]:
    """Return the argument list that runs dnsmasq in the foreground."""
    return ["dnsmasq", "--keep-in-foreground", f"--conf-file={run.dnsmasq_conf}"]


def nginx_command(run: RunFiles) -> list[str]:
    """Return the argument list that runs nginx in the foreground."""
    return ["nginx", "-e", "/dev/stderr", "-c", str(run.nginx_conf)]


def _boot_lines(arch: Arch) -> list[str]:
    """Return dnsmasq's lines for the firmware of one architecture, which DHCP option 93 tells."""
    tag = f"efi-{arch}"
    matches = [f"dhcp-match=set:{tag},option:client-arch,{code}" for code in arch.dhcp_client_architectures]
    return [*matches, f"dhcp-boot=tag:{tag},tag:!ipxe,{arch.ipxe_binary}"]


def _render(name: str, **values: str) -> str:
    return _Template((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)
