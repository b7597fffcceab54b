"""Changing the lab's network, ``config/lab.json``: what a person asks for becomes a :class:`Lan`, or is refused.

A change counts from the next start of the services, which read the file then; so it is made while they are off. One
that would take a machine's address away is refused, since machines that are installed have theirs for good.
"""

from __future__ import annotations

import contextlib
import dataclasses
from ipaddress import IPv4Network
from typing import Any

from contracts.lan import DhcpMode, Lan
from lab.lab import Lab
from lab.network_settings import read_settings, require_fitting, require_usable_lan
from lab.provisioner_record import ProvisionerMode
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, UsageError

NO_IPV6 = "none"
OWN_IPV6 = "auto"  # the unique local /64 that follows from the lab's identity
_REFERENCE = "docs/reference/network.md says what each of them may be"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanRequest:
    """What a person asks of the network, as in :class:`Lan`; empty: as it is.

    :ivar ipv6_subnet: also :data:`NO_IPV6` and :data:`OWN_IPV6`.
    """

    dhcp: DhcpMode | None = None
    subnet: str = ""
    ipv6_subnet: str = ""
    domain: str = ""
    address: str = ""


UNCHANGED = LanRequest()


def plan_lan(lab: Lab, request: LanRequest, *, mode: ProvisionerMode | None = None) -> Lan:
    """Return the network of *lab* as it will be; nothing is written.

    :param mode: where the services will run; None for where they do.
    :raises UsageError: if the values make no sense. :raises ConflictError: if the provisioner runs, or a machine would
        lose its address, or the settings that are there are broken.
    """
    lan = make_lan(lab, request)
    if lan != lab.lan:
        settings = read_settings(lab.home)
        in_machine = (mode or lab.provisioner_mode) is ProvisionerMode.VM
        require_usable_lan(lan, settings, has_way_out=in_machine)
        _require_off(lab)
        require_fitting(lan, DefinitionStore(lab).load_good(), settings)
    return lan


def make_lan(lab: Lab, request: LanRequest) -> Lan:
    """Return the network that is asked for, whatever is in its way.

    :raises UsageError: if there can be no such network. :raises ConflictError: if the settings that are there are
        broken.
    """
    before = lab.lan
    if request == UNCHANGED:
        return before
    try:
        lan = Lan(**_values(lab, before, request))
    except ValueError as error:
        raise UsageError(f"the lab cannot have this network: {error}", resolution=_REFERENCE) from None
    if lan.dhcp is DhcpMode.PROXY and not lan.address:
        raise UsageError(
            "--dhcp=proxy needs --address, the provisioner's own",
            details=f"beside another DHCP server, {lan.provisioner} may well be that one's or the router's",
            resolution=f"--address=ADDRESS, one of {lan.subnet} that the other server gives to nobody",
        )
    return lan


def _values(lab: Lab, before: Lan, request: LanRequest) -> dict[str, Any]:
    """Return the arguments of the new :class:`Lan`. What only went with an old value goes with it."""
    values: dict[str, Any] = {field.name: getattr(before, field.name) for field in dataclasses.fields(Lan)}
    if request.subnet:
        values["subnet"] = _require_network(request.subnet)
    if request.domain:
        values["domain"] = request.domain
    if request.dhcp is not None:
        values["dhcp"] = request.dhcp
    if request.ipv6_subnet:
        known = {NO_IPV6: "", OWN_IPV6: lab.ipv6_subnet_of_its_own()}
        values["ipv6_subnet"] = known.get(request.ipv6_subnet, request.ipv6_subnet)
    elif request.dhcp is DhcpMode.PROXY:
        values["ipv6_subnet"] = ""  # beside another server, IPv6 is that one's
    if request.address:
        values["address"] = request.address
    elif values["dhcp"] is DhcpMode.SERVER or values["subnet"] != before.subnet:
        values["address"] = ""
    return values


def _require_network(text: str) -> str:
    """Return *text* if it is an IPv4 network. :raises UsageError: if not; with the one that may be meant."""
    try:
        return str(IPv4Network(text))
    except ValueError as error:
        resolution = "write it as 192.168.100.0/24"
        with contextlib.suppress(ValueError):
            resolution = f"is {IPv4Network(text, strict=False)} meant?"
        raise UsageError(f"--subnet={text} is not an IPv4 network: {error}", resolution=resolution) from None


def _require_off(lab: Lab) -> None:
    if lab.provisioner.is_running():
        raise ConflictError(
            "the network cannot be changed while the provisioner runs",
            details="its services read the settings when they start",
            resolution="./pvmlab provisioner.stop, then the same command again",
        )
