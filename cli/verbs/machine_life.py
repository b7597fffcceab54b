"""The verbs of living with machines, ``vm.*``: those of one that is there, of many at once, of snapshots and clones."""

from __future__ import annotations

from collections.abc import Sequence

from invoke import Context, Exit, task

from cli.verbs.words import ACTED, OUTPUT, TIMEOUT

_MACHINE = "the machine, or provisioner"


@task(name="restart", positional=["name"], auto_shortflags=False, help={
    "name": _MACHINE,
    "force": "do not ask its system to shut down",
    "wait": "return when one can log in",
    "stop-timeout": "seconds for its system to shut down, then force is used",
    "timeout": TIMEOUT,
    "output": ACTED,
})  # fmt: skip
def vm_restart(
    _c: Context, name: str, *, force: bool = False, wait: bool = False, stop_timeout: int = 60, timeout: int = 0,
    output: str = "table",
) -> None:  # fmt: skip
    """Stop a machine and start it, as vm.stop and vm.start do. A machine that is off is just started."""
    from cli.afterwards import tell_machine
    from cli.machine_life_verbs import restart

    restart(name, force=force, wait=wait, stop_timeout=stop_timeout, timeout=timeout or None)
    tell_machine(name, output=output)


@task(name="show", positional=["name"], auto_shortflags=False, help={"name": "the machine", "output": OUTPUT})
def vm_show(_c: Context, name: str, output: str = "table") -> None:
    """Show all about a machine: state, hardware, addresses, disks, snapshots, forwards, install, last events."""
    from cli.machine_life_verbs import show

    show(name, output=output)


@task(name="run", positional=[], iterable=["name", "label"], auto_shortflags=False, help={
    "name": "the machines",
    "all": "on all machines that the lab runs",
    "label": "on those with this label: KEY=VALUE, or KEY for any value (repeatable: on those with all of them)",
    "jobs": "on so many machines at a time",
    "timeout": "seconds for each machine",
    "output": OUTPUT,
})  # fmt: skip
def vm_run(
    c: Context, name: Sequence[str], label: Sequence[str], jobs: int = 8, timeout: int = 300, output: str = "table",
    *, all: bool = False,  # noqa: A002 (the option's name)
) -> None:  # fmt: skip
    """Run a command on several machines at once: `vm.run web1 web2 -- COMMAND`.

    Each line comes with its machine's name. Exit code 0 if the command ended well on all of them, else 1.
    """
    from cli.machine_life_verbs import run_on_machines

    good = run_on_machines(
        name, str(c.remainder), everyone=all, labels=label, jobs=jobs, timeout=timeout, output=output
    )  # fmt: skip
    raise Exit(code=0 if good else 1)


@task(name="copy", positional=["source", "destination"], auto_shortflags=False, help={
    "source": "a path of this host, or NAME:PATH",
    "destination": "the same; one of both is a machine's",
    "recursive": "a folder with all that is in it",
    "output": ACTED,
})  # fmt: skip
def vm_copy(
    _c: Context, source: str, destination: str, *, recursive: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Copy files to or from a machine by scp: `vm.copy FILE web1:/tmp/`. Times and permissions are kept."""
    from cli.afterwards import tell_copied
    from cli.machine_life_verbs import copy

    copy(source, destination, recursive=recursive)
    tell_copied(source, destination, output=output)


@task(name="console", positional=["name"], auto_shortflags=False, help={"name": _MACHINE})
def vm_console(_c: Context, name: str) -> None:
    """Sit at a machine's serial console. Ctrl-] leaves; every other key goes to the machine."""
    from cli.machine_life_verbs import sit_at_console

    sit_at_console(name)


@task(name="screenshot", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "file": "the PNG file to write (default: NAME.png in this folder)",
    "output": OUTPUT,
})  # fmt: skip
def vm_screenshot(_c: Context, name: str, file: str = "", output: str = "table") -> None:
    """Take a picture of a machine's screen, as PNG. (What its serial console says is in vm.logs.)"""
    from cli.machine_life_verbs import take_screenshot

    take_screenshot(name, file=file, output=output)


@task(name="forward", positional=["name"], iterable=["port"], auto_shortflags=False, help={
    "name": "the machine",
    "port": "HOST:MACHINE, a port of 127.0.0.1 and one of the machine, such as 8080:80",
    "remove": "a port of this host that shall lead there no longer",
    "output": OUTPUT,
})  # fmt: skip
def vm_forward(
    _c: Context, name: str, port: Sequence[str], remove: int = 0, output: str = "table"
) -> None:  # fmt: skip
    """Forward TCP ports of this host to a machine, through SSH, whenever it runs; or list its forwards."""
    from cli.machine_life_verbs import forward

    forward(name, port, remove=remove, output=output)


@task(name="clone", positional=["source", "name"], auto_shortflags=False, help={
    "source": "the machine to clone: it is off, or see --snapshot",
    "name": "the new machine: 1 to 63 of a-z, 0-9 and inner hyphens",
    "snapshot": "clone it as it was in this snapshot",
    "ip": "address in the lower half of the lab's network (default: the first free one)",
    "mac": "MAC address (default: made from the lab and the name)",
    "keep-identity": "leave its system as it is, with host name and keys: never let both run at once",
    "output": OUTPUT,
})  # fmt: skip
def vm_clone(
    _c: Context, source: str, name: str, snapshot: str = "", ip: str = "", mac: str = "", output: str = "table",
    *, keep_identity: bool = False,
) -> None:  # fmt: skip
    """Make a machine like another one, with its disks and an identity of its own, in about a second.

    The disks are not copied: both go on from what was on them, and take as much space as they differ by.
    """
    from cli.snapshot_verbs import clone
    from lab.clones import CloneRequest

    clone(
        CloneRequest(
            source=source, name=name, snapshot=snapshot, ip=ip or None, mac=mac or None, keep_identity=keep_identity
        ),
        output=output,
    )


@task(name="snapshot", positional=["name", "snapshot"], auto_shortflags=False, help={
    "name": "the machine",
    "snapshot": "what to call it: 1 to 63 of a-z, 0-9 and inner hyphens",
    "disk-only": "of a running machine, leave its memory out: as after a power cut",
    "comment": "a few words about it",
    "output": OUTPUT,
})  # fmt: skip
def vm_snapshot(
    _c: Context, name: str, snapshot: str, comment: str = "", output: str = "table", *, disk_only: bool = False
) -> None:
    """Take a snapshot of a machine: its disks, firmware and install state; and its memory, if it runs."""
    from cli.snapshot_verbs import take

    take(name, snapshot, disk_only=disk_only, comment=comment, output=output)


@task(name="restore", positional=["name", "snapshot"], auto_shortflags=False, help={
    "name": "the machine",
    "snapshot": "the snapshot",
    "disk-only": "leave the memory out: the machine is off then",
    "yes": "do not ask",
    "output": ACTED,
})  # fmt: skip
def vm_restore(
    _c: Context, name: str, snapshot: str, *, disk_only: bool = False, yes: bool = False, output: str = "table"
) -> None:  # fmt: skip
    """Put a machine back to a snapshot. What it did since is gone; the snapshot stays."""
    from cli.afterwards import tell_machine
    from cli.snapshot_verbs import restore

    restore(name, snapshot, disk_only=disk_only, yes=yes)
    tell_machine(name, output=output)


@task(name="snapshots", positional=["name"], auto_shortflags=False, help={
    "name": "the machine",
    "remove": "remove this one first",
    "yes": "do not ask",
    "output": OUTPUT,
})  # fmt: skip
def vm_snapshots(
    _c: Context, name: str, remove: str = "", output: str = "table", *, yes: bool = False
) -> None:  # fmt: skip
    """List the snapshots of a machine, or remove one."""
    from cli.snapshot_verbs import show

    show(name, remove=remove, yes=yes, output=output)


verbs = (
    vm_restart, vm_show, vm_run, vm_copy, vm_console, vm_screenshot, vm_forward, vm_clone, vm_snapshot, vm_restore,
    vm_snapshots,
)  # fmt: skip
