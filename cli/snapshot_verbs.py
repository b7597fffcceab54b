"""What the verbs of snapshots and clones do."""

from __future__ import annotations

from cli.confirm import require_yes
from cli.output import emit, say
from cli.portrait_view import describe_snapshot, moment
from cli.render_verbs import seed_documents
from contracts.document import encode
from lab import clones, snapshot_store, snapshots
from lab.clones import CloneRequest
from lab.lab import Lab
from lab.machine import StopOutcome
from lab.portrait import view_snapshot
from lab.snapshot_store import SnapshotKind
from lab.store import DefinitionStore


def take(name: str, snapshot: str, *, disk_only: bool, comment: str, output: str) -> None:
    """Take a snapshot. :raises ConflictError: if there is one of that name, or QEMU cannot save the memory."""
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    taken = snapshots.take(lab, definition, snapshot, disk_only=disk_only, comment=comment)
    _print(lab, [taken], name, output=output)
    if snapshots.is_amid_install(lab, definition, taken):
        say(f"{name} is being installed: that goes on from {snapshot} only until it has ended, or {name} boots anew")
    if taken.kind is SnapshotKind.DISK:
        how = "in order: its guest agent saw to it" if taken.quiet else "as after a power cut"
        say(f"{snapshot} holds the disks of the running {name}, its file systems {how}")


def restore(name: str, snapshot: str, *, disk_only: bool, yes: bool) -> None:
    """Put a machine back to a snapshot. :raises NotFoundError: if there is none."""
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    snapshot_store.require_snapshot(lab.home, name, snapshot)
    require_yes(f"What {name} did since its snapshot {snapshot} will be gone.", yes=yes)
    accelerator = lab.accelerator(definition.arch)
    restored, outcome = snapshots.restore(lab, definition, snapshot, accelerator, disk_only=disk_only)
    if outcome is not StopOutcome.ALREADY_OFF:
        say(f"{name}: {outcome}")
    runs = restored.kind is SnapshotKind.MEMORY and not disk_only
    say(f"{name} is as in {snapshot}, " + ("and runs on from there" if runs else f"and off: ./pvmlab vm.start {name}"))


def show(name: str, *, remove: str, yes: bool, output: str) -> None:
    """List the snapshots of a machine, having removed one if that is wished."""
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    if remove:
        snapshot_store.require_snapshot(lab.home, name, remove)
        require_yes(f"The snapshot {remove} of {name} will be gone.", yes=yes)
        snapshots.remove(lab, definition, remove)
        say(f"removed {remove}")
    snapshots.recover(lab, name)
    _print(lab, snapshot_store.list_snapshots(lab.home, name), name, output=output)


def clone(request: CloneRequest, *, output: str) -> None:
    """Make a clone. :raises PvmlabError: if it cannot be made."""
    lab = Lab.from_environment()
    made = clones.clone(lab, request, documents=lambda definition: seed_documents(lab, definition))
    definition = made.definition
    emit(
        {
            "name": definition.name, "source": request.source, "snapshot": request.snapshot, "ip": definition.ip,
            "ipv6": definition.ipv6, "mac": definition.mac, "uuid": definition.uuid, "warning": made.warning,
        },
        output=output,
        table=[("NAME", "CLONE OF", "ADDRESS", "MAC"),
               (definition.name, request.source, definition.ip, definition.mac)],
    )  # fmt: skip
    if made.warning:
        say(f"{definition.name}: {made.warning}")


def _print(lab: Lab, taken: list[snapshot_store.Snapshot], name: str, *, output: str) -> None:
    views = [view_snapshot(lab, snapshot) for snapshot in taken]
    rows = [(view.name, moment(view.time), describe_snapshot(view), view.comment) for view in views]
    emit({"name": name, "snapshots": encode(views)}, output=output,
         table=[("SNAPSHOT", "TAKEN", "WHAT", "COMMENT"), *rows])  # fmt: skip
