"""A lab: one home with its machines, its private network and its keys, and the cache it takes artifacts from."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from pathlib import Path

from contracts import document
from contracts.arch import Arch
from contracts.document import DocumentError
from contracts.lan import Lan
from contracts.names import PROVISIONER_NAME
from lab.accelerator import choose_accelerator
from lab.addresses import derive_ipv6_subnet
from lab.bridge import BridgeNetwork
from lab.host_services import HostServices
from lab.machine import Machine
from lab.network import Network, NetworkKind, SwitchNetwork
from lab.network_settings import NetworkSettings, read_settings
from lab.processes import hold_lock
from lab.provisioner_record import ProvisionerMode, find_mode
from lab.sockets import ensure_private
from lab.spec import Accelerator
from lab.vmnet import VmnetNetwork
from pipeline import commit
from pipeline.errors import ConflictError
from pipeline.workspace import Cache, Home, Workspace

_START_TIMEOUT = 60.0  # seconds; a start takes one
_DEFINITIONS_TIMEOUT = 10.0  # seconds; a change of the definitions takes a fraction of one


@dataclasses.dataclass(frozen=True)
class Lab:
    """Everything a lab is found by. Making one touches nothing."""

    workspace: Workspace

    @classmethod
    def from_environment(cls) -> Lab:
        """Return the lab that ``PVMLAB_HOME`` and ``PVMLAB_CACHE`` name."""
        return cls(Workspace.from_environment())

    @property
    def home(self) -> Home:
        """Where its state is."""
        return self.workspace.home

    @property
    def cache(self) -> Cache:
        """Where its artifacts are."""
        return self.workspace.cache

    @property
    def lan(self) -> Lan:
        """Its private network: ``config/lab.json``, or if there is none yet the default, with an IPv6 of its own.

        A lab that is not there yet has no IPv6: that follows from its identity, and looking makes nothing.

        :raises ConflictError: if that file is broken.
        """
        path = self.home.config / "lab.json"
        try:
            return document.loads(Lan, path.read_bytes())
        except FileNotFoundError:
            return Lan(ipv6_subnet=self.ipv6_subnet_of_its_own())
        except DocumentError as error:
            raise ConflictError(
                f"the lab's network settings {path} are broken",
                details="\n".join(error.faults),
                resolution="repair the file, or remove it for the default network",
            ) from None

    def ipv6_subnet_of_its_own(self) -> str:
        """Return the unique local /64 that follows from its identity; empty for a lab that is not there yet."""
        identity = self.find_identity()
        return derive_ipv6_subnet(identity) if identity else ""

    @property
    def network(self) -> Network:
        """What its machines are plugged into."""
        settings = read_settings(self.home)
        if settings.kind is NetworkKind.SWITCH:
            return SwitchNetwork(self.home.run)
        return self.make_network(settings, self.lan)

    def make_network(self, settings: NetworkSettings, lan: Lan) -> Network:
        """Return the network that these settings describe, whether it is this lab's or not."""
        match settings.kind:
            case NetworkKind.SWITCH:
                return SwitchNetwork(self.home.run)
            case NetworkKind.BRIDGE:
                return BridgeNetwork(self.home, identity=self.find_identity(), settings=settings, lan=lan)
            case NetworkKind.VMNET:
                return VmnetNetwork(settings, identity=self.find_identity())

    def machine(self, name: str) -> Machine:
        """Return the machine *name*, whether it exists or not."""
        if name == PROVISIONER_NAME and self.provisioner_mode is ProvisionerMode.HOST:
            return HostServices(home=self.home)
        return Machine(name, home=self.home)

    @property
    def provisioner(self) -> Machine:
        """The provisioner's machine."""
        return self.machine(PROVISIONER_NAME)

    @property
    def provisioner_mode(self) -> ProvisionerMode:
        """Where the provisioner's services run, or are to run."""
        return find_mode(self.home)

    def accelerator(self, arch: Arch) -> Accelerator:
        """Return how *arch* guests run on this host."""
        ensure_private(self.home.run)
        return choose_accelerator(arch, state=self.home.run)

    def ensure_folders(self) -> None:
        """Make the folders of the home. Those with keys and sockets are closed to others."""
        for folder in (self.home.run, self.home.ssh, self.home.config, self.home.disks):
            ensure_private(folder)
        for folder in (self.home.vms, self.home.status, self.home.logs, self.home.templates):
            folder.mkdir(parents=True, exist_ok=True)
        self.identity()

    def identity(self) -> str:
        """Return the lab's own random name: MAC addresses and its IPv6 network are made from it.

        So two labs never share one. It is made at the first call.
        """
        if not (found := self.find_identity()):
            commit.publish_text(self._identity_path, f"{secrets.token_hex(16)}\n", mode=0o600)
            found = self._identity_path.read_text().strip()
        return found

    @property
    def _identity_path(self) -> Path:
        return self.home.config / "identity"

    def find_identity(self) -> str:
        """Return the lab's own random name; empty if there is none yet."""
        with contextlib.suppress(FileNotFoundError):
            return self._identity_path.read_text().strip()
        return ""

    def changing_definitions(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of everybody who creates or deletes machines.

        :raises ConflictError: if another command holds it for long.
        """
        ensure_private(self.home.run)
        # an underscore is in no machine's name
        return hold_lock(
            self.home.run / "_definitions.lock",
            timeout=_DEFINITIONS_TIMEOUT,
            busy="another command is creating or deleting machines of this lab",
        )

    def starting(self, name: str, *, timeout: float | None = None) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of whoever prepares the machine *name* and starts it, or works on its disks.

        :param timeout: seconds to wait for whoever holds it; None for the time of a start.
        :raises ConflictError: if another command holds it for long.
        """
        ensure_private(self.home.run)
        return hold_lock(
            self.machine(name).work_lock,
            timeout=_START_TIMEOUT if timeout is None else timeout,
            busy=f"another command is at work on {name}",
        )

    def changing_lab(self) -> contextlib.AbstractContextManager[None]:
        """Hold the lock of ``up``, ``down`` and ``clean``: only one of them works on a lab at a time.

        :raises ConflictError: if another one does.
        """
        ensure_private(self.home.run)
        return hold_lock(
            self.home.run / "_lab.lock", timeout=0.5, busy="another command is bringing this lab up or down"
        )
