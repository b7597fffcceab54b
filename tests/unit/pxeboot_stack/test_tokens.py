"""One-time tokens: who gets in, for how long, how often; and what is kept and logged of them."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.machine import Nic, VmDefinition
from contracts.tokens import LIFETIME, PLACEHOLDER, TOKEN, mask
from pxeboot_stack.boot_handler import tokens
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.tokens import REPEAT_WINDOW, REPORTING, TokenStore
from tests.fakes.lab_files import make_machine

MACHINE = make_machine()
OTHER = make_machine(
    name="web2", mac="52:54:00:aa:bb:02", ip="192.168.100.12", uuid="00000000-0000-4000-8000-000000000002"
)
DOCUMENTS = ("config", "cloud-init/user-data", "answers/ks.cfg", "ignition")


class Clock:
    """Time that is set by hand. :ivar now: seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> TokenStore:
    return TokenStore(tmp_path / "run/tokens", clock=clock)


def refused(
    store: TokenStore, machine: VmDefinition, token: str, document: str = "config", client: str | None = MACHINE.ip
) -> str:
    """Return why; fails if it is not refused."""
    with pytest.raises(Refusal) as caught:
        store.require(machine, token, document=document, client=client)
    assert caught.value.status == 403
    assert "\n" not in caught.value.sentence
    assert len(token) < 8 or token not in caught.value.sentence  # a letter or two may be part of any sentence
    return caught.value.sentence


def test_a_token_is_128_random_bits(store: TokenStore) -> None:
    made = [store.issue(MACHINE) for _ in range(200)]
    assert all(TOKEN.match(token) for token in made)
    assert len(set(made)) == 200
    assert all(any(token[place] != made[0][place] for token in made) for place in range(32))


@pytest.mark.parametrize("document", [*DOCUMENTS, REPORTING])
def test_the_machine_gets_in_and_is_found(store: TokenStore, document: str) -> None:
    token = store.issue(MACHINE)
    assert store.find(token) == store.require_uuid(token, document=document, client=MACHINE.ip) == MACHINE.uuid
    store.require(MACHINE, token, document=document, client=MACHINE.ip)


def test_any_of_its_addresses_is_its_own(store: TokenStore) -> None:
    machine = make_machine(ipv6="fd00::11", nics=(Nic(mac="52:54:00:aa:bb:09", ip="192.168.100.19", ipv6="fd00::19"),))
    token = store.issue(machine)
    assert tokens.addresses_of(machine) == {"192.168.100.11", "fd00::11", "192.168.100.19", "fd00::19"}
    for document, client in zip(DOCUMENTS, sorted(tokens.addresses_of(machine)), strict=True):
        store.require(machine, token, document=document, client=client)
    assert "is not its address" in refused(store, machine, token, client="192.168.100.12")


@pytest.mark.parametrize("client", [OTHER.ip, "192.168.100.1", "127.0.0.1", "", None])
def test_the_token_is_worth_nothing_elsewhere(
    store: TokenStore, client: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    token = store.issue(MACHINE)
    for document in (*DOCUMENTS, REPORTING):
        assert "is not its address" in refused(store, MACHINE, token, document, client)
        assert f"refused: {client} asked for {document} of web1: {client} is not its address" in caplog.text
    assert token not in caplog.text
    store.require(MACHINE, token, document="config", client=MACHINE.ip)  # the attempts used nothing up


@pytest.mark.parametrize(
    "token",
    [
        "",
        "0" * 32,
        "f" * 31,
        "f" * 33,
        "F" * 32,
        "g" * 32,
        PLACEHOLDER,
        "../" + "0" * 29,
        "0" * 31 + "\n",
        "\u0660" * 32,
    ],
)
def test_guesses_are_refused(store: TokenStore, token: str, caplog: pytest.LogCaptureFixture) -> None:
    store.issue(MACHINE)
    assert store.find(token) is None
    refused(store, MACHINE, token)
    with pytest.raises(Refusal) as caught:
        store.require_uuid(token, document="config", client=MACHINE.ip)
    assert caught.value.status == 403
    assert caplog.text.count("refused: 192.168.100.11 asked for config") == 2
    assert len(token) < 8 or token not in caplog.text


@given(token=st.text(max_size=40) | st.from_regex(r"[0-9a-f]{32}", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_is_a_token_by_chance(store: TokenStore, token: str) -> None:
    store.issue(MACHINE)
    assert store.find(token) is None
    refused(store, MACHINE, token)


def test_a_new_script_ends_the_token_before(store: TokenStore) -> None:
    first, second = store.issue(MACHINE), store.issue(MACHINE)
    assert store.find(first) is None
    for document in (*DOCUMENTS, REPORTING):
        assert "not the one of its last boot" in refused(store, MACHINE, first, document)
        store.require(MACHINE, second, document=document, client=MACHINE.ip)


def test_a_document_is_handed_out_once_and_again_for_lost_answers(store: TokenStore, clock: Clock) -> None:
    token = store.issue(MACHINE)
    for later in (0, 1, REPEAT_WINDOW - 1):
        clock.now = 1000.0 + later
        store.require(MACHINE, token, document="config", client=MACHINE.ip)
    clock.now = 1000.0 + REPEAT_WINDOW + 1
    assert "handed out more than 15 minutes ago" in refused(store, MACHINE, token)
    store.require(MACHINE, token, document="cloud-init/user-data", client=MACHINE.ip)  # its first time


def test_a_machine_may_ask_again_by_another_card(store: TokenStore, clock: Clock) -> None:
    machine = make_machine(nics=(Nic(mac="52:54:00:aa:bb:09", ip="192.168.100.19"),))
    token = store.issue(machine)
    store.require(machine, token, document="config", client=machine.ip)
    store.require(machine, token, document="config", client="192.168.100.19")
    clock.now += REPEAT_WINDOW + 1
    for client in ("192.168.100.11", "192.168.100.19"):
        assert "handed out more than 15 minutes ago" in refused(store, machine, token, client=client)


@pytest.mark.parametrize("document", [REPORTING, "answers/report.sh"])
def test_reports_are_taken_as_long_as_the_install_lasts(store: TokenStore, clock: Clock, document: str) -> None:
    token = store.issue(MACHINE)
    for hour in range(24):
        clock.now = 1000.0 + hour * 3600
        store.require(MACHINE, token, document=document, client=MACHINE.ip)
    clock.now = 1000.0 + LIFETIME + 1
    assert "made more than 24 hours ago" in refused(store, MACHINE, token, document)


def test_the_end_of_the_install_ends_the_token_but_for_its_last_report(store: TokenStore, clock: Clock) -> None:
    token = store.issue(MACHINE)
    store.require(MACHINE, token, document="config", client=MACHINE.ip)
    store.end(MACHINE)
    for document in (*DOCUMENTS, "answers/report.sh"):
        assert "its install has ended" in refused(store, MACHINE, token, document)
    clock.now += REPEAT_WINDOW - 1
    store.end(MACHINE)  # told again: does not begin the time anew
    store.require(MACHINE, token, document=REPORTING, client=MACHINE.ip)
    clock.now += 2
    assert "its install has ended" in refused(store, MACHINE, token, REPORTING)


def test_an_end_without_a_beginning_is_nothing(store: TokenStore) -> None:
    store.end(MACHINE)
    assert "not the one of its last boot" in refused(store, MACHINE, "0" * 32)


def test_a_machine_made_again_under_its_name_has_no_token(store: TokenStore) -> None:
    token = store.issue(MACHINE)
    again = make_machine(uuid="00000000-0000-4000-8000-000000000009")
    assert "not the one of its last boot" in refused(store, again, token)


def test_all_of_it_survives_a_restart(store: TokenStore, tmp_path: Path, clock: Clock) -> None:
    token, ended = store.issue(MACHINE), store.issue(OTHER)
    store.require(MACHINE, token, document="config", client=MACHINE.ip)
    clock.now += REPEAT_WINDOW + 1
    store.end(OTHER)
    again = TokenStore(tmp_path / "run/tokens", clock=clock)
    assert again.find(token) == MACHINE.uuid
    assert "minutes ago" in refused(again, MACHINE, token)
    assert "its install has ended" in refused(again, OTHER, ended, client=OTHER.ip)
    again.require(MACHINE, token, document="ignition", client=MACHINE.ip)


def test_only_digests_are_kept_and_only_for_root(store: TokenStore, tmp_path: Path) -> None:
    folder = tmp_path / "run/tokens"
    token = store.issue(MACHINE)
    store.require(MACHINE, token, document="config", client=MACHINE.ip)
    assert folder.stat().st_mode & 0o777 == 0o700
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert token not in path.read_text()
    assert bytes.fromhex(token) not in path.read_bytes()


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir(mode=0o755)
    TokenStore(tmp_path / "tokens")
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_stays_open_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def somebody_elses(_: Path, mode: int) -> None:  # chmod(2) without CAP_FOWNER, which root of this test has
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "tokens").mkdir(mode=0o755)
    monkeypatch.setattr(Path, "chmod", somebody_elses)
    store = TokenStore(tmp_path / "tokens")
    assert store.find(store.issue(MACHINE)) == MACHINE.uuid
    assert "is open to others" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": "x"}', "\xff", "a copy"])
def test_a_broken_record_opens_nothing_and_stops_nobody(
    store: TokenStore, tmp_path: Path, clock: Clock, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, other = store.issue(MACHINE), store.issue(OTHER)
    folder = tmp_path / "run/tokens"
    path = folder / f"{MACHINE.uuid}.json"
    if text == "a copy":
        text = path.with_name(f"{OTHER.uuid}.json").read_text()
    path.write_bytes(text.encode("latin-1"))
    again = TokenStore(tmp_path / "run/tokens", clock=clock)
    refused(again, MACHINE, token)
    again.require(OTHER, other, document="config", client=OTHER.ip)
    assert "cannot be read; its machine has to boot again" in caplog.text
    assert [each.name for each in folder.iterdir()] == [f"{OTHER.uuid}.json"]


def test_what_is_no_file_is_said_and_stops_nobody(
    store: TokenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = store.issue(MACHINE)
    for name in (f"{OTHER.uuid}.json", f".{MACHINE.uuid}.json.partial"):
        (tmp_path / "run/tokens" / name).mkdir()
    assert TokenStore(tmp_path / "run/tokens").find(token) is None  # the clock of the world: a day is over
    assert f"{OTHER.uuid}.json cannot be read; its machine has to boot again: Is a directory" in caplog.text


def test_half_a_record_of_a_writer_that_was_ended_is_removed(store: TokenStore, tmp_path: Path, clock: Clock) -> None:
    token = store.issue(MACHINE)
    (tmp_path / "run/tokens" / f".{MACHINE.uuid}.json.partial").write_text('{"uuid')
    assert TokenStore(tmp_path / "run/tokens", clock=clock).find(token) == MACHINE.uuid
    assert [path.name for path in (tmp_path / "run/tokens").iterdir()] == [f"{MACHINE.uuid}.json"]


def test_records_of_machines_that_are_gone_are_removed(store: TokenStore, tmp_path: Path) -> None:
    gone, stays = store.issue(MACHINE), store.issue(OTHER)
    both, one = {MACHINE.uuid, OTHER.uuid}, {OTHER.uuid}
    for known in (both, one, both, one):  # its definition is put back each time
        store.prune(known)
        assert store.find(gone) == MACHINE.uuid
    for _ in range(3):
        store.prune(None)  # nobody knows
    assert store.find(gone) == MACHINE.uuid
    store.prune(one)
    store.prune(one)
    assert (store.find(gone), store.find(stays)) == (None, OTHER.uuid)
    assert [path.name for path in (tmp_path / "run/tokens").iterdir()] == [f"{OTHER.uuid}.json"]


def test_records_of_installs_that_ended_are_removed(store: TokenStore, tmp_path: Path, clock: Clock) -> None:
    token, running = store.issue(MACHINE), store.issue(OTHER)
    store.end(MACHINE)
    clock.now += REPEAT_WINDOW + 1
    store.prune(None)
    assert (store.find(token), store.find(running)) == (None, OTHER.uuid)
    clock.now += LIFETIME
    store.prune(None)
    assert list((tmp_path / "run/tokens").iterdir()) == []


def test_what_there_was_no_time_to_remove_is_removed_later(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [store.issue(machine) for machine in (MACHINE, OTHER)]
    monkeypatch.setattr(tokens, "_PRUNE_BUDGET", -1.0)
    (tmp_path / "run/tokens" / f"{MACHINE.uuid}.json").unlink()
    (tmp_path / "run/tokens" / f"{MACHINE.uuid}.json").mkdir()  # cannot be unlinked
    left = []
    for _ in range(3):
        store.prune(frozenset())
        left.append(sum(store.find(token) is not None for token in made))
    assert left == [2, 1, 0]
    assert f"the token of {MACHINE.uuid} cannot be removed" in caplog.text


def test_records_beyond_their_time_are_removed(store: TokenStore, tmp_path: Path, clock: Clock) -> None:
    token = store.issue(MACHINE)
    clock.now += LIFETIME + 1
    assert TokenStore(tmp_path / "run/tokens", clock=clock).find(token) is None
    assert list((tmp_path / "run/tokens").iterdir()) == []


def test_a_token_that_cannot_be_kept_is_not_given_out(store: TokenStore, tmp_path: Path) -> None:
    token = store.issue(MACHINE)
    (tmp_path / "run").rename(tmp_path / "away")
    for call in (
        lambda: store.issue(MACHINE),
        lambda: store.require(MACHINE, token, document="config", client=MACHINE.ip),
        lambda: store.end(MACHINE),
    ):
        with pytest.raises(Refusal, match="the token cannot be kept") as caught:
            call()
        assert caught.value.status == 503


def test_a_status_directory_that_a_person_emptied_is_filled_again(store: TokenStore, tmp_path: Path) -> None:
    store.issue(OTHER)
    shutil.rmtree(tmp_path / "run/tokens")
    token = store.issue(MACHINE)
    assert TokenStore(tmp_path / "run/tokens", clock=lambda: 1000.0).find(token) == MACHINE.uuid
    assert (tmp_path / "run/tokens").stat().st_mode & 0o777 == 0o700


def test_what_is_handed_out_is_bounded(store: TokenStore) -> None:
    token = store.issue(MACHINE)
    for number in range(tokens.MAX_DOCUMENTS):
        store.require(MACHINE, token, document=f"answers/{number}", client=MACHINE.ip)
    assert "documents were handed out already" in refused(store, MACHINE, token, "answers/more")


def test_a_request_cannot_write_lines_into_the_log(store: TokenStore, caplog: pytest.LogCaptureFixture) -> None:
    token = store.issue(MACHINE)
    refused(store, MACHINE, token, document="a\nrefused: nobody\x1b[2J" + "x" * 500, client=OTHER.ip)
    assert len(caplog.records[-1].getMessage()) < 300
    assert caplog.records[-1].getMessage().isprintable()


def test_machines_read_only_their_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of eight asks, from its own address, for all documents of all eight, with each one's token."""
    caplog.set_level(logging.WARNING)
    machines = [
        make_machine(
            name=f"m{number}", mac=f"52:54:00:00:00:{number:02x}", ip=f"192.168.100.{number + 10}",
            uuid=f"00000000-0000-4000-8000-{number:012d}",
        )
        for number in range(8)
    ]  # fmt: skip
    store = TokenStore(tmp_path / "tokens")
    made = {machine.name: store.issue(machine) for machine in machines}
    let_in, denied = 0, 0
    for asking, owner, token_of in itertools.product(machines, repeat=3):
        mine = asking is owner is token_of
        for document in DOCUMENTS:
            if mine:
                store.require(owner, made[token_of.name], document=document, client=asking.ip)
                let_in += 1
            else:
                refused(store, owner, made[token_of.name], document, asking.ip)
                denied += 1
    assert (let_in, denied) == (8 * len(DOCUMENTS), (8**3 - 8) * len(DOCUMENTS))
    assert len(caplog.records) == denied
    assert not any(token in caplog.text for token in made.values())


def test_the_mask_takes_every_token_out() -> None:
    token = os.urandom(16).hex()
    for text in (f"GET /m/{token}/config HTTP/1.1", f"http://a/m/{token}", f"/m/{token}/x /m/{token}/y"):
        assert token not in mask(text)
        assert PLACEHOLDER in mask(text)
    assert mask("/m/none/config /images/x") == "/m/none/config /images/x"
