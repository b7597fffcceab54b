"""dnsmasq's view of the machines, as text: DHCP reservations and DNS names."""

from __future__ import annotations

from collections.abc import Iterable

from contracts.lan import Lan
from contracts.machine import VmDefinition


def render_dhcp_hosts(machines: Iterable[VmDefinition]) -> str:
    """Return a ``dhcp-hostsfile``, one line a machine, sorted by name.

    ``id:*`` makes dnsmasq go by the MAC only: firmware, iPXE, installer and system each present another client-id,
    and would else each get a lease of their own.
    """
    return "".join(f"{m.mac},id:*,{m.ip},{m.name}\n" for m in sorted(machines, key=lambda m: m.name))


def render_dns_hosts(machines: Iterable[VmDefinition], lan: Lan) -> str:
    """Return a hosts file with the provisioner and every machine, so that names resolve before the first lease."""
    lines = [(str(lan.provisioner), "provisioner"), *sorted((m.ip, m.name) for m in machines)]
    return "".join(f"{address} {name}.{lan.domain} {name}\n" for address, name in lines)
