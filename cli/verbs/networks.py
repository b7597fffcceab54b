"""The verbs of the lab's private network, ``net.*``."""

from __future__ import annotations

from invoke import Collection, Context, task

from cli.verbs.words import ACTED, OUTPUT


@task(name="list", auto_shortflags=False, help={"output": OUTPUT})
def net_list(_c: Context, output: str = "table") -> None:
    """List what pvmlab has of networks on this host: this lab's, and bridges and taps of others."""
    from cli.network_verbs import list_networks

    list_networks(output=output)


@task(name="show", auto_shortflags=False, help={"output": OUTPUT})
def net_show(_c: Context, output: str = "table") -> None:
    """Show the lab's network: what carries it, which addresses are for whom, the way out."""
    from cli.network_verbs import show_network

    show_network(output=output)


@task(name="create", auto_shortflags=False, help={
    "kind": "switch (needs nothing), bridge (Linux, root or commands for root), vmnet (macOS: socket_vmnet)",
    "subnet": "IPv4 network, such as 192.168.7.0/24, /28 at the smallest",
    "ipv6-subnet": "unique local /64 (RFC 4193); none; or auto: one of the lab's own",
    "domain": "DNS domain of the machines",
    "dhcp": "server, or proxy beside another DHCP server",
    "address": "the provisioner's own, beside another DHCP server",
    "host-address": "give this host an address on the bridge, or none (default: it has none)",
    "taps": "bridge, as an ordinary user: how many LAN cards there can be at most",
    "socket": "vmnet: where socket_vmnet listens (default: where Homebrew has it)",
    "output": OUTPUT,
})  # fmt: skip
def net_create(  # noqa: PLR0913, PLR0917 (one argument for each option)
    _c: Context, kind: str = "", subnet: str = "", ipv6_subnet: str = "", domain: str = "", dhcp: str = "",
    address: str = "", host_address: str = "", taps: int = 0, socket: str = "", output: str = "table",
) -> None:  # fmt: skip
    """Choose the lab's network, before it has machines. What is not named stays as it is.

    Refused while a machine runs, and if a defined machine would lose its addresses.
    """
    from cli.machine_verbs import network_request
    from cli.network_verbs import Wishes, create_network

    lan = network_request(dhcp=dhcp, subnet=subnet, ipv6_subnet=ipv6_subnet, domain=domain, address=address)
    create_network(Wishes(kind=kind, lan=lan, host_address=host_address, taps=taps, socket=socket), output=output)


@task(name="remove", auto_shortflags=False, help={"output": ACTED})
def net_remove(_c: Context, output: str = "table") -> None:
    """Go back to the usual network, and remove what this one has on the host. Refused as for `net.create`."""
    from cli.network_verbs import remove_network, show_network

    remove_network()
    if output == "json":
        show_network(output=output)


@task(name="status", auto_shortflags=False, help={"output": OUTPUT})
def net_status(_c: Context, output: str = "table") -> None:
    """Show who is on the network: addresses, the last lease, bytes in and out, what was lost."""
    from cli.network_verbs import show_status

    show_status(output=output)


collection = Collection(net_list, net_show, net_create, net_remove, net_status)
