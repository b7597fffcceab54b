"""The options of a machine's hardware: words into values, each refused with its option's name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from cli.words import choice
from contracts.machine import DiskBus, ExtraDisk, FirmwareKind, Label, NicModel
from lab.sizes import parse_size
from lab.store import CardRequest, MachineRequest
from pipeline.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareWords:
    """What was typed for ``vm.create``; the attributes have the names of the options.

    :ivar nics: how many LAN cards; 0 for as many as there are addresses, at least one.
    """

    cpus: int = 2
    memory: str = "1G"
    disk_size: str = "8G"
    disk_bus: str = "nvme"
    more_disk: Sequence[str] = ()
    nics: int = 0
    nic_model: str = "virtio"
    firmware: str = "uefi"
    secure_boot: bool = False
    tpm: bool = False
    ip: Sequence[str] = ()
    ipv6: Sequence[str] = ()
    mac: Sequence[str] = ()
    label: Sequence[str] = ()
    qemu_arg: Sequence[str] = ()

    def apply(self, request: MachineRequest) -> MachineRequest:
        """Return *request* with this hardware. :raises UsageError: if a word makes no sense."""
        cards = [CardRequest(mac=mac, ip=ip, ipv6=ipv6) for mac, ip, ipv6 in zip_longest(self.mac, self.ip, self.ipv6)]
        first = cards[0] if cards else CardRequest()
        bus = choice(DiskBus, self.disk_bus, "--disk-bus")
        return dataclasses.replace(
            request,
            cpus=self.cpus,
            memory_mib=parse_size(self.memory, unit="m", option="--memory"),
            disk_gib=parse_size(self.disk_size, unit="g", option="--disk-size"),
            disk_bus=bus,
            more_disks=tuple(parse_disk(text, bus) for text in self.more_disk),
            cards=self.nics or max(1, len(cards)),
            nic_model=choice(NicModel, self.nic_model, "--nic-model"),
            firmware=choice(FirmwareKind, self.firmware, "--firmware"),
            secure_boot=self.secure_boot,
            tpm=self.tpm,
            mac=first.mac,
            ip=first.ip,
            ipv6=first.ipv6,
            more_cards=tuple(cards[1:]),
            labels=parse_labels(self.label),
            qemu_arguments=tuple(self.qemu_arg),
        )


def parse_disk(text: str, bus: DiskBus) -> ExtraDisk:
    """Return the further disk that ``SIZE`` or ``SIZE:BUS`` asks for.

    :param bus: of the first disk, and so of this one if *text* names none.
    :raises UsageError: if it makes no sense.
    """
    size, colon, name = text.partition(":")
    wanted = choice(DiskBus, name, "--more-disk: the bus") if colon else bus
    try:
        return ExtraDisk(size_gib=parse_size(size, unit="g", option="--more-disk"), bus=wanted)
    except ValueError as error:
        raise UsageError(f"--more-disk {text!r}: {error}") from None


def parse_labels(words: Iterable[str]) -> tuple[Label, ...]:
    """Return the labels that ``KEY=VALUE`` words ask for. :raises UsageError: if one makes no sense."""
    labels = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--label {word!r} is not KEY=VALUE", resolution=f"--label {word}= gives it no value")
        labels.append(_label(key, value))
    return tuple(labels)


def parse_label_changes(words: Iterable[str]) -> dict[str, str | None]:
    """Return what becomes of labels: ``KEY=VALUE`` sets one, ``KEY-`` removes it (None).

    :raises UsageError: if a word makes no sense, or one says what another takes back.
    """
    changes: dict[str, str | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals and not word.endswith("-"):
            raise UsageError(f"--label {word!r} is neither KEY=VALUE nor KEY-")
        label = _label(key if equals else word[:-1], value)
        if label.key in changes:
            raise UsageError(f"--label {label.key} is given twice")
        changes[label.key] = label.value if equals else None
    return changes


def _label(key: str, value: str) -> Label:
    try:
        return Label(key=key, value=value)
    except ValueError as error:
        raise UsageError(f"--label: {error}") from None
