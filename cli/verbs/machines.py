"""The verbs of one machine, ``vm.*``."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Collection, Context, Exit, task

from cli.verbs.words import OUTPUT, TIMEOUT


@task(name="create", positional=["name"], auto_shortflags=False, help={
    "name": "1 to 63 of a-z, 0-9 and inner hyphens",
    "distro": "what to install on it",
    "arch": "x86_64 or aarch64",
    "cpus": "number of processors",
    "memory": "such as 1G or 1536M",
    "disk-size": "such as 8G",
    "disk-bus": "nvme or virtio",
    "firmware": "uefi (PXE), uefi-http (UEFI HTTP boot), or bios (with the distribution's own installer)",
    "ip": "address in the lower half of the lab's network (default: the first free one; no default with --dhcp=proxy)",
    "mac": "MAC address (default: made from the lab and the name)",
    "installer": "pvmlab, or native: the distribution's own (default: pvmlab; native with --answer-file)",
    "answer-file": "what the distribution's own installer is told, instead of the lab's answers; *.j2 is a template",
})  # fmt: skip
def vm_create(  # noqa: PLR0913, PLR0917 (one argument for each option)
    _c: Context, name: str, distro: str = "debian-12", arch: str = "x86_64", cpus: int = 2, memory: str = "1G",
    disk_size: str = "8G", disk_bus: str = "nvme", firmware: str = "uefi", ip: str = "", mac: str = "",
    installer: str = "", answer_file: str = "",
) -> None:  # fmt: skip
    """Define a target machine and make its empty disk. `vm.start` installs it."""
    from cli.machine_verbs import create

    create(name, distro=distro, arch=arch, cpus=cpus, memory=memory, disk_size=disk_size, disk_bus=disk_bus,
           firmware=firmware, ip=ip, mac=mac, installer=installer, answer_file=answer_file)  # fmt: skip


@task(name="start", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "wait": "return when it is installed, SSH answers and cloud-init has finished",
    "timeout": TIMEOUT,
})  # fmt: skip
def vm_start(_c: Context, name: str, *, wait: bool = False, timeout: int = 0) -> None:
    """Start a machine, and the provisioner if that is off. Not installed yet, it installs itself over the network."""
    from cli.machine_verbs import start

    start(name, wait=wait, timeout=timeout or None)


@task(name="stop", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "force": "do not ask its system to shut down",
    "timeout": "seconds for its system to shut down, then force is used",
})  # fmt: skip
def vm_stop(_c: Context, name: str, *, force: bool = False, timeout: int = 60) -> None:
    """Stop a machine. A machine that is off is fine too."""
    from cli.machine_verbs import stop

    stop(name, timeout=timeout, force=force)


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


@task(name="clean", positional=["name"], auto_shortflags=False, help={"name": "the machine", "yes": "do not ask"})
def vm_clean(_c: Context, name: str, *, yes: bool = False) -> None:
    """Remove a machine: its definition, disk, install state and logs. It is ended if it runs."""
    from cli.machine_verbs import clean_machine

    clean_machine(name, yes=yes)


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
})  # fmt: skip
def vm_reinstall(_c: Context, name: str, *, rescue: bool = False, withdraw: bool = False) -> None:
    """Order one more install of a machine, at its next network boot: what is on its disk will be lost."""
    from cli.boot_verbs import reinstall

    reinstall(name, rescue=rescue, withdraw=withdraw)


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
    from cli.boot_verbs import adopt

    adopt(mac, name=name, distro=distro, arch=arch, ip=ip, output=output)


collection = Collection(
    vm_create, vm_start, vm_stop, vm_list, vm_shell, vm_logs, vm_clean, vm_events, vm_reinstall, vm_adopt
)
