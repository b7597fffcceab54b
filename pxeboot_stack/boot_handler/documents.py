"""Every document that is for one machine alone, by its path below the machine's token: the one door to them.

The boot handler serves them, and ``./pvmlab render`` prints the same: what a person sees is what a machine gets.
"""

from __future__ import annotations

import dataclasses

from contracts import document as json_document
from contracts.install import InstallerConfig
from contracts.machine import FIRST_DISK_SERIAL, VmDefinition
from contracts.templates import What
from contracts.tokens import PLACEHOLDER, report_path, seed_path
from pxeboot_stack.boot_handler import answers, moment, scripts, seed, user_templates
from pxeboot_stack.boot_handler.artifacts import require_artifacts, require_kernel, require_rootfs
from pxeboot_stack.boot_handler.payloads import require_payloads
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
CONFIG = "config"
IGNITION = "ignition"
SEED = "cloud-init/"
ANSWERS = "answers/"


@dataclasses.dataclass(frozen=True)
class Document:
    """A body and what it is."""

    body: str
    media_type: str = TEXT


def render(machine: VmDefinition, path: str, settings: Settings, *, token: str) -> Document:
    """Return the document of *machine* at *path*, as ``config``, ``cloud-init/user-data`` or ``answers/ks.cfg``.

    :raises Refusal: 404 if it has none there; 500 if a person's file for it cannot be used; 503 if an artifact that it
        speaks of is missing.
    """
    if path == CONFIG:
        return Document(_installer_config(machine, settings, token=token), JSON)
    if path.startswith(SEED):
        return Document(seed.render(machine, path.removeprefix(SEED), settings, token=token))
    if path.startswith(ANSWERS):
        return Document(answers.render(machine, path.removeprefix(ANSWERS), settings, token=token))
    if path == IGNITION:
        return Document(_ignition(machine, settings, token=token), JSON)
    raise Refusal(404, f"{machine.name} has no document {path[:80]!r}")


def boot_script(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    """Return the iPXE script that boots the installer of *machine*: a person's template, or ours.

    :raises Refusal: 500 if the template cannot be used.
    """

    def standard() -> str:
        render_script = scripts.render_native if machine.installer.is_native else scripts.render_install
        return render_script(machine, settings, token=token)

    text = user_templates.render(machine, What.IPXE, settings, token=token, standard=standard)
    return standard() if text is None else text


def check(machine: VmDefinition, settings: Settings) -> None:
    """Try all that an install of *machine* cannot begin without, so that it is not sent half-way.

    A boot script of a person's template may boot anything at all: then our artifacts need not be there.

    :raises Refusal: 503 naming the artifact that is missing; 500 naming the person's file that cannot be used.
    """
    if user_templates.find(machine, What.IPXE, settings) is None:
        kind = (machine.distro, machine.arch, machine.installer)
        moment.once(("artifacts", kind), lambda: _require_all(machine, settings))
    check_templates(machine, settings)


def _require_all(machine: VmDefinition, settings: Settings) -> None:
    require_artifacts(settings, machine)
    if not machine.installer.is_native:
        require_payloads(settings, machine)


def check_templates(machine: VmDefinition, settings: Settings) -> None:
    """Render all that a person wrote for *machine*.

    :raises Refusal: 500 naming the first that cannot be used.
    """
    check_boot_templates(machine, settings)
    if machine.installer.is_native:
        answers.check(machine, settings)
    else:
        seed.check(machine, settings)


def check_boot_templates(machine: VmDefinition, settings: Settings) -> None:
    """Render those that are for whatever installs *machine*.

    :raises Refusal: 500 naming the first that cannot be used.
    """
    if user_templates.find(machine, What.IPXE, settings) is not None:
        boot_script(machine, settings, token=PLACEHOLDER)
    if user_templates.find(machine, What.IGNITION, settings) is not None:
        _ignition(machine, settings, token=PLACEHOLDER)


def _installer_config(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    base, payloads = settings.lan.base_url, require_payloads(settings, machine)
    own_script = user_templates.find(machine, What.IPXE, settings) is not None
    config = InstallerConfig(
        name=machine.name,
        mac=machine.mac,
        arch=machine.arch,
        distro=machine.distro,
        domain=settings.lan.domain,
        disk=machine.disk_bus.device,
        rootfs=require_rootfs(settings, machine),
        kernel=None if own_script else require_kernel(settings, machine),
        initrd_tree=payloads.initrd,
        modules_tree=payloads.modules,
        seed_url=base + seed_path(token),
        report_url=base + report_path(token),
        kernel_args=(f"console={machine.arch.serial_device},115200", "quiet"),
        reboot_on_success=machine.reboot_on_success,
        disk_serial=FIRST_DISK_SERIAL if machine.first_disk_is_uncertain else "",
    )
    return json_document.dumps(config)


def _ignition(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    def standard() -> str:
        return '{"ignition": {"version": "3.0.0"}}\n'  # the least that is valid: there is no other of ours

    text = user_templates.render(machine, What.IGNITION, settings, token=token, standard=standard)
    if text is None:
        raise Refusal(
            404, f"the lab has no template {What.IGNITION}.j2, so {machine.name} has no Ignition configuration"
        )
    return text
