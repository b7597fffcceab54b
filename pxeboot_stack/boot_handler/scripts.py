"""iPXE scripts, as pure functions of validated data.

Every value comes from a validated field or from our configuration. :func:`_word` checks it once more where it goes
into the script: a value with a space, a newline or ``${`` would become a command of its own.

A script never waits for ever and never fails unseen: it says what it could not load, tries again with growing
pauses, and then gives the machine back to its firmware.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from contracts.answers import MAIN
from contracts.install import ARG_CONFIG_URL, ARG_MAC, ARG_MODE
from contracts.machine import Installer, MachineSource, VmDefinition
from contracts.tokens import answers_path, config_path
from pxeboot_stack.boot_handler.artifacts import INITRD, KERNEL, MODULES, image_url, initrd_url, native_url
from pxeboot_stack.boot_handler.settings import Settings

ATTEMPTS = 8  # with pauses of 1, 2, ... seconds: half a minute, longer than a restart of the boot handler takes
_SAFE_WORD = re.compile(r"[A-Za-z0-9._:/,=-]+\Z")


def render_chain(base_url: str) -> str:
    """Return the script that asks the boot handler what to do: ``boot.ipxe``, and ``autoexec.ipxe`` by TFTP.

    iPXE that was started by the firmware has its lease already, but its card still has to be opened. A machine that
    gets no answer goes back to its firmware with a failure, which then tries its next boot entry.
    """
    return f"""#!ipxe
# The card we booted from is the one opened last; the first one if none is open yet.
isset ${{netX/mac}} || ifopen net0 ||
isset ${{netX/ip}} || dhcp ||
set attempt:int32 1
:ask
echo pvmlab: asking {_word(base_url)} what ${{netX/mac}} is to boot
chain --replace --autofree {_word(base_url)}/ipxe?mac=${{netX/mac}} || goto failed
:failed
echo pvmlab: no boot script from {_word(base_url)}/ipxe?mac=${{netX/mac}} (attempt ${{attempt}} of {ATTEMPTS})
iseq ${{attempt}} {ATTEMPTS} && goto give_up ||
sleep ${{attempt}}
inc attempt
goto ask
:give_up
echo pvmlab: giving up; the firmware tries its next boot entry
exit 1
"""


def render_install(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    """Return the script that boots the installer.

    The kernel command line names the initrds as well: iPXE of 2019 hands over only those. An install that cannot be
    loaded restarts the machine, so that it asks again: the disk has nothing to boot.
    """
    arguments = " ".join(map(_word, (
        f"initrd={INITRD}",
        f"initrd={MODULES}",
        f"{ARG_CONFIG_URL}={settings.lan.base_url}{config_path(token)}",
        f"{ARG_MAC}={machine.mac}",
        f"{ARG_MODE}=install",
        f"console={machine.arch.serial_device},115200",
        "quiet",
    )))  # fmt: skip
    return _render_loading(machine, settings, _installer(machine, settings, arguments), what=_word(machine.distro))


def render_rescue(machine: VmDefinition, settings: Settings) -> str:
    """Return the script that boots the installer's shell. There is no token in it: the shell gets nothing secret."""
    arguments = " ".join(map(_word, (
        f"initrd={INITRD}",
        f"initrd={MODULES}",
        f"{ARG_MAC}={machine.mac}",
        f"{ARG_MODE}=shell",
        f"console={machine.arch.serial_device},115200",
        "quiet",
    )))  # fmt: skip
    loads = _installer(machine, settings, arguments)
    return _render_loading(machine, settings, loads, what="nothing: it boots a rescue shell")


def _installer(machine: VmDefinition, settings: Settings, arguments: str) -> list[str]:
    """Return iPXE's lines that load our installer. :param arguments: its kernel's, as they stand in a script."""
    return [
        f"kernel --name {KERNEL} {_word(image_url(settings, machine, KERNEL))} {arguments}",
        f"initrd --name {INITRD} {_word(initrd_url(settings, machine))}",
        f"initrd --name {MODULES} {_word(image_url(settings, machine, MODULES))}",
    ]


def render_native(machine: VmDefinition, settings: Settings, *, token: str) -> str:
    """Return the script that boots the distribution's own installer.

    Sources of the arguments: appendix B of the Debian installation guide; "How to netboot the server installer" of
    Ubuntu's server documentation; "Boot options" of Anaconda's documentation, with dracut.cmdline(7).
    """
    arguments = {
        Installer.PRESEED: _preseed_arguments,
        Installer.AUTOINSTALL: _autoinstall_arguments,
        Installer.KICKSTART: _kickstart_arguments,
    }[machine.installer](machine, settings, token)
    loads = [
        f"kernel --name {KERNEL} {_word(native_url(settings, machine, KERNEL))} initrd=initrd {arguments}",
        f"initrd --name initrd {_word(native_url(settings, machine, 'initrd'))}",
    ]
    return _render_loading(machine, settings, loads, what=f"{_word(machine.distro)} by {machine.installer}")


def _preseed_arguments(machine: VmDefinition, settings: Settings, token: str) -> str:
    answers = settings.lan.base_url + answers_path(token) + MAIN[machine.installer]
    return " ".join(map(_word, (
        "auto=true",  # ask for language and keyboard after the answers are there
        "priority=critical",
        f"url={answers}",
        # What is asked before the answers are there.
        "interface=auto",
        f"hostname={machine.name}",
        f"domain={settings.lan.domain}",
        "DEBIAN_FRONTEND=text",  # lines, no windows: the console's log stays readable
        "---",  # what follows is for the installed system, too
        f"console={machine.arch.serial_device},115200",
    )))  # fmt: skip


def _autoinstall_arguments(machine: VmDefinition, settings: Settings, token: str) -> str:
    answers = _word(settings.lan.base_url + answers_path(token))
    return " ".join((
        "ip=dhcp",
        _word(f"url={native_url(settings, machine, 'install.iso')}"),
        # cloud-init, too, takes url= as its own: it would read the whole disc.
        "cloud-config-url=/dev/null",
        "autoinstall",
        f"ds=nocloud;s={answers}",  # to iPXE a semicolon within a word is no separator
        _word(f"console={machine.arch.serial_device},115200"),
    ))  # fmt: skip


def _kickstart_arguments(machine: VmDefinition, settings: Settings, token: str) -> str:
    answers = settings.lan.base_url + answers_path(token) + MAIN[machine.installer]
    return " ".join(map(_word, (
        f"inst.stage2={native_url(settings, machine, '')}",
        f"inst.ks={answers}",
        "inst.text",
        "ip=dhcp",
        f"console={machine.arch.serial_device},115200",
    )))  # fmt: skip


def _render_loading(machine: VmDefinition, settings: Settings, loads: Sequence[str], *, what: str) -> str:
    """Return a script that loads and boots. :param loads: iPXE commands, of checked words, as *what* is."""
    name, base_url = _word(machine.name), _word(settings.lan.base_url)
    lines = "\n".join(f"{load} || goto failed" for load in loads)
    return f"""#!ipxe
echo pvmlab: {name} installs {what}
set attempt:int32 1
:load
imgfree
{lines}
boot || goto failed
:failed
echo pvmlab: no installer for {name} from {base_url} (attempt ${{attempt}} of {ATTEMPTS})
iseq ${{attempt}} {ATTEMPTS} && goto give_up ||
sleep ${{attempt}}
inc attempt
goto load
:give_up
echo pvmlab: giving up; {name} restarts
sleep 5
reboot
"""


def render_boot_disk(machine: VmDefinition) -> str:
    """Return the script that gives an installed machine back to its firmware, which boots the disk.

    The exit status must not be 0: UEFI takes a boot entry that ends well as a reason to show its menu.
    """
    how = "is installed" if machine.source is MachineSource.NETWORK else "has its system from a cloud image"
    return f"""#!ipxe
echo pvmlab: {_word(machine.name)} {how}; it boots from its disk
exit 1
"""


def _word(text: str) -> str:
    if not _SAFE_WORD.match(text):
        raise ValueError(f"{text!r} cannot be written into an iPXE script")
    return text
