"""Results: aligned text for people, versioned JSON for programs."""

from __future__ import annotations

import json

import pytest

from cli.output import emit, render_table
from contracts.arch import Arch
from contracts.lan import Lan
from pipeline.errors import UsageError

TABLE = [("NAME", "STATE"), ("web1", "running"), ("a", "off")]


def test_tables_are_aligned_without_trailing_blanks() -> None:
    assert render_table(TABLE) == "NAME  STATE\nweb1  running\na     off\n"


def test_a_table_of_headings_only() -> None:
    assert render_table(TABLE[:1]) == "NAME  STATE\n"


def test_no_terminal_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    emit({}, output="table", table=TABLE)
    assert capsys.readouterr().out == render_table(TABLE)


def test_json_is_versioned_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"lan": Lan(), "arch": Arch.X86_64}, output="json", table=[])
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1, "arch": "x86_64", "lan": {
            "subnet": "192.168.100.0/24", "ipv6_subnet": "", "domain": "pvmlab.local", "dhcp": "server", "address": "",
        },
    }  # fmt: skip


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UsageError, match="xml"):
        emit({}, output="xml", table=TABLE)


def test_names_with_brackets_are_not_markup_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    emit({}, output="table", table=[("NAME",), ("[red]x[/red]",)])
    assert "[red]x[/red]" in capsys.readouterr().out
