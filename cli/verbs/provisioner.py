"""The verbs of the provisioner, ``provisioner.*``."""

from __future__ import annotations

from invoke import Collection, Context, Exit, task

from cli.verbs.words import ACTED, OUTPUT

_DOCKER_TAR = "run the services in this image: a tar of `docker save`, or an OCI image layout"
_DOCKERFILE = "run them in what the Dockerfile in this folder makes, built by this host's Docker engine"
_IMAGE = "which image of the tar, if it has several"


@task(name="create", auto_shortflags=False, help={
    "mode": "vm: in a machine of its own; host: in namespaces of this host (Linux), without a way out for targets",
    "dhcp": "server: the lab gives out the addresses; proxy: another DHCP server on its network does",
    "subnet": "the lab's IPv4 network, such as 10.9.0.0/24",
    "ipv6-subnet": "its IPv6 network, a unique local /64; none; or auto: one of the lab's own",
    "domain": "its DNS domain, such as lab.example",
    "address": "the provisioner's own, with --dhcp=proxy (otherwise it is the first of the network)",
    "interface": "of this host, to be joined with the lab's network (host mode, as root): a bridge, or a card that is "
                 "used for nothing else; none undoes it",
    "docker-tar": _DOCKER_TAR,
    "dockerfile": _DOCKERFILE,
    "image": _IMAGE,
    "output": ACTED,
})  # fmt: skip
def provisioner_create(  # noqa: PLR0913, PLR0917 (one argument for each option)
    _c: Context, mode: str = "", dhcp: str = "", subnet: str = "", ipv6_subnet: str = "", domain: str = "",
    address: str = "", interface: str = "", docker_tar: str = "", dockerfile: str = "", image: str = "",
    output: str = "table",
) -> None:  # fmt: skip
    """Build the provisioner's artifacts and make its disk, keys and settings. `up` does it by itself.

    The settings are kept in the lab. What is not named stays as it is; the provisioner must be off for a change.
    """
    from cli import provisioner_docker_verbs as docker
    from cli.afterwards import tell_lab
    from cli.machine_verbs import create_provisioner, find_wanted_mode, network_request

    docker.choose(docker_tar=docker_tar, dockerfile=dockerfile, image=image, mode=find_wanted_mode(mode), dry=True)
    network = network_request(dhcp=dhcp, subnet=subnet, ipv6_subnet=ipv6_subnet, domain=domain, address=address)
    create_provisioner(mode, network=network, interface=interface)
    docker.choose(docker_tar=docker_tar, dockerfile=dockerfile, image=image)
    tell_lab(output=output)


@task(name="start", auto_shortflags=False, help={"output": ACTED})
def provisioner_start(_c: Context, output: str = "table") -> None:
    """Start the provisioner and return when its services answer."""
    from cli.afterwards import tell_lab
    from cli.machine_verbs import start_provisioner

    start_provisioner()
    tell_lab(output=output)


@task(name="stop", auto_shortflags=False, help={"output": ACTED})
def provisioner_stop(_c: Context, output: str = "table") -> None:
    """Switch the provisioner off. Running machines keep running, without DHCP, DNS and a way out."""
    from cli.afterwards import tell_lab
    from cli.machine_verbs import stop_provisioner

    stop_provisioner()
    tell_lab(output=output)


@task(name="start", auto_shortflags=False, help={
    "docker-tar": _DOCKER_TAR,
    "dockerfile": _DOCKERFILE,
    "image": _IMAGE,
    "previous": "go back to the container before the present one",
    "built-in": "the container that comes with the provisioner",
    "output": ACTED,
})  # fmt: skip
def provisioner_docker_start(
    _c: Context, docker_tar: str = "", dockerfile: str = "", image: str = "", *, previous: bool = False,
    built_in: bool = False, output: str = "table",
) -> None:  # fmt: skip
    """Start the services anew, in the same container or another one; return when they answer."""
    from cli.provisioner_docker_verbs import show_status, start

    start(docker_tar=docker_tar, dockerfile=dockerfile, image=image, previous=previous, built_in=built_in)
    if output == "json":
        show_status(output=output)


@task(name="stop", auto_shortflags=False, help={"output": ACTED})
def provisioner_docker_stop(_c: Context, output: str = "table") -> None:
    """Stop the services: no DHCP, TFTP, DNS and HTTP. The provisioner runs on."""
    from cli.provisioner_docker_verbs import show_status, stop

    stop()
    if output == "json":
        show_status(output=output)


@task(name="status", auto_shortflags=False, help={"output": OUTPUT})
def provisioner_docker_status(_c: Context, output: str = "table") -> None:
    """Show the services' container: image, version, health, and how often each service was started again."""
    from cli.provisioner_docker_verbs import show_status

    show_status(output=output)


@task(name="logs", auto_shortflags=False, help={
    "follow": "go on with what is added, until Ctrl-C",
    "lines": "how many of the last lines",
})  # fmt: skip
def provisioner_docker_logs(_c: Context, *, follow: bool = False, lines: int = 1000) -> None:
    """Print what the services said, each line with its service's name."""
    from cli.provisioner_docker_verbs import print_logs

    raise Exit(code=print_logs(follow=follow, lines=lines))


@task(name="shell", auto_shortflags=False)
def provisioner_docker_shell(c: Context) -> None:
    """Go into the services' container; or run a command line there: `provisioner.docker.shell -- COMMAND`."""
    from cli.provisioner_docker_verbs import shell

    raise Exit(code=shell(str(c.remainder) or None))


_docker = Collection(
    provisioner_docker_start, provisioner_docker_stop, provisioner_docker_status, provisioner_docker_logs,
    provisioner_docker_shell,
)  # fmt: skip
collection = Collection(provisioner_create, provisioner_start, provisioner_stop, docker=_docker)
