"""Reports: their order, their rate, and that nobody listening is no reason to fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.document import loads
from contracts.report import MAX_REPORT_BYTES, MAX_REPORT_LINES, Outcome, Phase, Report
from installer import progress
from installer.errors import InstallError
from installer.progress import Progress, percent_of

_URL = "http://10.0.0.1/report/x"


class Listener:
    """A boot handler: keeps the reports, or is away for the first *away* of them."""

    def __init__(self, *, away: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.urls: list[str] = []
        self.away = away
        self.asked = 0

    def post(self, url: str, body: bytes, *, timeout: float) -> None:
        assert 0 < timeout <= 5
        self.asked += 1
        if self.asked <= self.away:
            raise ConnectionRefusedError(111, "Connection refused")
        self.urls.append(url)
        self.bodies.append(body)

    @property
    def reports(self) -> list[Report]:
        return [loads(Report, body) for body in self.bodies]


class Clock:
    """A clock that only sleeping and :meth:`pass_` move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr("time.sleep", self.pass_)

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def make(listener: Listener) -> tuple[Progress, list[str]]:
    console: list[str] = []
    return Progress(_URL, post=listener.post, write=console.append), console


def test_percent_grows_through_the_phases_and_ends_at_100() -> None:
    percents = [percent_of(phase, fraction) for phase in Phase for fraction in (0.0, 0.5, 1.0)]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)


def test_a_fraction_out_of_range_stays_inside_its_phase() -> None:
    assert percent_of(Phase.SYSTEM, 7.0) == percent_of(Phase.SETUP, 0.0)
    assert percent_of(Phase.SYSTEM, -1.0) == percent_of(Phase.SYSTEM, 0.0)


def test_each_phase_is_reported_and_named_on_the_console(clock: Clock) -> None:
    listener = Listener()
    talk, console = make(listener)
    talk.begin(Phase.NETWORK, "bringing up")
    talk.begin(Phase.SYSTEM, "streaming")
    assert [(r.phase, r.outcome, r.percent) for r in listener.reports] == [
        (Phase.NETWORK, Outcome.RUNNING, 0),
        (Phase.SYSTEM, Outcome.RUNNING, percent_of(Phase.SYSTEM, 0)),
    ]
    assert "[5/7] system: streaming" in console[1]


def test_progress_is_reported_about_once_a_second(clock: Clock) -> None:
    listener = Listener()
    talk, _ = make(listener)
    talk.begin(Phase.SYSTEM, "streaming")
    for step in range(100):
        clock.pass_(0.1)
        talk.advance(step / 100, f"{step} MB")
    assert 9 <= len(listener.bodies) <= 11


def test_percent_never_falls(clock: Clock) -> None:
    listener = Listener()
    talk, _ = make(listener)
    talk.begin(Phase.SYSTEM, "streaming")
    for fraction in (0.5, 0.1):
        clock.pass_(2)
        talk.advance(fraction, "x")
    assert listener.reports[-1].percent == listener.reports[-2].percent


def test_while_nobody_listens_few_attempts_are_made(clock: Clock) -> None:
    listener = Listener(away=1000)
    talk, _ = make(listener)
    talk.begin(Phase.SYSTEM, "streaming")
    for _ in range(100):
        clock.pass_(0.1)
        talk.advance(0.5, "x")
    assert listener.asked <= 3


def test_a_failure_is_repeated_until_it_is_taken(clock: Clock) -> None:
    listener = Listener(away=3)
    talk, console = make(listener)
    talk.phase = Phase.DISK
    talk.failed(InstallError("sfdisk failed with exit status 1", lines=("$ sfdisk /dev/vda", "no medium")))
    (report,) = listener.reports
    assert (report.phase, report.outcome) == (Phase.DISK, Outcome.FAILED)
    assert report.message == "sfdisk failed with exit status 1"
    assert report.lines == ("$ sfdisk /dev/vda", "no medium")
    assert "FAILED in phase disk: sfdisk failed" in console[0]
    assert "no medium" in console[2]


def test_the_end_comes_even_if_nobody_ever_listens(clock: Clock) -> None:
    began = clock.now
    talk, console = make(Listener(away=1000))
    talk.failed(InstallError("no disk"))
    assert clock.now - began < 20
    talk.done("installed")
    assert 180 < clock.now - began < 220  # the provisioner may be on its way back
    assert "did not take the report that the install is done" in console[-1]


def test_done_says_100_percent(clock: Clock) -> None:
    listener = Listener()
    talk, _ = make(listener)
    talk.phase = Phase.BOOTLOADER
    talk.done("installed")
    assert (listener.reports[0].outcome, listener.reports[0].percent) == (Outcome.DONE, 100)


def test_reports_follow_a_new_address(clock: Clock) -> None:
    listener = Listener()
    talk, _ = make(listener)
    talk.url = "http://10.0.0.2/report/y"
    talk.begin(Phase.SEED, "x")
    assert listener.urls == ["http://10.0.0.2/report/y"]


@pytest.mark.parametrize("char", ["x", "\x1b", '"', "€", "\U0001f600", "\udc80"])
def test_the_largest_report_is_one_the_boot_handler_takes(clock: Clock, char: str) -> None:
    listener = Listener()
    talk, _ = make(listener)
    talk.failed(InstallError(char * 9999, lines=[char * 9999] * 99))
    (body,) = listener.bodies
    assert len(body) <= MAX_REPORT_BYTES
    decoded: dict[str, Any] = json.loads(body)
    assert len(decoded["lines"]) == MAX_REPORT_LINES


def test_the_console_shows_lines_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    progress.write_console("a line\n")
    assert capsys.readouterr().out == "a line\n"
