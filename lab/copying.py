"""Copying files to and from machines: scp with the lab's own ssh configuration."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

from contracts.names import PROVISIONER_NAME
from lab import ssh
from lab.lab import Lab
from lab.provisioner_record import ProvisionerMode
from lab.reach import require_reachable
from pipeline.errors import ConflictError, UsageError
from pipeline.run import attach

_REMOTE = re.compile(r"(?P<machine>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):(?P<path>.*)\Z", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Place:
    """One end of a copy. :ivar machine: its name; None for this host. :ivar path: there."""

    machine: str | None
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return what *text* says: ``NAME:PATH``, or a path of this host. ``./a:b`` is a path, as for scp.

        :raises UsageError: if it is empty.
        """
        if not text:
            raise UsageError("an empty path names no file")
        if (found := _REMOTE.match(text)) is not None:
            return cls(found["machine"], found["path"] or ".")
        return cls(None, text)


def copy(lab: Lab, source: str, destination: str, *, recursive: bool) -> int:
    """Copy a file, or with *recursive* a folder with all that is in it; return scp's exit status.

    Times and permissions are kept. scp itself says what goes wrong, and on a terminal how far it is.

    :raises UsageError: if not exactly one side is a machine's.
    :raises NotFoundError: if there is no such machine. :raises ConflictError: if it is off.
    """
    ends = Place.parse(source), Place.parse(destination)
    remote = [end.machine for end in ends if end.machine is not None]
    if len(remote) != 1:
        what = "both are" if remote else "none is"
        raise UsageError(
            f"one of the two paths has to be a machine's, and {what}",
            resolution="write the machine's as NAME:PATH, such as web1:/etc/fstab; a file of this host whose name "
            "looks like that as ./NAME:PATH",
        )
    name = remote[0]
    if name == PROVISIONER_NAME and lab.provisioner_mode is ProvisionerMode.HOST:
        raise ConflictError(
            "the provisioner of this lab is no machine: its services run on this host (host mode)",
            resolution="its files are this host's: cp copies them",
        )
    require_reachable(lab, name)
    return attach(copy_arguments(ssh.config_path(lab), *ends, recursive=recursive))


def copy_arguments(config: Path, source: Place, destination: Place, *, recursive: bool) -> list[str]:
    """Return scp's words. Paths may hold any character."""
    quiet = [] if sys.stderr.isatty() else ["-q"]
    return [
        "scp",
        "-F",
        str(config),
        "-p",
        *quiet,
        *(["-r"] if recursive else []),
        "--",
        *map(_word, (source, destination)),
    ]


def _word(end: Place) -> str:
    if end.machine is not None:
        return f"{end.machine}:{end.path}"
    # absolute: a colon means nothing there; as text: scp minds a slash or a dot at the end
    return end.path if end.path.startswith("/") else f"{Path.cwd()}/{end.path}"
