"""The verbs of one machine, ``vm.*``."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

from cli.verbs import machine_life
from cli.verbs.words import ACTED, OUTPUT, TIMEOUT


@task(name="create", positional=["name"], optional=["disk"], auto_shortflags=False,
      iterable=["more_disk", "ip", "ipv6", "mac", "label", "qemu_arg"], help={
    "name": "1 to 63 of a-z, 0-9 and inner hyphens",
    "distro": "what to install on it",
    "arch": "x86_64 or aarch64",
    "cpus": "number of processors",
    "memory": "such as 1G or 1536M",
    "disk-size": "of the disk with its system, such as 8G",
    "disk-bus": "nvme, sata or virtio",
    "more-disk": "one more, empty disk: SIZE or SIZE:BUS, such as 4G:virtio (repeatable)",
    "nics": "number of LAN cards (default: as many as addresses are given, at least 1)",
    "nic-model": "virtio or e1000e",
    "firmware": "uefi (PXE), uefi-http (UEFI HTTP boot), or bios (with the distribution's own installer)",
    "secure-boot": "its disk boots with Secure Boot on; its install boots without",
    "tpm": "with a TPM 2.0",
    "ip": "address in the lower half of the lab's network (default: the first free one; no default with --dhcp=proxy; "
          "repeatable, once a card)",
    "ipv6": "IPv6 address (default: the one with the number of its IPv4 address; repeatable, once a card)",
    "mac": "MAC address (default: made from the lab and the name; repeatable, once a card)",
    "label": "KEY=VALUE: a word about it for people and programs (repeatable)",
    "qemu-arg": "one further argument of QEMU, after all others: the last resort (repeatable)",
    "installer": "pvmlab, or native: the distribution's own (default: pvmlab; native with --answer-file)",
    "disk": "no install: the system comes from the distribution's cloud image, or from this one (qcow2 or raw)",
    "user-data": "a file for cloud-init, besides what the lab tells it: cloud-config, a script, ...",
    "answer-file": "what the distribution's own installer is told, instead of the lab's answers; *.j2 is a template",
    "output": ACTED,
})  # fmt: skip
def vm_create(  # noqa: PLR0913, PLR0917 (one argument for each option)
    _c: Context, name: str, more_disk: Sequence[str], ip: Sequence[str], ipv6: Sequence[str], mac: Sequence[str],
    label: Sequence[str], qemu_arg: Sequence[str], distro: str = "debian-12", arch: str = "x86_64", cpus: int = 2,
    memory: str = "1G", disk_size: str = "8G", disk_bus: str = "nvme", nics: int = 0, nic_model: str = "virtio",
    firmware: str = "uefi", *, secure_boot: bool = False, tpm: bool = False, installer: str = "",
    answer_file: str = "", disk: str = "", user_data: str = "", output: str = "table",
) -> None:  # fmt: skip
    """Define a target machine and make its disk. `vm.start` installs it; with --disk, it starts from a cloud image."""
    from cli.afterwards import tell_machine
    from cli.machine_options import HardwareWords
    from cli.machine_verbs import create

    hardware = HardwareWords(
        cpus=cpus, memory=memory, disk_size=disk_size, disk_bus=disk_bus, more_disk=more_disk, nics=nics,
        nic_model=nic_model, firmware=firmware, secure_boot=secure_boot, tpm=tpm, ip=ip, ipv6=ipv6, mac=mac,
        label=label, qemu_arg=qemu_arg,
    )  # fmt: skip
    create(name, distro=distro, arch=arch, hardware=hardware, installer=installer, answer_file=answer_file,
           disk=disk, user_data=user_data)  # fmt: skip
    tell_machine(name, output=output)


@task(name="set", positional=["name"], iterable=["label"], auto_shortflags=False, help={
    "name": "the machine",
    "cpus": "number of processors",
    "memory": "such as 1G or 1536M",
    "label": "KEY=VALUE sets a label, KEY- removes it (repeatable)",
    "output": ACTED,
})  # fmt: skip
def vm_set(
    _c: Context, name: str, label: Sequence[str], cpus: str = "", memory: str = "", output: str = "table"
) -> None:  # fmt: skip
    """Change a machine's processors, memory or labels. A machine that runs has the new hardware at its next start."""
    from cli.afterwards import tell_machine
    from cli.machine_changes import change

    change(name, cpus=cpus, memory=memory, labels=label)
    tell_machine(name, output=output)


@task(name="start", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "wait": "return when it is installed, SSH answers and cloud-init has finished",
    "boot": "disk or pxe: what it boots from, this time (default: what it needs next)",
    "no-reboot": "it is off where its system would reboot, such as at the end of its install",
    "interactive": "then sit at its console (Ctrl-] leaves): not with --wait",
    "timeout": TIMEOUT,
    "output": ACTED,
})  # fmt: skip
def vm_start(
    _c: Context, name: str, boot: str = "", *, wait: bool = False, no_reboot: bool = False, interactive: bool = False,
    timeout: int = 0, output: str = "table",
) -> None:  # fmt: skip
    """Start a machine, and the provisioner if that is off. Not installed yet, it installs itself over the network."""
    from cli.afterwards import tell_machine

    if interactive:
        from cli.machine_life_verbs import start_interactively

        start_interactively(name, boot=boot, reboots=not no_reboot, wait=wait, timeout=timeout or None)
    else:
        from cli.machine_verbs import start

        start(name, wait=wait, boot=boot, reboots=not no_reboot, timeout=timeout or None)
    tell_machine(name, output=output)


@task(name="stop", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "force": "do not ask its system to shut down",
    "timeout": "seconds for its system to shut down, then force is used",
    "output": ACTED,
})  # fmt: skip
def vm_stop(_c: Context, name: str, *, force: bool = False, timeout: int = 60, output: str = "table") -> None:
    """Stop a machine. A machine that is off is fine too."""
    from cli.afterwards import tell_machine
    from cli.machine_verbs import stop

    stop(name, timeout=timeout, force=force)
    tell_machine(name, output=output)


@task(name="list", auto_shortflags=False, help={"output": OUTPUT})
def vm_list(_c: Context, output: str = "table") -> None:
    """List the target machines."""
    from cli.lab_views import show_machines
    from lab.lab import Lab

    show_machines(Lab.from_environment(), output=output)


@task(name="shell", positional=["name"], auto_shortflags=False, help={"name": "the machine, or provisioner"})
def vm_shell(c: Context, name: str) -> None:
    """Log in to a machine by SSH; or run a command there: `vm.shell NAME -- COMMAND`.

    Output and exit code of the command are passed on. Several words are passed exactly as they are; one single word
    is a command line for the machine's shell.
    """
    from cli.machine_verbs import shell

    raise Exit(code=shell(name, str(c.remainder) or None))


@task(name="logs", positional=["name"], auto_shortflags=False, help={
    "name": "the machine, or provisioner",
    "which": "serial (its console), qemu (QEMU's words) or lab (what was done to it)",
    "follow": "go on with what is added, until Ctrl-C",
})  # fmt: skip
def vm_logs(_c: Context, name: str, which: str = "serial", *, follow: bool = False) -> None:
    """Print a log of a machine."""
    from cli.machine_verbs import print_log

    print_log(name, which=which, follow=follow)


@task(name="clean", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "yes": "do not ask",
    "output": ACTED,
})  # fmt: skip
def vm_clean(_c: Context, name: str, *, yes: bool = False, output: str = "table") -> None:
    """Remove a machine: its definition, disk, install state and logs. It is ended if it runs."""
    from cli.afterwards import tell_removed
    from cli.machine_verbs import clean_machine

    clean_machine(name, yes=yes)
    tell_removed(name, output=output)


@task(name="events", positional=["name"], auto_shortflags=False, help={
    "name": "the machine, or a MAC address",
    "follow": "go on with what happens, until Ctrl-C",
    "output": OUTPUT,
})  # fmt: skip
def vm_events(_c: Context, name: str, *, follow: bool = False, output: str = "table") -> None:
    """Show what was seen of a machine: DHCP, TFTP, HTTP, scripts, phases; and why it does not go on."""
    from cli.boot_verbs import show_events

    show_events(name, follow=follow, output=output)


@task(name="reinstall", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "rescue": "boot the installer's shell instead, once; the disk is not touched",
    "withdraw": "take back what was ordered",
    "output": ACTED,
})  # fmt: skip
def vm_reinstall(
    _c: Context, name: str, *, rescue: bool = False, withdraw: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Order one more install of a machine, at its next network boot: what is on its disk will be lost."""
    from cli.afterwards import tell_machine
    from cli.boot_verbs import reinstall

    reinstall(name, rescue=rescue, withdraw=withdraw)
    tell_machine(name, output=output)


@task(name="adopt", positional=[], iterable=["mac"], auto_shortflags=False, help={
    "mac": "the machine's MAC address (default: list the unknown machines that were seen)",
    "name": "what to call it: 1 to 63 of a-z, 0-9 and inner hyphens",
    "distro": "what to install on it",
    "arch": "x86_64 or aarch64",
    "ip": "address in the lower half of the lab's network (default: the first free one; with --dhcp=proxy, the one it "
          "was seen with)",
    "output": OUTPUT,
})  # fmt: skip
def vm_adopt(
    _c: Context, mac: Sequence[str], name: str = "", distro: str = "debian-12", arch: str = "x86_64", ip: str = "",
    output: str = "table",
) -> None:  # fmt: skip
    """Make an unknown machine that asked the network to boot one of the lab's. What is on its disk will be lost."""
    from cli.afterwards import tell_machine
    from cli.boot_verbs import adopt

    adopt(mac, name=name, distro=distro, arch=arch, ip=ip, output=output)
    if mac:
        tell_machine(name, output=output)


collection = Collection(
    vm_create, vm_set, vm_start, vm_stop, vm_list, vm_shell, vm_logs, vm_clean, vm_events, vm_reinstall, vm_adopt,
    *machine_life.verbs,
)  # fmt: skip
