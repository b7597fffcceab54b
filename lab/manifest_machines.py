"""The machines of a lab.yaml: what each is to be, and what it waits for. Every fault is kept with its place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from contracts.arch import Arch
from contracts.lan import Lan
from contracts.machine import (
    DiskBus,
    ExtraDisk,
    FirmwareKind,
    Installer,
    Label,
    MachineSource,
    Nic,
    NicModel,
    SshHostKey,
    VmDefinition,
)
from contracts.nocloud import dump_yaml
from distros.registry import require_release
from distros.release import MediumKind
from distros.strict_yaml import Fault, Node
from lab.bringup import Milestone
from lab.cards import require_asked
from lab.cloud_machine import require_image, require_room
from lab.machine_request import CardRequest, MachineRequest, define
from lab.manifest_order import find_cycle
from lab.manifest_schema import find_octals, plain
from lab.native import native_installer, read_answers
from lab.sizes import parse_size
from lab.store import require_name
from lab.user_data import find_fault, read_user_data
from pipeline.errors import PvmlabError, UsageError
from pipeline.media.cloud_image import inspect_image

DEFAULT_DISTRO = "debian-12"
_WITH_CLOUD_INIT = {Installer.PVMLAB, Installer.AUTOINSTALL}
_TRIAL_KEY = SshHostKey(private="-----BEGIN OPENSSH PRIVATE KEY-----\n", public="ssh-ed25519 AAAA trial")
_OF_ONE = ("ip", "ipv6", "mac")  # no two machines can have the same
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dependency:
    """What a machine waits for. :ivar name: of another machine."""

    name: str
    condition: Milestone


@dataclasses.dataclass(frozen=True, kw_only=True)
class WantedMachine:
    """A machine that a lab.yaml asks for. :ivar trial: its definition but for addresses, keys and UUID."""

    request: MachineRequest
    after: tuple[Dependency, ...] = ()
    trial: VmDefinition

    @property
    def name(self) -> str:
        """Its name."""
        return self.request.name


def read_machines(
    top: Mapping[str, Node], lan: Lan, *, folder: Path, broken: set[str], faults: list[Fault]
) -> list[WantedMachine]:
    """Return the machines of a file, replicas one by one.

    :param lan: what their addresses have to fit into. :param folder: what paths are relative to.
    :param broken: paths of values that are at fault already: whatever has one of them in it is not looked at.
    :param faults: gets what is wrong.
    """
    defaults = _content(top.get("defaults"))
    if any(path.partition(".")[0] == "defaults" for path in broken):
        return []
    found: dict[str, list[WantedMachine]] = {}
    waits: dict[str, Mapping[str, Node]] = {}
    names: dict[str, str] = {}
    room = left = int(lan.last_reservable) - int(lan.network[0]) - 1  # not the provisioner's
    for name, node in _content(top.get("machines")).items():
        if any(f"{path}.".startswith(f"{node.path}.") for path in broken):
            continue
        reader = _Reader(name, node, {**defaults, **_content(node)}, lan, folder, faults)
        # one at least, for its faults; more than there is room for would only take time
        found[name] = list(islice(reader.machines(), max(1, left + 1)))
        left -= sum(machine.request.cards for machine in found[name])
        waits[name] = reader.waits()
        for machine in found[name]:
            if (other := names.setdefault(machine.name, name)) != name:
                _add(faults, node, f"its machine {machine.name} is one of {other}, too", key=True)
    if left < 0:
        _add(faults, top["machines"], f"they have more LAN cards than {lan.subnet} has addresses for: {room}")
    _check_addresses(found, top, lan, faults)
    return _with_dependencies(found, waits, top, faults, complete=not broken)


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads one entry of ``machines``. :ivar values: its own, and the defaults where it has none."""

    name: str
    node: Node
    values: Mapping[str, Node]
    lan: Lan
    folder: Path
    faults: list[Fault]

    def machines(self) -> Iterator[WantedMachine]:
        """Yield the machines that there can be."""
        count = self._plain("replicas")
        names = [self.name] if count is None else [f"{self.name}-{number}" for number in range(1, count + 1)]
        if self._try(self.node, lambda: [require_name(name) for name in names[-1:]], key=True) is None:
            return
        before = len(self.faults)
        if len(names) > 1:
            for key in _OF_ONE:
                if key in self.values:
                    _add(self.faults, self.values[key], f"{len(names)} machines cannot have the same address")
        request = self._request(names[0])
        if request is None or len(self.faults) > before:
            return
        for name in names:
            one = dataclasses.replace(request, name=name)
            trial = self._try(self.node, lambda one=one: _trial(one, self.lan), key=True)  # type: ignore[misc]
            if trial is None:  # the others would be told the same
                return
            yield WantedMachine(request=one, trial=trial)

    def waits(self) -> Mapping[str, Node]:
        """Return what it waits for, as it is written."""
        return _content(self.values.get("after"))

    def _request(self, name: str) -> MachineRequest | None:
        distro, arch = self._plain("distro") or DEFAULT_DISTRO, Arch(self._plain("arch") or Arch.X86_64)
        at = self.values.get("distro", self.node)
        release = self._try(at, lambda: require_release(distro, arch))
        if release is None:
            return None
        answers = self._try_at("answer-file", lambda value: read_answers(self._path(value)))
        kind = self._plain("installer") or ("native" if answers is not None else "pvmlab")
        installer = Installer.PVMLAB
        if kind == "native":
            installer = self._try(at, lambda: native_installer(release, arch)) or installer
        elif answers is not None:
            _add(self.faults, self.values["answer-file"], "it is for a distribution's own installer: installer: native")
        disk = self._plain("disk")
        if disk is True and MediumKind.CLOUD_IMAGE not in release.sources[arch].media:
            _add(self.faults, self.values["disk"], f"the definition of {distro} names no cloud image for {arch}")
        if "user-data" in self.values:
            self.faults.extend(find_octals(self.values["user-data"]))
        image = self._try_at("disk", lambda value: require_image(str(self._path(value)))) if disk is not True else None
        request = MachineRequest(
            name=name, distro=distro, arch=arch, installer=installer, answers=answers,
            source=MachineSource.IMAGE if disk else MachineSource.NETWORK, image=str(image) if disk and image else "",
            user_data=self._try_at("user-data", self._user_data),
        )  # fmt: skip
        return self._with_hardware(request)

    def _with_hardware(self, request: MachineRequest) -> MachineRequest:
        cards = [
            CardRequest(mac=mac, ip=ip, ipv6=ipv6)
            for mac, ip, ipv6 in zip_longest(*(self._several(key) for key in ("mac", "ip", "ipv6")))
        ]
        first = cards[0] if cards else CardRequest()
        bus = DiskBus(self._plain("disk-bus") or request.disk_bus)
        memory = self._try_at("memory", lambda value: parse_size(str(value), unit="m", option="it"))
        size = self._try_at("disk-size", lambda value: parse_size(str(value), unit="g", option="it"))
        labels = self._plain("labels") or {}
        return dataclasses.replace(
            request,
            cpus=self._plain("cpus") or request.cpus,
            memory_mib=memory if memory is not None else request.memory_mib,
            disk_gib=size if size is not None else request.disk_gib,
            disk_bus=bus,
            more_disks=self._try_at("more-disks", lambda disks: tuple(_disk(disk, bus) for disk in disks)) or (),
            cards=self._plain("nics") or max(1, len(cards)),
            nic_model=NicModel(self._plain("nic-model") or request.nic_model),
            firmware=FirmwareKind(self._plain("firmware") or request.firmware),
            secure_boot=bool(self._plain("secure-boot")),
            tpm=bool(self._plain("tpm")),
            mac=first.mac, ip=first.ip, ipv6=first.ipv6, more_cards=tuple(cards[1:]),
            labels=self._try_at("labels", lambda _: tuple(_label(*item) for item in sorted(labels.items()))) or (),
            qemu_arguments=tuple(self._plain("qemu-args") or ()),
        )  # fmt: skip

    def _user_data(self, value: Any) -> str:
        """Return user-data: a mapping is a cloud-config, a text of several lines is itself, any other names a file."""
        if isinstance(value, str) and "\n" not in value:
            return read_user_data(self._path(value))
        text = value if isinstance(value, str) else "#cloud-config\n" + dump_yaml(value, indent=2) + "\n"
        if fault := find_fault(text):
            raise UsageError(f"it {fault}")
        return text

    def _path(self, text: str) -> Path:
        return self.folder / os.path.expanduser(text)  # noqa: PTH111 (Path's raises for a user who is not there)

    def _several(self, key: str) -> Sequence[str]:
        found = self._plain(key)
        return [found] if isinstance(found, str) else found or []

    def _plain(self, key: str) -> Any:
        node = self.values.get(key)
        return plain(node) if node is not None else None

    def _try_at(self, key: str, read: Callable[[Any], T]) -> T | None:
        node = self.values.get(key)
        value = plain(node) if node is not None else None
        return self._try(node, lambda: read(value)) if node is not None and value not in (None, False) else None

    def _try(self, node: Node, make: Callable[[], T], *, key: bool = False) -> T | None:
        """Return what *make* makes; None, after adding what it raises as a fault."""
        try:
            return make()
        except PvmlabError as error:
            _add(self.faults, node, ": ".join(filter(None, (error.brief, error.details.partition("\n")[0]))), key=key)
        except ValueError as error:
            _add(self.faults, node, str(error), key=key)
        return None


def _trial(request: MachineRequest, lan: Lan) -> VmDefinition:
    """Return a definition with addresses of nobody, to see whether there can be such a machine."""
    asked = 1 + len(request.more_cards)
    if asked > request.cards:
        raise UsageError(f"addresses for {asked} cards are given, and the machine has {request.cards}")
    if request.image:
        require_room(inspect_image(Path(request.image)), request.disk_gib)
    cards = tuple(
        Nic(mac=f"52:54:00:00:00:{number:02x}", ip=str(lan.network[number + 1]))
        for number in range(1, request.cards + 1)
    )
    return define(request, cards, host_key=_TRIAL_KEY, authorized_key=_TRIAL_KEY.public)


def _disk(value: Mapping[str, Any], bus: DiskBus) -> ExtraDisk:
    size = parse_size(str(value["size"]), unit="g", option="the size")
    return ExtraDisk(size_gib=size, bus=DiskBus(value.get("bus") or bus))


def _label(key: str, value: str) -> Label:
    return Label(key=key, value=value)


def _check_addresses(
    found: Mapping[str, Sequence[WantedMachine]], top: Mapping[str, Node], lan: Lan, faults: list[Fault]
) -> None:
    """Check that the addresses that are asked for can be had."""
    owners: dict[str, str] = {str(lan.provisioner): "the provisioner"}
    nodes = _content(top.get("machines"))
    for name, machines in found.items():
        for machine in machines:
            try:
                require_asked(machine.request, lan, owners)
            except PvmlabError as error:
                _add(faults, nodes[name], f"{error.brief}; {error.resolution}".rstrip("; "), key=True)


def _with_dependencies(
    found: Mapping[str, Sequence[WantedMachine]], waits: Mapping[str, Mapping[str, Node]], top: Mapping[str, Node],
    faults: list[Fault], *, complete: bool,
) -> list[WantedMachine]:  # fmt: skip
    """Return all machines with what they wait for. :param complete: False: some entries were at fault already."""
    nodes = _content(top.get("machines"))
    graph: dict[str, list[str]] = {}
    ready: list[WantedMachine] = []
    for name, machines in found.items():
        after: list[Dependency] = []
        for other, node in waits[name].items():
            if other not in nodes:
                node.refuse_key(f"there is no machine {other!r} in this file; there are: {', '.join(nodes)}")
                faults.append(node.faults.pop())
                continue
            condition = Milestone(str(plain(node)))
            after += [Dependency(name=each.name, condition=condition) for each in found.get(other, ())]
            if fault := next(filter(None, (_never(each, condition) for each in found.get(other, ()))), ""):
                _add(faults, node, fault)
            graph.setdefault(name, []).append(other)
        ready += [dataclasses.replace(machine, after=tuple(after)) for machine in machines]
    if cycle := find_cycle(graph):
        _add(faults, nodes[cycle[0]], f"it waits for itself: {' -> '.join(cycle)}", key=True)
    return ready if complete else []


def _never(machine: WantedMachine, condition: Milestone) -> str:
    """Return why *condition* never becomes true of *machine*, or nothing if it may."""
    from_image = machine.request.source is MachineSource.IMAGE
    if condition is Milestone.INSTALLED and from_image:
        return f"{machine.name} comes from a cloud image and is never installed; wait for ssh"
    own = machine.request.answers is not None
    if condition is Milestone.CLOUD_INIT and not from_image and (
        own or machine.request.installer not in _WITH_CLOUD_INIT
    ):  # fmt: skip
        return f"{machine.name} is not known to have cloud-init; wait for ssh"
    return ""


def _content(node: Node | None) -> Mapping[str, Node]:
    return node.content if node is not None and isinstance(node.content, dict) else {}


def _add(faults: list[Fault], node: Node, what: str, *, key: bool = False) -> None:
    faults.append(Fault(*(node.key_place if key else node.place), node.path, what))
