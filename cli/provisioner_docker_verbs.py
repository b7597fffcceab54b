"""What ``provisioner.docker.*`` do: which container the services run in, and how it stands."""

from __future__ import annotations

import contextlib
import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cli.lab_views import describe_lan
from cli.output import emit, say, until_interrupted
from contracts.document import encode
from contracts.names import PROVISIONER_NAME
from lab import provisioner, services_container, ssh
from lab.lab import Lab
from lab.progress import Reporter, open_reporter
from lab.provisioner_record import ProvisionerMode
from lab.services_container import ContainerChoice, ContainerView
from lab.wait import Deadline
from pipeline.errors import NotFoundError, UsageError

MOST_LINES = 100_000


def choose(
    *,
    docker_tar: str = "",
    dockerfile: str = "",
    image: str = "",
    mode: ProvisionerMode | None = None,
    dry: bool = False,
) -> None:
    """Have the services run in a person's own image from their next start on; do nothing if none is named.

    :param docker_tar: an image tar. :param dockerfile: a folder with a Dockerfile, built by the host's engine.
    :param image: which image of the tar. :param mode: where the services will run; None for where they do.
    :param dry: only check the words, and that what they name is there: before what takes long.
    :raises UsageError: if the words contradict each other. :raises ConflictError: if that mode has no container.
    :raises PvmlabError: if the image cannot be had.
    """
    if docker_tar and dockerfile:
        raise UsageError("--docker-tar and --dockerfile name two containers", resolution="use one of them")
    if image and not docker_tar:
        raise UsageError("--image says which image of a --docker-tar", resolution="name the tar, too")
    if not (docker_tar or dockerfile):
        return
    lab = Lab.from_environment()
    services_container.require_mode(mode or lab.provisioner_mode)
    _require_there(docker_tar=docker_tar, dockerfile=dockerfile)
    if dry:
        return
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
    before = services_container.read_choice(lab)
    if previous:
        services_container.go_back(lab)
    elif built_in:
        services_container.choose_built_in(lab)
    else:
        choose(docker_tar=docker_tar, dockerfile=dockerfile, image=image)
    with open_reporter() as reporter:
        _start(lab, before, reporter)


def stop() -> None:
    """Stop the services; the provisioner runs on. :raises ConflictError: if it is off."""
    services_container.stop(Lab.from_environment())
    say("the services are stopped; ./pvmlab provisioner.docker.start starts them")


def show_status(*, output: str) -> None:
    """Print how the container stands.

    :raises ConflictError: if the provisioner is off. :raises UsageError: for an unknown *output*.
    """
    lab = Lab.from_environment()
    view = services_container.view(lab)
    table = [*_table(view), ("network", lab.lan.dhcp.value, describe_lan(lab.lan))]
    emit({"container": encode(view), "network": encode(lab.lan)}, output=output, table=table)


def print_logs(*, follow: bool, lines: int) -> int:
    """Print what the services said; return the exit status. :raises ConflictError: if the provisioner is off."""
    if not 1 <= lines <= MOST_LINES:
        raise UsageError(f"--lines={lines}", resolution=f"use a number from 1 to {MOST_LINES}")
    lab = Lab.from_environment()
    services_container.require_provisioner(lab)
    with until_interrupted() if follow else contextlib.nullcontext():
        return ssh.shell(lab, PROVISIONER_NAME, services_container.log_arguments(follow=follow, lines=lines))


def shell(command: str | None) -> int:
    """Go into the container, or run a command line there; return the exit status.

    :raises ConflictError: if the provisioner is off.
    """
    lab = Lab.from_environment()
    services_container.require_provisioner(lab)
    return services_container.enter(lab, command)


def _require_there(*, docker_tar: str, dockerfile: str) -> None:
    from pipeline.container_build import require_dockerfile

    if dockerfile:
        require_dockerfile(Path(dockerfile))
    elif not Path(docker_tar).is_file():
        raise NotFoundError(f"there is no file {docker_tar}", resolution="name one that `docker save` has written")


def _choose_built(lab: Lab, folder: Path) -> None:
    from pipeline.container_build import build_image

    base = lab.cache.container(provisioner.ARCH)
    with tempfile.TemporaryDirectory(prefix="pvmlab-image-") as scratch:
        archive = Path(scratch) / "image.tar"
        build_image(folder, base, archive, arch=provisioner.ARCH, say=say)
        own = services_container.choose_tar(lab, archive, source=folder)
    say(f"the services will run in what {own.source}/Dockerfile makes ({own.image[:12]})")


def _start(lab: Lab, before: ContainerChoice, reporter: Reporter) -> None:
    seconds = provisioner.BOOT * lab.accelerator(provisioner.ARCH).patience
    own = services_container.read_choice(lab).current
    reporter.show(f"provisioner: its services start in {services_container.describe(own)}")
    if own == before.current:
        services_container.start(lab, deadline=Deadline(seconds))
    else:
        services_container.start_other(lab, before, seconds=seconds)
    reporter.say(f"the services run in {services_container.describe(own)}")


def _table(view: ContainerView) -> Sequence[Sequence[str]]:
    """Return the container's facts and its services, one a row."""
    pending = "(another one from the next start)" if view.pending else ""
    return [
        ("WHAT", "STATE", "DETAILS"),
        (
            "container",
            view.state,
            f"{view.health or 'health unknown'}, since {view.since}" if view.since else view.message,
        ),
        ("image", "own" if view.own else "built-in", " ".join(filter(None, (view.image, pending)))),
        *([("version", view.version or "none", view.revision)] if view.image else []),
        *([("tar", "", view.digest)] if view.digest else []),
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
