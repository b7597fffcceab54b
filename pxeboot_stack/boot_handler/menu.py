"""The iPXE screens for machines that cannot be given a boot script: strangers, and those with a foreign address.

There is nothing in them that is not on the network anyway. Every value is checked once more, as in :mod:`.scripts`.
"""

from __future__ import annotations

import ipaddress

from contracts.machine import VmDefinition
from contracts.names import normalize_mac
from pxeboot_stack.boot_handler.settings import Settings

REFRESH = 5000  # milliseconds after which a stranger's screen asks again by itself
ADDRESS_ATTEMPTS = 10  # times that a machine with a foreign address asks DHCP again
_ADDRESS_PAUSE = 3  # seconds before each: the watcher takes a foreign lease back within one


def render_unknown(mac: str, client: str | None, settings: Settings) -> str:
    """Return the screen of a machine that the lab does not know: who it is, and how it is adopted.

    It asks again every few seconds, so that an adopted machine goes on by itself. Whoever has given it an iPXE without
    menus sees the same as lines.

    :raises ValueError: if *mac* is not a MAC address.
    """
    mac, base = normalize_mac(mac), settings.lan.base_url
    address = _address(client)
    command = f"./pvmlab vm.adopt {mac} --name=NAME --distro=DISTRO"
    return f"""#!ipxe
echo pvmlab: no machine of this lab has the MAC address {mac}
echo pvmlab: on the host, {command}
:menu
menu pvmlab: this machine is not known here || goto wait
item --gap -- MAC address {mac}, address {address}
item --gap -- To adopt it, on the host:
item --gap -- {command}
item --gap -- ./pvmlab vm.adopt lists all machines that were seen.
item --gap
item retry Ask again now (it does by itself every {REFRESH // 1000} seconds)
item disk Boot what the firmware has next: the disk
item shell iPXE shell
item restart Restart
choose --default retry --timeout {REFRESH} answer && goto ${{answer}} ||
:wait
sleep {REFRESH // 1000}
:retry
chain --replace --autofree {base}/ipxe?mac={mac} ||
echo pvmlab: {base} does not answer
goto wait
:disk
exit 1
:shell
shell
goto menu
:restart
reboot
"""


def render_foreign(machine: VmDefinition, mac: str, client: str | None, settings: Settings) -> str:
    """Return the script for a machine of the lab that asks from an address which is not its own.

    What is for it alone it would be refused there, so nothing is begun: it waits, asks DHCP again, and asks us again;
    :data:`ADDRESS_ATTEMPTS` times, then the firmware has its turn.

    :raises ValueError: if *mac* is not a MAC address.
    """
    mac, base = normalize_mac(mac), settings.lan.base_url
    own = next(card.ip for card in machine.cards if card.mac == mac)
    return f"""#!ipxe
echo pvmlab: {machine.name} has the address {_address(client)}, reserved for it is {own}
echo pvmlab: nothing is installed from a foreign address, as what is for {machine.name} alone is given to {own} only
isset ${{readdressed}} || set readdressed:int32 0
:again
inc readdressed
iseq ${{readdressed}} {ADDRESS_ATTEMPTS} && goto give_up ||
echo pvmlab: asking DHCP again in {_ADDRESS_PAUSE} seconds (${{readdressed}} of {ADDRESS_ATTEMPTS})
sleep {_ADDRESS_PAUSE}
ifclose
dhcp ||
chain --replace --autofree {base}/ipxe?mac={mac} ||
echo pvmlab: {base} does not answer
goto again
:give_up
clear readdressed
echo pvmlab: giving up; on the host, ./pvmlab vm.events {machine.name} says what was seen
sleep 10
exit 1
"""


def _address(client: str | None) -> str:
    """Return *client* as it may stand in a script. It comes from nginx, but so does all that is hostile."""
    try:
        return str(ipaddress.ip_address(client or ""))
    except ValueError:
        return "unknown"
