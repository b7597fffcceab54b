"""What is looked at before a machine is created: what a person wrote for it, by the code that will read it."""

from __future__ import annotations

from cli.builds import image_task
from cli.render_verbs import require_templates
from contracts.machine import MachineSource, VmDefinition
from lab.cloud_machine import ensure_base, require_room
from lab.lab import Lab
from pipeline.errors import UsageError


def require_sound(lab: Lab, definition: VmDefinition, user_data: str | None) -> None:
    """Check all that a person wrote for a machine that is being created, and the image it comes from.

    :raises UsageError: if the user-data is at fault by cloud-init's schema, the image does not fit on its disk, or its
        distribution publishes none.
    :raises PvmlabError: if a template does not render.
    """
    require_templates(lab, definition)
    if user_data is not None:
        require_user_data(lab, definition, user_data)
    if definition.source is not MachineSource.IMAGE:
        return
    if definition.image:
        require_room(ensure_base(lab, definition), definition.disk_gib)
    else:
        image_task(definition.distro, definition.arch)


def require_user_data(lab: Lab, definition: VmDefinition, text: str) -> None:
    """Check user-data as ``render --check`` does.

    :raises UsageError: with all that is wrong.
    """
    from cli.render_checks import check_user_data

    found = check_user_data(text, definition, lab.cache)
    if found.faults:
        raise UsageError(
            f"the user-data for {definition.name} is at fault: {found.by}",
            details="\n".join(found.faults),
            resolution="repair it; https://cloudinit.readthedocs.io/en/latest/reference/modules.html says what may be",
        )
