"""Work without a network: ``PVMLAB_OFFLINE=1``."""

from __future__ import annotations

import os

from pipeline.errors import PrerequisiteError, UsageError


class OfflineError(PrerequisiteError):
    """Something is not here, and the network must not be used."""

    def __init__(self, name: str, *, size: int | None = None, task: str | None = None) -> None:
        self.name, self.size, self.task = name, size, task
        bytes_ = f" ({size:,} bytes)" if size is not None else ""
        wanted = task or "fetch:<distro>:<arch>:<kind>"
        super().__init__(
            f"{name}{bytes_} is not here, and PVMLAB_OFFLINE is set",
            resolution=f"unset PVMLAB_OFFLINE; or bring it from a machine with a network: there "
            f"`./pvmlab cache.export media.tar {wanted}`, here `./pvmlab cache.import media.tar`",
        )


def is_offline() -> bool:
    """Return whether the network must not be used.

    :raises UsageError: if the variable is neither empty nor 0 nor 1.
    """
    text = os.environ.get("PVMLAB_OFFLINE", "")
    if text not in {"", "0", "1"}:
        raise UsageError(f"PVMLAB_OFFLINE is {text!r}", resolution="set it to 1 to do without a network, or unset it")
    return text == "1"


def require_online(name: str, *, size: int | None = None, task: str | None = None) -> None:
    """Refuse to go to the network for the file *name* if it must not be used.

    :param size: bytes, if they are known. :param task: whose file it is.
    :raises OfflineError: if so.
    """
    if is_offline():
        raise OfflineError(name, size=size, task=task)
