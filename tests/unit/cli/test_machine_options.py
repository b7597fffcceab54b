from __future__ import annotations

from typing import Any

import pytest

from cli.machine_options import HardwareWords, parse_disk, parse_label_changes, parse_labels
from contracts.machine import DiskBus, ExtraDisk, FirmwareKind, Label, NicModel
from lab.store import CardRequest, MachineRequest
from pipeline.errors import UsageError

REQUEST = MachineRequest(name="web1", distro="debian-12")


def test_without_words_a_machine_is_the_usual_one() -> None:
    assert HardwareWords().apply(REQUEST) == REQUEST


def test_all_words_become_values() -> None:
    made = HardwareWords(
        cpus=4, memory="2G", disk_size="10G", disk_bus="sata", more_disk=["1G", "2G:virtio"], nics=3,
        nic_model="e1000e", firmware="uefi-http", secure_boot=True, tpm=True, mac=["52:54:00:00:00:01"],
        ip=["192.168.100.5", "192.168.100.6"], ipv6=["fd00::5"], label=["a=1", "b="], qemu_arg=["-device", "edu"],
    ).apply(REQUEST)  # fmt: skip
    assert (made.cpus, made.memory_mib, made.disk_gib, made.disk_bus) == (4, 2048, 10, DiskBus.SATA)
    assert made.more_disks == (ExtraDisk(size_gib=1, bus=DiskBus.SATA), ExtraDisk(size_gib=2, bus=DiskBus.VIRTIO))
    assert (made.cards, made.nic_model, made.firmware) == (3, NicModel.E1000E, FirmwareKind.UEFI_HTTP)
    assert (made.secure_boot, made.tpm) == (True, True)
    assert (made.mac, made.ip, made.ipv6) == ("52:54:00:00:00:01", "192.168.100.5", "fd00::5")
    assert made.more_cards == (CardRequest(ip="192.168.100.6"),)
    assert made.labels == (Label(key="a", value="1"), Label(key="b", value=""))
    assert made.qemu_arguments == ("-device", "edu")


def test_there_is_a_card_for_each_address() -> None:
    assert HardwareWords(mac=["x", "y", "z"]).apply(REQUEST).cards == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"memory": "much"}, "--memory 'much' is not a size"),
        ({"disk_size": "1.5G"}, "--disk-size '1.5G' is not a size"),
        ({"disk_bus": "ide"}, "--disk-bus 'ide' is unknown"),
        ({"nic_model": "rtl8139"}, "--nic-model 'rtl8139' is unknown"),
        ({"firmware": "efi"}, "--firmware 'efi' is unknown"),
        ({"more_disk": ["4G:ide"]}, "--more-disk: the bus 'ide' is unknown"),
        ({"more_disk": ["x"]}, "--more-disk 'x' is not a size"),
        ({"more_disk": ["0"]}, "--more-disk '0': size_gib is 0"),
        ({"label": ["a"]}, "--label 'a' is not KEY=VALUE"),
        ({"label": ["A=1"]}, "--label: label key 'A' is not"),
    ],
)
def test_words_without_sense_are_refused_by_their_options_name(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        HardwareWords(**words).apply(REQUEST)
    assert caught.value.brief.startswith(message)


def test_a_further_disk_is_on_the_first_ones_bus_unless_told() -> None:
    assert parse_disk("4G", DiskBus.VIRTIO) == ExtraDisk(size_gib=4, bus=DiskBus.VIRTIO)
    assert parse_disk("4G:sata", DiskBus.VIRTIO) == ExtraDisk(size_gib=4, bus=DiskBus.SATA)


def test_a_labels_value_may_hold_anything() -> None:
    assert parse_labels(["a=b=c d"]) == (Label(key="a", value="b=c d"),)


def test_labels_are_set_and_removed() -> None:
    assert parse_label_changes(["a=1", "b-", "c-d=", "e=x-"]) == {"a": "1", "b": None, "c-d": "", "e": "x-"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "neither KEY=VALUE nor KEY-"),
        (["a=1", "a-"], "--label a is given twice"),
        (["-"], "label key ''"),
        (["a=é"], "its value is not"),
    ],
)
def test_changes_of_labels_without_sense_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_label_changes(words)
