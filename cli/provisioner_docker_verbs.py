"""What ``provisioner.docker.*`` do: which container the services run in, and how it stands."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cli.output import emit, say
from contracts.document import encode
from contracts.names import PROVISIONER_NAME
from lab import provisioner, services_container, ssh
from lab.lab import Lab
from lab.progress import Reporter, open_reporter
from lab.services_container import ContainerView
from lab.wait import Deadline
from pipeline.errors import UsageError

MOST_LINES = 100_000


def choose(*, docker_tar: str = "", dockerfile: str = "", image: str = "", dry: bool = False) -> None:
    """Have the services run in a person's own image from their next start on; do nothing if none is named.

    :param docker_tar: an image tar. :param dockerfile: a folder with a Dockerfile, built by the host's engine.
    :param image: which image of the tar. :param dry: only check the words.
    :raises UsageError: if the words contradict each other. :raises PvmlabError: if the image cannot be had.
    """
    if docker_tar and dockerfile:
        raise UsageError("--docker-tar and --dockerfile name two containers", resolution="use one of them")
    if image and not docker_tar:
        raise UsageError("--image says which image of a --docker-tar", resolution="name the tar, too")
    if dry or not (docker_tar or dockerfile):
        return
    lab = Lab.from_environment()
    if dockerfile:
        _choose_built(lab, Path(dockerfile))
        return
    own = services_container.choose_tar(lab, Path(docker_tar), name=image or None)
    say(f"the services will run in {' '.join(own.names) or 'an unnamed image'} ({own.image[:12]}) of {own.source}")


def start(
    *, docker_tar: str = "", dockerfile: str = "", image: str = "", previous: bool = False, built_in: bool = False
) -> None:
    """Start the services anew: in the image they ran in, or another one.

    :param previous: in the one before. :param built_in: in the one of the provisioner's disk.
    :raises ConflictError: if the provisioner is off. :raises PvmlabError: if they do not get ready.
    """
    if sum(map(bool, (docker_tar or dockerfile, previous, built_in))) > 1:
        raise UsageError("these options name more than one container", resolution="use one of them")
    choose(docker_tar=docker_tar, dockerfile=dockerfile, image=image, dry=True)
    lab = Lab.from_environment()
    services_container.require_provisioner(lab)
    if previous:
        services_container.go_back(lab)
    elif built_in:
        services_container.choose_built_in(lab)
    else:
        choose(docker_tar=docker_tar, dockerfile=dockerfile, image=image)
    with open_reporter() as reporter:
        _start(lab, reporter)


def stop() -> None:
    """Stop the services; the provisioner runs on. :raises ConflictError: if it is off."""
    services_container.stop(Lab.from_environment())
    say("the services are stopped; ./pvmlab provisioner.docker.start starts them")


def show_status(*, output: str) -> None:
    """Print how the container stands.

    :raises ConflictError: if the provisioner is off. :raises UsageError: for an unknown *output*.
    """
    view = services_container.view(Lab.from_environment())
    emit({"container": encode(view)}, output=output, table=_table(view))


def print_logs(*, follow: bool, lines: int) -> int:
    """Print what the services said; return the exit status. :raises ConflictError: if the provisioner is off."""
    if not 1 <= lines <= MOST_LINES:
        raise UsageError(f"--lines={lines}", resolution=f"use a number from 1 to {MOST_LINES}")
    lab = Lab.from_environment()
    services_container.require_provisioner(lab)
    return ssh.shell(lab, PROVISIONER_NAME, services_container.log_arguments(follow=follow, lines=lines))


def shell(command: str | None) -> int:
    """Go into the container, or run a command line there; return the exit status.

    :raises ConflictError: if the provisioner is off.
    """
    lab = Lab.from_environment()
    services_container.require_provisioner(lab)
    return services_container.enter(lab, command)


def _choose_built(lab: Lab, folder: Path) -> None:
    from pipeline.container_build import build_image

    base = lab.cache.container(provisioner.ARCH)
    with tempfile.TemporaryDirectory(prefix="pvmlab-image-") as scratch:
        archive = Path(scratch) / "image.tar"
        build_image(folder, base, archive, arch=provisioner.ARCH, say=say)
        own = services_container.choose_tar(lab, archive, source=folder)
    say(f"the services will run in what {own.source}/Dockerfile makes ({own.image[:12]})")


def _start(lab: Lab, reporter: Reporter) -> None:
    accelerator = lab.accelerator(provisioner.ARCH)
    reporter.show("provisioner: its services start")
    services_container.start(lab, deadline=Deadline(provisioner.BOOT * accelerator.patience))
    own = services_container.read_choice(lab).current
    reporter.say(f"the services run in {own.source if own else 'the built-in container'}")


def _table(view: ContainerView) -> Sequence[Sequence[str]]:
    """Return the container's facts and its services, one a row."""
    pending = "(another one from the next start)" if view.pending else ""
    return [
        ("WHAT", "STATE", "DETAILS"),
        ("container", view.state, f"{view.health or 'health unknown'}, since {view.since}" if view.since else ""),
        ("image", "own" if view.own else "built-in", " ".join(filter(None, (view.image, pending)))),
        ("version", view.version, view.revision),
        ("tar", "", view.digest),
        *(
            (
                service.name,
                "running" if service.running else "starts again",
                f"since {_time(service.since)}, {service.restarts} restarts"
                + (f", last: {service.last}" * bool(service.last)),
            )
            for service in view.services
        ),
    ]


def _time(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
