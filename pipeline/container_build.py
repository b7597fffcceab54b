"""A person's own container image from a Dockerfile, built by the Docker engine of this host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts.arch import Arch
from pipeline.errors import NotFoundError, PrerequisiteError, PvmlabError

if TYPE_CHECKING:
    import docker

TAG = "pxeboot_stack:user"  # what is built, in the host's engine
_TIMEOUT = 600  # seconds for one answer of the engine
_TAIL = 25  # lines of the build in an error


class ImageBuildError(PvmlabError):
    """The engine could not build the image."""


def build_image(folder: Path, base: Path, output: Path, *, arch: Arch, say: Callable[[str], None]) -> None:
    """Build the Dockerfile in *folder* and write the image to the tar *output*.

    :param base: our own container, which the engine gets first: ``FROM pxeboot_stack:latest`` means that one.
    :param say: gets each line that the engine says of the build.
    :raises NotFoundError: if there is no Dockerfile. :raises PrerequisiteError: if no engine answers.
    :raises ImageBuildError: if the build fails.
    """
    import docker.errors  # noqa: PLC0415 (half a second that nobody else pays)

    require_dockerfile(folder)
    with _engine() as client:
        try:
            with base.open("rb") as archive:
                client.images.load(archive)
            _build(client, folder, arch=arch, say=say)
            with output.open("wb") as sink:
                for chunk in client.images.get(TAG).save(named=TAG):
                    sink.write(chunk)
        except docker.errors.APIError as error:
            if error.response is not None:
                error.response.close()
            raise ImageBuildError(
                "the Docker engine refused to build it", details=str(error.explanation or error)
            ) from None


def require_dockerfile(folder: Path) -> None:
    """:raises NotFoundError: if there is no Dockerfile in *folder*."""
    if not (folder / "Dockerfile").is_file():
        raise NotFoundError(
            f"there is no Dockerfile in {folder}", resolution="name the folder it is in: --dockerfile=DIR"
        )


def _build(client: docker.DockerClient, folder: Path, *, arch: Arch, say: Callable[[str], None]) -> None:
    lines, failed = list[str](), False
    events: Iterator[dict[str, Any]] = client.api.build(
        path=str(folder), tag=TAG, platform=f"linux/{arch.debian}", rm=True, forcerm=True, decode=True
    )
    for event in events:
        for line in str(event.get("stream") or event.get("error") or "").splitlines():
            if line.strip():
                lines.append(line)
                say(line)
        failed = failed or "error" in event  # to its end all the same: the connection is closed only then
    if failed:
        raise ImageBuildError(
            f"the Dockerfile in {folder} cannot be built",
            details="\n".join(lines[-_TAIL:]),
            resolution=f"`docker build {folder}` shows the same",
        )


@contextlib.contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    """Yield a client of the engine that the environment names (``DOCKER_HOST``), or the usual one.

    :raises PrerequisiteError: if none answers.
    """
    import docker.errors  # noqa: PLC0415
    import requests  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(contextlib.closing(docker.from_env(timeout=_TIMEOUT)))
            client.ping()
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise PrerequisiteError(
                "no Docker engine answers on this host",
                details=str(error),
                resolution="start one or set DOCKER_HOST; or build it elsewhere, `docker save` it, use --docker-tar",
            ) from None
        yield client
