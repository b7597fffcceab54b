"""Finding the network card."""

from __future__ import annotations

from pathlib import Path

import pytest

from installer.errors import InstallError
from installer.network import wait_for_card


def add_card(cards: Path, name: str, address: str) -> None:
    (cards / name).mkdir()
    (cards / name / "address").write_text(f"{address}\n")


def test_the_card_is_found_by_its_address(tmp_path: Path) -> None:
    add_card(tmp_path, "eth0", "52:54:00:00:00:01")
    add_card(tmp_path, "eth1", "52:54:00:00:00:02")
    assert wait_for_card("52:54:00:00:00:02", cards=tmp_path, within=0) == "eth1"


def test_a_missing_card_is_an_error_that_names_the_others(tmp_path: Path) -> None:
    add_card(tmp_path, "lo", "00:00:00:00:00:00")
    add_card(tmp_path, "eth0", "52:54:00:00:00:01")
    with pytest.raises(
        InstallError, match=r"no network card has the address 52:.*:02; there are: eth0 \(52:54:00:00:00:01\)$"
    ):
        wait_for_card("52:54:00:00:00:02", cards=tmp_path, within=0.1)


def test_no_card_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="there are: none"):
        wait_for_card("52:54:00:00:00:02", cards=tmp_path, within=0)
