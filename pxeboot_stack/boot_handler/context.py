"""The values that templates may use: those of one machine, and of its lab. docs/reference/templates.md has them all."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from contracts import nocloud
from contracts.answers import REPORT
from contracts.machine import Installer, VmDefinition
from contracts.mirror import find_mirror
from contracts.tokens import answers_path, config_path, ignition_path, report_path, seed_path
from pxeboot_stack.boot_handler.artifacts import KERNEL, MODULES, image_url, initrd_url, native_url
from pxeboot_stack.boot_handler.quoting import Quoted, plain_line
from pxeboot_stack.boot_handler.settings import Settings


def context(machine: VmDefinition, settings: Settings, *, token: str) -> dict[str, Any]:
    """Return the values that templates of *machine* may use. No other machine's are among them."""
    lan, base = settings.lan, settings.lan.base_url
    answers = base + answers_path(token)
    system = nocloud.render_user_data(machine, lan)
    return {
        "machine": _machine_values(machine, settings),
        "lan": {"subnet": lan.subnet, "domain": lan.domain, "provisioner": str(lan.provisioner)},
        "urls": {
            "base": base,
            "answers": answers,
            "seed": base + seed_path(token),
            "config": base + config_path(token),
            "ignition": base + ignition_path(token),
            "report": base + report_path(token),
            "images": image_url(settings, machine, ""),
            "native": native_url(settings, machine, ""),
            "kernel": image_url(settings, machine, KERNEL),
            "modules": image_url(settings, machine, MODULES),
            "initrd": initrd_url(settings, machine),
        },
        "mirror": find_mirror(machine.package_sources),
        "report": _report_commands(machine.installer, answers),
        "system_user_data": json.loads(system.removeprefix("#cloud-config\n")),
    }


def _machine_values(machine: VmDefinition, settings: Settings) -> dict[str, Any]:
    disk = machine.disk_bus.device
    return {
        "name": machine.name,
        "fqdn": f"{machine.name}.{settings.lan.domain}",
        "mac": machine.mac,
        "ip": machine.ip,
        "ipv6": machine.ipv6,
        "nics": [{"mac": card.mac, "ip": card.ip, "ipv6": card.ipv6} for card in machine.cards],
        "uuid": machine.uuid,
        "arch": str(machine.arch),
        "distro": machine.distro,
        "installer": str(machine.installer),
        "disk": disk,
        "disk_name": disk.removeprefix("/dev/"),
        "user": machine.user,
        "ssh_authorized_keys": machine.ssh_authorized_keys,
        "ssh_host_key": {"private": machine.ssh_host_key.private, "public": machine.ssh_host_key.public},
        "package_sources": machine.package_sources,
        "repository": machine.repository,
        "console": f"console={machine.arch.serial_device},115200",
        "reboot_on_success": machine.reboot_on_success,
    }


def _report_commands(installer: Installer, answers: str) -> Mapping[str, Callable[..., Quoted]]:
    """Return functions that make shell commands which report; they succeed also if the lab cannot be told."""
    fetch = "wget -q -T 30 -t 4 -O -" if installer is Installer.PRESEED else "curl --silent --fail --retry 4"

    def command(*words: str) -> Quoted:
        return Quoted(plain_line(f"{fetch} {shlex.quote(answers + REPORT)} | sh -s -- {shlex.join(words)} || true"))

    def running(phase: str, percent: int, message: str) -> Quoted:
        return command(phase, "running", str(percent), message)

    def failed(phase: str, message: str, log: str = "") -> Quoted:
        return command(phase, "failed", "0", message, *([log] if log else []))

    def done(message: str = "the installer has finished") -> Quoted:
        return command("bootloader", "done", "100", message)

    return {"running": running, "failed": failed, "done": done}
