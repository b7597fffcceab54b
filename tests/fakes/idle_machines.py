"""A lab whose machines are real QEMUs that never run a guest: made as vm.start makes them, and paused (``-S``).

They count as installed, so that no artifact is needed. Their CPUs run only where a test says ``cont``.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from contracts import document
from contracts.arch import Arch
from contracts.machine import DiskBus, VmDefinition
from contracts.report import InstallState, MachineStatus
from lab import journey, ssh, target
from lab.disks import create_empty_disk
from lab.keys import make_key
from lab.lab import Lab
from lab.machine import Machine
from lab.qemu import qemu_program
from lab.spec import Accelerator, AcceleratorKind
from lab.store import DefinitionStore
from lab.target import BootFrom, StartOptions
from pipeline import commit
from pipeline.emulation import qemu_version, tcg_cpu
from pipeline.run import require_program
from pipeline.workspace import Cache, Home, Workspace


class IdleLab:
    """The lab. :ivar lab: as the code under test sees it."""

    def __init__(self, folder: Path) -> None:
        self.lab = Lab(Workspace(Cache(folder / "cache"), Home(folder / "home")))
        self.lab.ensure_folders()
        self._made = 0

    @property
    def accelerator(self) -> Accelerator:
        """TCG, which is everywhere."""
        version = qemu_version(Path(require_program(qemu_program(Arch.X86_64))))
        return Accelerator(AcceleratorKind.TCG, tcg_cpu(Arch.X86_64, version), "it is a test", patience=5.0)

    def make(self, name: str, *, bus: DiskBus = DiskBus.VIRTIO, **more: object) -> VmDefinition:
        """Make a machine that counts as installed, on an empty disk of 2 GiB."""
        self._made += 1
        definition = VmDefinition(
            name=name, arch=Arch.X86_64, distro="debian-12", mac=f"52:54:00:00:00:{self._made:02x}",
            ip=f"192.168.100.{10 + self._made}", uuid=f"00000000-0000-4000-8000-{self._made:012d}", disk_gib=2,
            memory_mib=512, disk_bus=bus, ssh_host_key=make_key(name, scratch=self.lab.home.ssh),
            ssh_authorized_keys=(ssh.lab_key(self.lab).read_public(),), **more,  # type: ignore[arg-type]
        )  # fmt: skip
        for path in target.disk_paths(self.lab, definition):
            create_empty_disk(path, definition.disk_gib)
        status = MachineStatus(name=name, uuid=definition.uuid, state=InstallState.INSTALLED, installs=1)
        commit.publish_text(target.status_path(self.lab, name), document.dumps(status))
        DefinitionStore(self.lab).write(definition)
        return definition

    def start(self, name: str, *, runs: bool = False) -> Machine:
        """Start a machine; its CPUs stand still, but with *runs*."""
        definition = DefinitionStore(self.lab).load(name)
        machine = self.lab.machine(name)
        options = StartOptions(boot=BootFrom.DISK)  # what runs at all shall not wait for the network
        with self.lab.starting(name):
            spec = target.prepare(self.lab, definition, self.accelerator, options=options)
            machine.start(dataclasses.replace(spec, paused=not runs))
        return machine

    def end(self) -> None:
        """End all that was started."""
        for name in journey.machine_names(self.lab):
            self.lab.machine(name).kill()
        self.lab.network.stop()
