"""What dnsmasq's configuration is rendered from, one of each kind; the golden files have the same names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from pxeboot_stack.paths import RunFiles
from pxeboot_stack.services import render_dnsmasq

INPUTS: dict[str, Callable[[RunFiles], str]] = {
    "default": partial(render_dnsmasq, Lan(), arches=list(Arch), bios=True),
    "ipv6": partial(render_dnsmasq, Lan(ipv6_subnet="fd12:3456:789a::/64"), arches=list(Arch), bios=True),
    "wide": partial(render_dnsmasq, Lan(subnet="10.9.0.0/16", domain="lab.test"), arches=[Arch.X86_64], bios=True),
    "narrow": partial(render_dnsmasq, Lan(subnet="192.0.2.0/28"), arches=[Arch.AARCH64]),
    "nothing-to-boot": partial(render_dnsmasq, Lan(), arches=[]),
    "proxy": partial(
        render_dnsmasq,
        Lan(subnet="10.20.30.0/24", dhcp=DhcpMode.PROXY, address="10.20.30.7"),
        arches=list(Arch),
        bios=True,
        interface="eth1",
        resolv_file=Path("/run/resolv.conf"),
    ),
}
