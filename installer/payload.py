"""Whether the initrds that this machine runs from are those that were built: a byte may have changed on the way.

Measured while the network comes up, compared as soon as the configuration is there: before any secret is asked for and
before the disk is touched. The modules are loaded and this program runs by then: it finds what was damaged on the way,
not an enemy who changes all that the machine is sent (docs/explanation/boot-security.md).
"""

from __future__ import annotations

import threading
from pathlib import Path

from contracts import payload
from contracts.install import InstallerConfig
from installer.errors import InstallError

_WITHIN = 120.0  # seconds; 25 MB are read and hashed


class Measuring:
    """A measurement that goes on in the background. Hashing lets other threads run."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._digests: tuple[str, str] | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    def _measure(self) -> None:
        try:
            self._digests = payload.measure_tree(self._root)
        except OSError as error:
            self._error = error

    def wait(self) -> tuple[str, str]:
        """Return the digests of the installer's initrd and of the modules.

        :raises InstallError: if they could not be measured.
        """
        self._thread.join(_WITHIN)
        if self._digests is None:
            reason = str(self._error) if self._error else f"it takes longer than {_WITHIN:g} s"
            raise InstallError(f"what the initrds unpacked to cannot be checked: {reason}")
        return self._digests


def start_measuring(root: Path) -> Measuring:
    """Begin to measure the tree at *root*."""
    return Measuring(root)


def verify(measuring: Measuring, config: InstallerConfig) -> str:
    """Compare what is here with what *config* promises, and return a sentence about it.

    :raises InstallError: naming the archive that is not the one promised.
    """
    initrd, modules = measuring.wait()
    for name, found, promised in (
        ("the installer's initrd", initrd, config.initrd_tree),
        ("the archive of kernel modules", modules, config.modules_tree),
    ):
        if found != promised:
            raise InstallError(
                f"{name} is not the one promised: it was damaged on its way here, or built again meanwhile",
                lines=(f"expected tree {promised}", f"unpacked tree {found}"),
            )
    return "the initrds are the ones promised"
