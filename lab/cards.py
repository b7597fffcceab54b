"""Addresses for new machines: what is asked for is checked, the rest is chosen, and nobody gets what another has.

Who has which address is a mapping of addresses to names; whoever takes one is put into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.lan import DhcpMode, Lan
from contracts.machine import MAX_FURTHER_NICS, Nic, VmDefinition
from contracts.names import PROVISIONER_NAME, normalize_mac
from lab import addresses
from lab.machine_request import CardRequest, MachineRequest
from pipeline.errors import ConflictError, UsageError


def find_owners(others: Sequence[VmDefinition], lan: Lan, identity: str, *, host_address: str = "") -> dict[str, str]:
    """Return who has which address.

    :param others: the machines that there are. :param identity: the lab's own name. :param host_address: empty if this
        host has none in *lan*.
    """
    owners = {
        address: other.name
        for other in others
        for card in other.cards
        for address in (card.mac, card.ip, card.ipv6)
        if address
    }
    for card_name in ("lan", "wan"):
        owners[addresses.derive_mac(identity, PROVISIONER_NAME, card=card_name)] = PROVISIONER_NAME
    if host_address:
        owners[host_address] = "this host"
    return owners | {str(lan.provisioner): PROVISIONER_NAME}


def plan_cards(
    requests: Sequence[MachineRequest], lan: Lan, identity: str, owners: dict[str, str]
) -> list[tuple[Nic, ...]]:  # fmt: skip
    """Return the LAN cards of new machines.

    :raises UsageError: if there cannot be so many, or the first one's address is not ours to choose.
    :raises ConflictError: if an address is taken.
    """
    # the addresses that somebody asks for come first: none of them may be chosen for a card before
    known = [require_asked(request, lan, owners) for request in requests]
    return [
        _choose_cards(request, cards, lan, identity, owners) for request, cards in zip(requests, known, strict=True)
    ]


def _choose_cards(
    request: MachineRequest, known: Sequence[CardRequest], lan: Lan, identity: str, owners: dict[str, str]
) -> tuple[Nic, ...]:  # fmt: skip
    cards: list[Nic] = []
    for number in range(1, request.cards + 1):
        card = known[number - 1] if number <= len(known) else CardRequest()
        label = "lan" if number == 1 else f"lan{number}"
        derived = addresses.derive_mac(identity, request.name, card=label)
        mac = card.mac or _take(owners, derived, request.name, what="MAC address")
        ip = card.ip or _take(owners, _choose_ip(lan, owners), request.name)
        twin = addresses.ipv6_of(lan, ip)
        ipv6 = card.ipv6 or (_take(owners, twin, request.name) if twin else "")
        cards.append(Nic(mac=mac, ip=ip, ipv6=ipv6))
    return tuple(cards)


def _require_address_said(request: MachineRequest, lan: Lan) -> None:
    """Check that the address of the machine's first card is asked for where it is not ours to choose.

    :raises UsageError: if it is not.
    """
    if lan.dhcp is DhcpMode.PROXY and not request.ip:
        raise UsageError(
            f"the address of {request.name} must be said", details="another DHCP server gives out the addresses",
            resolution="--ip=ADDRESS, the one that it gives to this machine's MAC address",
        )  # fmt: skip


def require_asked(request: MachineRequest, lan: Lan, owners: dict[str, str]) -> list[CardRequest]:
    """Return what *request* asks for card by card, after noting it in *owners*.

    :raises UsageError: if there cannot be so many, or the first one's address is not ours to choose.
    :raises ConflictError: if an address is taken.
    """
    if not 1 <= request.cards <= 1 + MAX_FURTHER_NICS:
        raise UsageError(f"a machine has 1 to {1 + MAX_FURTHER_NICS} cards, not {request.cards}")
    asked = [CardRequest(mac=request.mac, ip=request.ip, ipv6=request.ipv6), *request.more_cards]
    if len(asked) > request.cards:
        raise UsageError(f"addresses for {len(asked)} cards are given, and the machine has {request.cards}")
    _require_address_said(request, lan)
    return [_require_addresses(card, lan, owners, request.name) for card in asked]


def _require_addresses(card: CardRequest, lan: Lan, owners: dict[str, str], name: str) -> CardRequest:
    """Return what somebody asks for in its usual spelling, after noting that it is the machine *name*'s now.

    :raises UsageError: if it is no address that a machine may have. :raises ConflictError: if it is taken.
    """
    mac = _require_mac(card.mac) if card.mac else None
    ip = addresses.require_reservable(lan, card.ip) if card.ip else None
    ipv6 = addresses.require_reservable_ipv6(lan, card.ipv6) if card.ipv6 else None
    if mac:
        _take(owners, mac, name, what="MAC address")
    for address in filter(None, (ip, ipv6)):
        _take(owners, address, name)
    return CardRequest(mac=mac, ip=ip, ipv6=ipv6)


def _choose_ip(lan: Lan, owners: Mapping[str, str]) -> str:
    """Return a free address whose IPv6 twin is free, too. :raises ConflictError: if there is none."""
    passed: set[str] = set()
    while (ip := addresses.choose_address(lan, owners.keys() | passed)) and addresses.ipv6_of(lan, ip) in owners:
        passed.add(ip)
    return ip


def _take(owners: dict[str, str], address: str, name: str, *, what: str = "address") -> str:
    """Give *address* to the machine *name*. :raises ConflictError: if it is taken."""
    if address in owners:
        owner = "another card of the machine" if owners[address] == name else owners[address]
        raise ConflictError(f"the {what} {address} is taken by {owner}", resolution="choose another one")
    owners[address] = name
    return address


def _require_mac(text: str) -> str:
    try:
        return normalize_mac(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
