"""How the appliance's instructions run: by the host's processor where that really works, else emulated.

Whether it works is seen by doing: the guest says a first word soon, or it never will. ``/dev/kvm`` may be there and
hang (nested and half-emulated virtualisation does). What was seen is remembered until the host or QEMU changes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from contracts.arch import Arch
from pipeline.emulation import (
    TCG,
    TCG_OPTION,
    boot_id,
    find_hardware,
    qemu_version,
    tcg_cpu,
    wished_accelerator,
)
from pipeline.run import require_program
from pipeline.state import State

_FIRST_WORD_OF_HARDWARE, _FIRST_WORD_EMULATED = 15.0, 120.0  # seconds
_STATE_KIND = "appliance-accelerator"


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A way to run instructions.

    :ivar name: QEMU's name for it. :ivar cpu: the value of ``-cpu``.
    :ivar first_word: seconds within which the guest says that it lives; emulated on an idle host it takes 3.
    """

    name: str
    cpu: str
    first_word: float

    @property
    def option(self) -> str:
        """The value of ``-accel``."""
        return TCG_OPTION if self.name == TCG else self.name

    @property
    def is_hardware(self) -> bool:
        """Whether it may turn out not to work here."""
        return self.name != TCG


class Choice:
    """Which accelerators to try for *arch* guests, the best first, and what is remembered of them."""

    def __init__(self, arch: Arch, state: State) -> None:
        """:raises MissingProgramError: if there is no QEMU."""
        self._arch, self._state = arch, state
        self.program = Path(require_program(f"qemu-system-{arch}"))

    def candidates(self) -> list[Accelerator]:
        """Return what to try.

        ``PVMLAB_ACCEL`` (kvm, hvf or tcg) decides unseen.

        :raises UsageError: if it is none of these.
        """
        emulated = Accelerator(TCG, tcg_cpu(self._arch, qemu_version(self.program)), _FIRST_WORD_EMULATED)
        if wish := wished_accelerator():
            return [emulated if wish == TCG else self._hardware(wish)]
        name, _ = find_hardware(self._arch)
        if name is None or self._state.get(_STATE_KIND, name, self._stamp()):
            return [emulated]
        return [self._hardware(name), emulated]

    def remember(self, accelerator: Accelerator, failure: str) -> None:
        """Keep in mind what *accelerator* did: *failure* says why it does not work, empty if it does."""
        if accelerator.is_hardware:
            self._state.put(_STATE_KIND, accelerator.name, failure, self._stamp())

    def _hardware(self, name: str) -> Accelerator:
        return Accelerator(name, "host", _FIRST_WORD_OF_HARDWARE)

    def _stamp(self) -> str:
        return f"{self.program}:{self.program.stat().st_mtime_ns}:{boot_id()}"
