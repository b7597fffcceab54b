"""What is looked at before a machine is created: what a person wrote for it, and the image that it comes from."""

from __future__ import annotations

from cli.builds import image_task
from cli.start_checks import require_documents
from contracts.lan import Lan
from contracts.machine import MachineSource, VmDefinition
from lab.cloud_machine import ensure_base, require_room
from lab.lab import Lab
from lab.store import MachineRequest


def require_creatable(lab: Lab, definition: VmDefinition, request: MachineRequest, *, lan: Lan | None = None) -> None:
    """Check all that a person wrote for a machine that is being created, and the image it comes from.

    :param lan: its network, if that is to be another than the lab's now.
    :raises UsageError: if the image does not fit on its disk, or its distribution publishes none.
    :raises PvmlabError: as :func:`require_documents`.
    """
    require_documents(lab, definition, request=request, lan=lan)
    if definition.source is not MachineSource.IMAGE:
        return
    if definition.image:
        require_room(ensure_base(lab, definition), definition.disk_gib)
    else:
        image_task(definition.distro, definition.arch)
