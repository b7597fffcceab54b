"""dnsmasq's view of the machines, as text: DHCP reservations and DNS names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from contracts.lan import Lan
from contracts.machine import Nic, VmDefinition
from contracts.names import validate_machine_name

LEASE = "12h"  # of a known machine: strangers have their own addresses, it takes nothing from anybody
# A DHCPv6 lease is bound to the client's own identifier, and each system that a machine boots has another one: until
# the lease of the one before has run out, the next does not get the address. This is the shortest that dnsmasq gives.
IPV6_LEASE = "2m"


def card_names(machines: Iterable[VmDefinition]) -> Iterator[tuple[Nic, str]]:
    """Yield every card with its name: the machine's, ``<machine>-nic2`` for the second one, and so on.

    The name of a further card is empty where a machine has it, or where it would be too long for DNS.
    """
    known = sorted(machines, key=lambda machine: machine.name)
    taken = {machine.name for machine in known}
    for machine in known:
        yield machine.cards[0], machine.name
        for number, card in enumerate(machine.nics, start=2):
            name = f"{machine.name}-nic{number}"
            yield card, name if name not in taken and _is_label(name) else ""


def render_dhcp_hosts(machines: Iterable[VmDefinition]) -> str:
    """Return a ``dhcp-hostsfile``, a line for each card and family, sorted by name.

    ``id:*`` makes dnsmasq go by the MAC only: firmware, iPXE, installer and system each present another client-id,
    and would else each get a lease of their own. Names are in the hosts file alone, where dnsmasq looks for the one it
    tells a machine: here it would take them for one more address, and complain.
    """
    return "".join(
        f"{card.mac},id:*,{address},{lease}\n"
        for card, _ in card_names(machines)
        for address, lease in ((card.ip, LEASE), (f"[{card.ipv6}]", IPV6_LEASE))
        if address != "[]"
    )


def render_dns_hosts(machines: Iterable[VmDefinition], lan: Lan) -> str:
    """Return a hosts file with the provisioner and every card, so that names resolve before the first lease.

    dnsmasq answers from it both ways: A, AAAA and PTR.
    """
    own = [address for address in (lan.provisioner, lan.provisioner_ipv6) if address is not None]
    lines = [(str(address), "provisioner") for address in own]
    lines += sorted(
        (address, name) for card, name in card_names(machines) for address in (card.ip, card.ipv6) if name and address
    )
    return "".join(f"{address} {name}.{lan.domain} {name}\n" for address, name in lines)


def _is_label(name: str) -> bool:
    try:
        validate_machine_name(name)
    except ValueError:
        return False
    return True
