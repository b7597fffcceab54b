"""The NoCloud documents: the same to every reader, and a card for each card."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from contracts.lan import Lan
from contracts.machine import Nic
from contracts.nocloud import DOCUMENTS, dump_yaml
from tests.fakes.lab_files import make_machine

MACHINE = make_machine()


@pytest.mark.parametrize(
    "text",
    ["plain", "é ü", "日本", "\U0001f600 lab", "\u2028\u2029\x85\x7f\ufeff\uffff", "\\u0041 \\", "\x00\x1b"],
)
def test_documents_read_the_same_as_json_and_as_yaml(text: str) -> None:
    written = dump_yaml({"key": text, text: [text]}, indent=2)
    for read in (json.loads, yaml.safe_load, lambda text: yaml.load(text, Loader=yaml.CSafeLoader)):
        assert read(written) == {"key": text, text: [text]}
    written.encode()


def test_half_a_character_is_no_character() -> None:
    assert json.loads(dump_yaml("a\udc80b\ud83d")) == yaml.safe_load(dump_yaml("a\udc80b\ud83d")) == "a\ufffdb\ufffd"


def test_every_card_of_a_machine_is_configured() -> None:
    machine = dataclasses.replace(MACHINE, ipv6="fd00::11", nics=(Nic(mac="52:54:00:aa:bb:09", ip="192.168.100.19"),))
    cards = json.loads(DOCUMENTS["network-config"](machine, Lan()))["ethernets"]
    assert {name: card["match"]["macaddress"] for name, card in cards.items()} == {
        "lan0": MACHINE.mac, "lan1": "52:54:00:aa:bb:09",
    }  # fmt: skip
    assert (cards["lan0"].get("dhcp6"), cards["lan1"].get("dhcp6")) == (True, None)
    assert (cards["lan0"].get("optional"), cards["lan1"].get("optional")) == (None, True)
