from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.lan import Lan
from contracts.machine import Nic
from pxeboot_stack.boot_handler import menu
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.lab_files import make_machine

GOLDEN = Path(__file__).parents[2] / "golden/pxeboot_stack"
MACHINE = make_machine()
SETTINGS = Settings.of_shares(HostShares(), Lan(), RunFiles())


def test_the_screen_of_a_stranger() -> None:
    text = menu.render_unknown("52-54-00-99-99-99", "192.168.100.200", SETTINGS)
    assert text == (GOLDEN / "unknown.ipxe").read_text()


def test_the_script_for_a_foreign_address() -> None:
    text = menu.render_foreign(MACHINE, MACHINE.mac, "192.168.100.200", SETTINGS)
    assert text == (GOLDEN / "foreign.ipxe").read_text()


def test_a_machine_is_told_the_address_of_the_card_it_asks_from() -> None:
    machine = make_machine(nics=(Nic(mac="52:54:00:aa:bb:05", ip="192.168.100.15"),))
    text = menu.render_foreign(machine, "52:54:00:aa:bb:05", None, SETTINGS)
    assert "has the address unknown, reserved for it is 192.168.100.15" in text


@pytest.mark.parametrize("render", ["unknown", "foreign"])
def test_every_jump_leads_somewhere(render: str) -> None:
    text = (GOLDEN / f"{render}.ipxe").read_text()
    labels = set(re.findall(r"^:(\w+)$", text, re.MULTILINE))
    jumps = set(re.findall(r"goto (\w+)", text))
    items = set(re.findall(r"^item (\w+) ", text, re.MULTILINE))
    assert jumps | items <= labels
    assert "--default retry" in text or render == "foreign"


@given(mac=st.text(max_size=40), client=st.none() | st.text(max_size=60))
def test_nothing_that_is_no_address_gets_into_a_script(mac: str, client: str | None) -> None:
    try:
        text = menu.render_unknown(mac, client, SETTINGS)
    except ValueError:
        text = menu.render_unknown("52:54:00:99:99:99", client, SETTINGS)
    plain = menu.render_unknown("52:54:00:99:99:99", None, SETTINGS)
    assert len(text.splitlines()) == len(plain.splitlines())
    assert text.count("${") == plain.count("${")
