"""Whether a machine can be reached by SSH at all: it has to run, and so has the provisioner, which leads there."""

from __future__ import annotations

from contracts.names import PROVISIONER_NAME
from lab import watch
from lab.lab import Lab
from lab.machine import MachineState
from lab.store import DefinitionStore
from pipeline.errors import ConflictError, PvmlabError


def require_reachable(lab: Lab, name: str) -> None:
    """Check that a login to the machine *name* makes sense.

    :raises NotFoundError: if there is none. :raises ConflictError: if it or the provisioner is off, or hangs.
    """
    if fault := find_fault(lab, name):
        raise fault


def find_fault(lab: Lab, name: str) -> PvmlabError | None:
    """Return why the machine *name* cannot be reached, or None. :raises NotFoundError: if there is none.

    Whether an adopted one runs is not known here: ssh finds out.
    """
    is_ours = name != PROVISIONER_NAME and not DefinitionStore(lab).is_adopted(name)
    for needed in [*([name] if is_ours else []), PROVISIONER_NAME]:
        state = watch.look(lab.machine(needed))
        if state is MachineState.STUCK:
            return ConflictError(
                f"{needed} does not answer",
                details=watch.why_stuck(lab.machine(needed)),
                resolution=f"./pvmlab vm.restart {needed} --force starts it anew",
            )
        if state is not MachineState.RUNNING:
            verb = "provisioner.start" if needed == PROVISIONER_NAME else f"vm.start {needed} --wait"
            reason = lab.machine(needed).crash_reason()
            return ConflictError(f"{needed} is {state}", details=reason, resolution=f"./pvmlab {verb}")
    return None
