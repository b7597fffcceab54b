"""Which container the provisioner runs its services in: the one built into its disk, or a person's own.

A person's image is kept as a tar in the lab's ``config/containers``, which the provisioner mounts: its unit loads it
when it starts, also after the provisioner was made anew. ``config/container.env`` names it; without that file the
built-in one runs. The one before is kept, to go back to.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from contracts import document
from contracts.document import DocumentError
from contracts.names import PROVISIONER_NAME
from lab import provisioner, ssh
from lab.lab import Lab
from lab.provisioner import ProvisionerError, ProvisionerState
from lab.provisioner_record import ProvisionerMode
from lab.wait import Deadline
from pipeline.commit import publish, publish_text
from pipeline.container_tar import find_image, write_loadable
from pipeline.digests import file_digest
from pipeline.errors import CommandError, ConflictError, NotFoundError, PvmlabError
from pipeline.run import Completed, attach
from pipeline.sidecar import read_sidecar

UNIT = "pxeboot_stack.service"
NAME = "pxeboot_stack"  # of the container, and of the built-in image
_REMOTE = 120.0  # seconds for a word with the provisioner; emulated, Docker's answers take some
_LOAD = 600.0  # seconds to load an image there
_LABELS = "org.opencontainers.image."


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnImage:
    """A person's image.

    :ivar image: its id, in hex. :ivar source: the file it came from. :ivar sha256: that file's digest.
    :ivar names: what it is called there. :ivar added: Unix time.
    """

    image: str
    source: str
    sha256: str
    names: tuple[str, ...] = ()
    added: int = 0

    @property
    def file(self) -> str:
        """The name of its tar in ``config/containers``."""
        return f"{self.image}.tar"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContainerChoice:
    """What runs, and what ran before it; None is the built-in image. ``config/container.json``."""

    schema: int = 1
    current: OwnImage | None = None
    previous: OwnImage | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceView:
    """One service. :ivar since: Unix time. :ivar last: why it was started again, if it was."""

    name: str
    running: bool
    since: int
    restarts: int
    last: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContainerView:
    """How the container stands.

    :ivar state: Docker's word: ``running``, ``exited``; ``off`` if there is no container. :ivar health: Docker's word.
    :ivar image: id of the image it runs, in hex. :ivar digest: of the tar it came from. :ivar since: RFC 3339.
    :ivar own: whether it runs a person's image, or would. :ivar pending: whether a start would run another image.
    :ivar message: why there is none, if it failed.
    """

    state: str
    health: str = ""
    image: str = ""
    version: str = ""
    revision: str = ""
    digest: str = ""
    since: str = ""
    own: bool = False
    pending: bool = False
    message: str = ""
    services: tuple[ServiceView, ...] = ()


def read_choice(lab: Lab) -> ContainerChoice:
    """Return what is to run; the built-in image if nothing was said."""
    try:
        return document.loads(ContainerChoice, _choice_path(lab).read_bytes())
    except (FileNotFoundError, DocumentError):
        return ContainerChoice()


def choose_tar(lab: Lab, archive: Path, *, name: str | None = None, source: Path | None = None) -> OwnImage:
    """Have the services run in the image of the tar *archive* from their next start on.

    :param name: which image, where the tar has several. :param source: what people know it by, if not that file.
    :raises PvmlabError: see :func:`pipeline.container_tar.find_image`.
    """
    image = find_image(archive, provisioner.ARCH, name=name)
    own = OwnImage(
        image=image.image_id, source=str((source or archive).absolute()), sha256=file_digest(archive),
        names=image.names, added=int(time.time()),
    )  # fmt: skip
    lab.ensure_folders()
    folder = _folder(lab)
    folder.mkdir(exist_ok=True)
    if not (folder / own.file).exists():
        with publish(folder / own.file) as temporary:
            write_loadable(archive, image, temporary, tag=f"{NAME}:{own.image[:12]}")
    _choose(lab, own)
    return own


def choose_built_in(lab: Lab) -> None:
    """Have the services run in the container that the provisioner's disk has, from their next start on."""
    _choose(lab, None)


def go_back(lab: Lab) -> OwnImage | None:
    """Have the services run in the image before the present one; return it, None for the built-in one.

    :raises NotFoundError: if there was none before.
    """
    choice = read_choice(lab)
    if choice.current is None and choice.previous is None:
        raise NotFoundError("there is no container to go back to", details="only the built-in one was ever chosen")
    _choose(lab, choice.previous)
    return choice.previous


def start(lab: Lab, *, deadline: Deadline) -> None:
    """Start the services in the image that was chosen, in place of what runs; return when they answer.

    The image is loaded while the old one still runs, so that DHCP is away for seconds only.

    :raises ConflictError: if the provisioner is off. :raises ProvisionerError: if the services do not get ready.
    """
    _load(lab)
    _restart(lab, deadline)


def start_other(lab: Lab, before: ContainerChoice, *, seconds: float) -> None:
    """Start the services in the image that was chosen in place of *before*, and go back to that if they do not answer.

    :param seconds: how long each of the two starts may take.
    :raises ConflictError: if the provisioner is off. :raises PvmlabError: if it went back.
    """
    try:
        _load(lab)
    except PvmlabError:
        _write_choice(lab, before)  # it runs on
        raise
    try:
        _restart(lab, Deadline(seconds))
    except PvmlabError as error:
        _write_choice(lab, before)
        _restart(lab, Deadline(seconds))
        raise ProvisionerError(
            f"{error.brief}; they run again in {describe(before.current)}",
            details=error.details,
            resolution="mend the image, then the same command again",
        ) from error


def describe(own: OwnImage | None) -> str:
    """Return what people know an image by. :param own: None is the built-in one."""
    return own.source if own is not None else "the built-in container"


def _load(lab: Lab) -> None:
    """Bring the image that was chosen into the provisioner, if it is not there."""
    require_provisioner(lab)
    own = read_choice(lab).current
    if own is not None and not _is_loaded(lab, own):
        _remote(lab, ["docker", "load", "--quiet", "--input", f"/mnt/host/config/containers/{own.file}"], timeout=_LOAD)


def _restart(lab: Lab, deadline: Deadline) -> None:
    # Stopped first, to its end: what one says that is stopped while it starts would be taken for the next one's words.
    _remote(lab, ["systemctl", "stop", UNIT])
    (lab.home.status / f"{PROVISIONER_NAME}.json").unlink(missing_ok=True)  # what it said of the old one
    _remote(lab, ["systemctl", "reset-failed", UNIT], check=False)
    _remote(lab, ["systemctl", "start", "--no-block", UNIT])
    provisioner.wait_until(lab, ProvisionerState.READY, deadline=deadline)


def stop(lab: Lab) -> None:
    """Stop the services. The provisioner runs on.

    :raises ConflictError: if it is off.
    """
    require_provisioner(lab)
    _remote(lab, ["systemctl", "stop", UNIT])


def view(lab: Lab) -> ContainerView:
    """Return how the container stands.

    :raises ConflictError: if the provisioner is off. :raises CommandError: if it does not answer.
    """
    require_provisioner(lab)
    choice = read_choice(lab)
    # `docker inspect` alone would find the image of the same name where there is no container.
    done = _remote(lab, ["docker", "container", "inspect", NAME], check=False)
    if done.returncode != 0:
        said = provisioner.find_announcement(lab)
        why = said.message if said is not None and said.state is ProvisionerState.FAILED else ""
        return ContainerView(state="off", own=choice.current is not None, message=why)
    (found,) = json.loads(done.stdout)
    state, labels = found["State"], found["Config"].get("Labels") or {}
    image = found["Image"].removeprefix("sha256:")
    running = bool(state["Running"])
    own = next((each for each in (choice.current, choice.previous) if each is not None and each.image == image), None)
    return ContainerView(
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status", "") if running else "",
        image=image,
        version=labels.get(f"{_LABELS}version", ""),
        revision=labels.get(f"{_LABELS}revision", ""),
        digest=_digest(lab, image),
        since=_whole_seconds(state["StartedAt"]),
        own=own is not None,
        pending=choice.current != own,
        services=_services(lab) if running else (),
    )


def _whole_seconds(moment: str) -> str:
    """Return Docker's time (RFC 3339 with nanoseconds, UTC) without the fraction."""
    return f"{moment.partition('.')[0].removesuffix('Z')}Z"


def log_arguments(*, follow: bool, lines: int) -> str:
    """Return the command line that prints the services' log in the provisioner. :param lines: the last ones."""
    return shlex.join(
        [
            "journalctl",
            "--output=cat",
            "--no-pager",
            f"--lines={lines}",
            *(["--follow"] if follow else []),
            "--unit",
            UNIT,
        ]
    )


def enter(lab: Lab, command: str | None) -> int:
    """Go into the container on our terminal, or run *command* there by its shell; return the exit status.

    Without a terminal and a command the shell reads what to do from our standard input.
    """
    terminal = command is None and sys.stdin.isatty()
    words = ["docker", "exec", "--interactive", *(["--tty"] if terminal else []), NAME, "/bin/sh"]
    if not terminal:
        return ssh.shell(lab, PROVISIONER_NAME, shlex.join([*words, *(["-c", command] if command is not None else [])]))
    # ssh gives a command no terminal by itself
    return attach(ssh.ssh_arguments(ssh.config_path(lab), PROVISIONER_NAME, shlex.join(words), options=["-t"]))


def require_mode(mode: ProvisionerMode) -> None:
    """:raises ConflictError: if services have no container in *mode*: in host mode they run in namespaces."""
    if mode is ProvisionerMode.HOST:
        raise ConflictError(
            "there is no container in host mode", details="the services run in namespaces of this host",
            resolution="./pvmlab provisioner.stop, then provisioner.create --mode=vm",
        )  # fmt: skip


def require_provisioner(lab: Lab) -> None:
    """:raises ConflictError: if the provisioner is off, or has no container as the services run on this host."""
    require_mode(lab.provisioner_mode)
    if not lab.provisioner.is_running():
        raise ConflictError("the provisioner is off", resolution="./pvmlab provisioner.start")


def _choose(lab: Lab, own: OwnImage | None) -> None:
    """Write down that *own* runs from now on; images that are neither it nor the one before are removed."""
    before = read_choice(lab)
    if before.current == own or (own is not None and before.current is not None and own.image == before.current.image):
        return
    _write_choice(lab, ContainerChoice(current=own, previous=before.current))


def _write_choice(lab: Lab, choice: ContainerChoice) -> None:
    """Write *choice* down, without an image whose tar is gone already; remove the tars that are no longer named."""
    own, previous, environment = choice.current, choice.previous, lab.home.config / "container.env"
    if previous is not None and not (_folder(lab) / previous.file).exists():
        previous = None
    publish_text(_choice_path(lab), document.dumps(ContainerChoice(current=own, previous=previous)))
    if own is None:
        environment.unlink(missing_ok=True)
    else:
        publish_text(environment, f"CONTAINER_IMAGE=sha256:{own.image}\nCONTAINER_TAR={own.file}\n")
    kept = {each.file for each in (own, previous) if each is not None}
    for path in _folder(lab).glob("*.tar"):
        if path.name not in kept:
            path.unlink()


def _is_loaded(lab: Lab, own: OwnImage) -> bool:
    return _remote(lab, ["docker", "image", "inspect", f"sha256:{own.image}"], check=False).returncode == 0


def _services(lab: Lab) -> tuple[ServiceView, ...]:
    """Return what the supervisor in the container says; nothing if it has none (a person's image may not)."""
    done = _remote(lab, ["docker", "exec", NAME, "cat", "/run/pvmlab/services.json"], check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
        return tuple(
            ServiceView(
                name=name, running=entry["pid"] is not None, since=entry["since"], restarts=entry["restarts"],
                last=entry["last"],
            )
            for name, entry in said.items()
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _digest(lab: Lab, image: str) -> str:
    """Return the digest of the tar that the image *image* came from; empty if it is none of ours."""
    choice = read_choice(lab)
    for own in (choice.current, choice.previous):
        if own is not None and own.image == image:
            return own.sha256
    sidecar = read_sidecar(lab.cache.container(provisioner.ARCH)) or {}
    return str(sidecar["sha256"]) if sidecar.get("facts", {}).get("image") == image else ""


def _remote(lab: Lab, argv: list[str], *, timeout: float = _REMOTE, check: bool = True) -> Completed:
    done = ssh.run_on(lab, PROVISIONER_NAME, argv, timeout=timeout, check=check)
    if done.returncode == 255:  # ssh's own
        raise CommandError(list(done.argv), returncode=255, tail=done.stderr.splitlines(), log=None, how="failed")
    return done


def _folder(lab: Lab) -> Path:
    return lab.home.config / "containers"


def _choice_path(lab: Lab) -> Path:
    return lab.home.config / "container.json"
