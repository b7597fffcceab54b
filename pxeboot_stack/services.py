"""The configuration files and command lines of dnsmasq and nginx, as pure functions of the lab's network and of paths.

The templates are ``string.Template`` with ``%{name}``, since nginx has its own ``$name``. A template engine would
cost a second of the container's start under emulation, and there is nothing here that needs one.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from contracts.arch import BIOS_BINARY, BIOS_CLIENT_ARCHITECTURE, Arch
from contracts.lan import IPV6_PREFIX, DhcpMode, Lan
from pxeboot_stack.paths import HostShares, RunFiles

LAN_INTERFACE = "lan0"
RESOLV_FILE = Path("/etc/resolv.conf")  # Docker copies the provisioner's into the container
IPXE_PATH = "/ipxe/"  # URL path of the TFTP root, for UEFI HTTP boot
STRANGER_LEASE = "2m"  # the shortest that dnsmasq gives
ADVERTISEMENT_INTERVAL = 60  # seconds between two router advertisements that nobody asked for
TFTP_TRANSFERS = 400  # at once; dnsmasq's 50 leave the others of a rack waiting
# dnsmasq's names of client architectures (DHCP option 93); it knows the others by number.
_PXE_SERVICE = {7: "x86-64_EFI", 9: "BC_EFI", 11: "ARM64_EFI"}
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
    bios: bool = False,
    interface: str = LAN_INTERFACE,
    resolv_file: Path = RESOLV_FILE,
    account: tuple[str, str] = ("dnsmasq", "nogroup"),
) -> str:
    """Return ``dnsmasq.conf``.

    :param arches: the architectures whose iPXE program is in the TFTP root. Firmware of others gets no boot file.
    :param bios: whether the one for BIOS machines is there, too.
    :param account: user and group that dnsmasq runs as.
    :raises ValueError: if a path has a character that dnsmasq would not take for part of it.
    """
    return _render(
        "dnsmasq.conf",
        user=account[0],
        group=account[1],
        interface=interface,
        dhcp_lines="\n".join(_dhcp_lines(lan, interface)),
        lease_max=str(lan.most_leases),
        base_url=lan.base_url,
        domain=lan.domain,
        boot_lines="\n".join(_boot_lines(lan, arches, bios=bios)),
        boot_server=_boot_server(lan),
        pid_file=_dnsmasq_path(run.dnsmasq_pid),
        dhcp_hosts=_dnsmasq_path(run.dhcp_hosts),
        dns_hosts=_dnsmasq_path(run.dns_hosts),
        leases=_dnsmasq_path(run.leases),
        tftp=_dnsmasq_path(run.tftp),
        tftp_max=str(TFTP_TRANSFERS),
        resolv_file=_dnsmasq_path(resolv_file),
    )


def render_nginx(
    shares: HostShares,
    run: RunFiles,
    *,
    listen: str,
    handler: str,
    user: str = "www-data",
    more_listens: Sequence[str] = (),
) -> str:
    """Return ``nginx.conf``.

    :param listen: address and port, the provisioner's on the private network only. :param handler: address and port
        of the boot handler. :param user: the account of the worker process, with its group if that has another name.
    :param more_listens: further addresses and ports, those of IPv6 in brackets.
    :raises ValueError: if a path has a character that nginx would not take for part of it.
    """
    listens = [listen, *more_listens]
    return _render(
        "nginx.conf",
        listen_lines="\n".join(f"        listen {address} default_server backlog=4096;" for address in listens),
        metrics_lines="\n".join(f"            allow {address.rpartition(':')[0].strip('[]')};" for address in listens),
        handler=handler,
        user=user,
        run=_inside_quotes(run.nginx),
        access_log=_inside_quotes(run.access_log, forbidden='"\\$,'),  # commas end the words of a syslog address
        images=_inside_quotes(shares.images),
        initrds=_inside_quotes(shares.initrds),
        tftp=_inside_quotes(run.tftp),
    )


def _inside_quotes(path: Path, *, forbidden: str = '"\\$') -> str:
    """Return *path* as it stands between quotes in ``nginx.conf``.

    :raises ValueError: if it has a control character, or one of *forbidden*: a quote, a backslash, or a dollar sign,
        which begins a variable.
    """
    text = str(path)
    if not text.isprintable() or any(character in text for character in forbidden):
        raise ValueError(f"the path {text!r} cannot be written into nginx.conf: use letters, digits, - . _ and blanks")
    return text


def _dnsmasq_path(path: Path) -> str:
    """Return *path* as it stands in ``dnsmasq.conf``.

    :raises ValueError: if it has a control character, or one that is more than itself there: a quote, a backslash, a
        comma, or what begins a comment.
    """
    text = str(path)
    if not text.isprintable() or any(character in text for character in '"\\,#'):
        raise ValueError(f"the path {text!r} cannot be written into dnsmasq.conf: use letters, digits and - . _")
    return text


def dnsmasq_command(run: RunFiles) -> list[str]:
    """Return the argument list that runs dnsmasq in the foreground."""
    return ["dnsmasq", "--keep-in-foreground", f"--conf-file={run.dnsmasq_conf}"]


def nginx_command(run: RunFiles) -> list[str]:
    """Return the argument list that runs nginx in the foreground."""
    return ["nginx", "-e", "/dev/stderr", "-c", str(run.nginx_conf)]


def _dhcp_lines(lan: Lan, interface: str) -> list[str]:
    """Return dnsmasq's lines that say who gets which address for how long."""
    if lan.dhcp is DhcpMode.PROXY:
        return [
            "# Another server gives out the addresses; we only say what to boot. UEFI asks us again on port 4011.",
            f"dhcp-range={lan.network.network_address},proxy,{lan.network.netmask}",
            "# Who boots by HTTP says HTTPClient, and so must the answer.",
            "dhcp-pxe-vendor=PXEClient,HTTPClient",
        ]
    first, last = lan.pool
    return [
        "# Reservations are in the lower half of the network, this pool for unknown machines is in the upper half.",
        "# They get it for a short time: what a flood of strangers has taken is soon free again.",
        "dhcp-authoritative",
        f"dhcp-range={first},{last},{lan.network.netmask},{STRANGER_LEASE}",
        f"dhcp-option=option:router,{lan.provisioner}",
        f"dhcp-option=option:dns-server,{lan.provisioner}",
        f"dhcp-option=option:domain-search,{lan.domain}",
        *_ipv6_lines(lan, interface),
    ]


def _ipv6_lines(lan: Lan, interface: str) -> list[str]:
    """Return dnsmasq's lines for DHCPv6 and router advertisements; none for a network without IPv6."""
    if lan.ipv6_pool is None:
        return []
    first, last = lan.ipv6_pool
    return [
        "# IPv6 within the network. The advertisements say that addresses come by DHCPv6, and that we are no router",
        "# (lifetime 0): nothing leads out by IPv6.",
        "enable-ra",
        f"ra-param={interface},{ADVERTISEMENT_INTERVAL},0",
        f"dhcp-range={first},{last},{IPV6_PREFIX},{STRANGER_LEASE}",
        f"dhcp-option=option6:dns-server,[{lan.provisioner_ipv6}]",
        f"dhcp-option=option6:domain-search,{lan.domain}",
    ]


def _boot_server(lan: Lan) -> str:
    """Return what follows a boot file: beside another server, our address; nothing where that goes without saying.

    Firmware would take the other server's; iPXE takes no boot file of a proxy that does not say one (its
    ``dhcp_has_pxeopts``), and has nothing to boot.
    """
    return f",,{lan.provisioner}" if lan.dhcp is DhcpMode.PROXY else ""


def _boot_lines(lan: Lan, arches: Sequence[Arch], *, bios: bool) -> list[str]:
    """Return dnsmasq's lines that say what a machine's firmware loads."""
    proxy, server = lan.dhcp is DhcpMode.PROXY, _boot_server(lan)
    lines = []
    if bios:
        lines += [
            f"dhcp-match=set:bios,option:client-arch,{BIOS_CLIENT_ARCHITECTURE}",
            f"dhcp-boot=tag:bios,tag:!ipxe,{BIOS_BINARY}{server}",
        ]
    for arch in arches:
        tag, program = f"efi-{arch}", arch.ipxe_binary
        codes = (*arch.dhcp_client_architectures, arch.http_client_architecture)
        lines += [
            *[f"dhcp-match=set:{tag},option:client-arch,{code}" for code in codes],
            f"dhcp-boot=tag:{tag},tag:!http,tag:!ipxe,{program}{server}",
            f"dhcp-boot=tag:{tag},tag:http,tag:!ipxe,{lan.base_url}{IPXE_PATH}{program}",
            # An answer without it is none for UEFI HTTP boot (UEFI specification 2.10, section 24.7.3).
            *([] if proxy else [f"dhcp-option-force=tag:{tag},tag:http,tag:!ipxe,option:vendor-class,HTTPClient"]),
        ]
        if proxy:
            services = [_PXE_SERVICE.get(code, str(code)) for code in arch.dhcp_client_architectures]
            lines += [f'pxe-service=tag:!ipxe,{service},"iPXE",{program}' for service in services]
    return lines


def _render(name: str, **values: str) -> str:
    return _Template((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)
