from __future__ import annotations

import dataclasses

import pytest

from contracts.report import InstallState, MachineStatus, Phase
from contracts.timeline import Event, EventKind
from lab.diagnosis import Stage, diagnose, follow_trail

NEW = MachineStatus(name="web1", uuid="00000000-0000-4000-8000-525400000001")
K = EventKind
DORA = [(K.DISCOVER, "asked for an address"), (K.OFFER, "was offered 192.168.100.11"),
        (K.REQUEST, "asked for 192.168.100.11"), (K.ACK, "got 192.168.100.11")]  # fmt: skip
FIRMWARE = [*DORA, (K.TFTP_SENT, "ipxe-x86_64.efi sent by TFTP")]
IPXE = [*FIRMWARE, *DORA, (K.CHAIN, "boot.ipxe fetched")]
SCRIPT = [*IPXE, (K.INSTALL_SCRIPT, "boot script: install")]
FILES = [*SCRIPT, (K.FILE, "vmlinuz fetched (8.0 MB in 0.1 s)"), (K.FILE, "initrd.gz fetched (9.0 MB in 0.1 s)"),
         (K.FILE, "modules.cpio.gz fetched (1.0 MB in 0.1 s)")]  # fmt: skip
INSTALLER = [*FILES, *DORA]
CONFIGURED = [*INSTALLER, (K.DOCUMENT, "config fetched")]
PHASES = [*CONFIGURED, (K.PHASE, "disk: partitions")]
DONE = [*PHASES, (K.DONE, "bootloader done, installed: done")]
Story = list[tuple[EventKind, str]]


def told(story: Story, *, start: float = 1000.0) -> list[Event]:
    """Return the events of *story*, a second apart."""
    return [Event(time=start + number, kind=kind, text=text) for number, (kind, text) in enumerate(story)]


def sentence(story: Story, status: MachineStatus = NEW, *, silence: float = 34.0, console: str = "") -> str:
    events = told(story)
    now = max((event.latest for event in events), default=1000.0) + silence
    return diagnose(status, events, now=now, console=console.splitlines())


@pytest.mark.parametrize(
    ("story", "words"),
    [
        (DORA[:1], "asked for an address 34 s ago, and DHCP offered none: check that its definition is in use"),
        ([(K.DISCOVER, "asked for an address: no address available")], "DHCP offered none (no address available)"),
        (DORA[:2], "DHCP offered web1 an address 34 s ago, and it did not take it: another DHCP server"),
        (DORA[:3], "asked for its address 34 s ago, and DHCP did not answer: check that dnsmasq runs"),
        (DORA, "DHCP answered web1 34 s ago, and no TFTP request came: its firmware was offered no boot program"),
        ([*DORA[:3], (K.NAK, "was refused 10.0.0.1: wrong network")], "was refused 10.0.0.1: wrong network (34 s ago)"),
        ([(K.NAK, "was refused 10.0.0.1"), *DORA], "no TFTP request came"),
        ([*DORA, (K.TFTP_FAILED, "asked by TFTP for x.efi: not there")], "asked by TFTP for x.efi: not there (34 s"),
        (FIRMWARE, "ipxe-x86_64.efi sent by TFTP 34 s ago, and nothing was asked since: the program did not start"),
        ([*DORA, (K.FILE, "ipxe-x86_64.efi fetched (1.0 MB in 0.1 s)")], "and nothing was asked since: the program"),
        ([*FIRMWARE, *DORA[:1]], "web1's iPXE asked for an address 34 s ago and got none"),
        ([*FIRMWARE, *DORA], "web1's iPXE got its address 34 s ago and did not fetch boot.ipxe: HTTP (TCP port 80)"),
        (IPXE, "fetched boot.ipxe 34 s ago and never asked for its boot script"),
        ([*IPXE, (K.FOREIGN, "asked for a boot script from 10.0.0.9, which is not its address")],
         "which is not its address (34 s ago): an old lease, or another DHCP server"),
        ([*IPXE, (K.REFUSED, "the artifact vmlinuz is not built yet")], "vmlinuz is not built yet (34 s ago)"),
        ([*IPXE, (K.MENU, "was shown how it is adopted")], "its MAC address was not known then"),
        (SCRIPT, "got its boot script 34 s ago and fetched nothing that it names"),
        (FILES[:-2], "fetched vmlinuz, the last 34 s ago, and has asked for nothing since"),
        ([*FILES[:-1], (K.FILE_FAILED, "modules.cpio.gz: HTTP status 404")],
         "modules.cpio.gz: HTTP status 404 (34 s ago): an artifact is missing"),
        (FILES, "fetched vmlinuz, initrd.gz, modules.cpio.gz, the last 34 s ago, and has asked for nothing since"),
        (INSTALLER, "installer runs (it fetched vmlinuz, initrd.gz, modules.cpio.gz) and got its address 34 s ago"),
        ([*INSTALLER, (K.DENIED, "refused: config of web1 is for web1 only")], "a token is good for one boot"),
        (CONFIGURED, "fetched its configuration 34 s ago and its installer has not reported since"),
        ([*IPXE, (K.DISK_SCRIPT, "boot script: boot the disk")], "was sent to its disk 34 s ago"),
        ([*IPXE, (K.RESCUE_SCRIPT, "boot script: rescue")], "was sent into its rescue shell 34 s ago"),
        ([(K.PROXY, "was told what to boot: proxy"), (K.TFTP_SENT, "undionly.kpxe sent by TFTP"),
          (K.PROXY, "was told what to boot: proxy")], "iPXE was told what to boot 34 s ago, beside the other"),
        ([(K.PROXY, "was told what to boot: proxy")], "check that the other one offers it an address"),
        ([(K.DHCP_OTHER, "DHCPINFORM 192.168.100.11")], "web1 was last seen 34 s ago: DHCPINFORM"),
    ],
)  # fmt: skip
def test_the_first_link_that_is_missing_is_named(story: Story, words: str) -> None:
    assert words in sentence(story)


@pytest.mark.parametrize(
    ("status", "console", "words"),
    [
        (NEW, "", "never asked the network to boot: its firmware did not get as far as PXE"),
        (NEW, ">>Start PXE over IPv4.", "the provisioner saw nothing of it: no DHCP request from its MAC address"),
        (NEW, ">>Start PXE over IPv4.\niPXE 1.21.1", "HTTP to the provisioner does not work"),
        (dataclasses.replace(NEW, state=InstallState.BOOTING), "iPXE", "its installer has not reported"),
        (
            dataclasses.replace(NEW, state=InstallState.INSTALLING, phase=Phase.SYSTEM, percent=30), "",
            "the installer of web1 fell silent in phase 5 of 7, system, at 30 %",
        ),
    ],
)  # fmt: skip
def test_without_any_event_the_console_tells(status: MachineStatus, console: str, words: str) -> None:
    assert words in sentence([], status, console=console)


def test_an_installer_that_fell_silent_is_measured_from_its_last_report() -> None:
    status = dataclasses.replace(NEW, state=InstallState.INSTALLING, phase=Phase.SYSTEM, percent=30, updated=5000.0)
    said = diagnose(status, told(PHASES), now=5300.0)
    assert said.startswith("the installer of web1 fell silent in phase 5 of 7, system, at 30 %, 5 min ago")


@pytest.mark.parametrize("before", [DONE, PHASES, [*IPXE, (K.DISK_SCRIPT, "boot script: boot the disk")]])
def test_an_earlier_boot_does_not_count(before: Story) -> None:
    events = [*told(before), *told(DORA, start=5000.0)]
    assert "no TFTP request came" in diagnose(NEW, events, now=5037.0)


def test_a_boot_that_begins_again_is_followed_anew() -> None:
    trail = follow_trail([*told(FILES), *told(FIRMWARE, start=1100.0)])
    assert (trail.stage, trail.files, trail.dhcp) == (Stage.PROGRAM, (), None)


def test_repeats_count_by_the_last_one() -> None:
    events = [Event(time=1000.0, last=1100.0, count=9, kind=K.DISCOVER, text="asked for an address"),
              Event(time=1000.5, kind=K.OFFER, text="was offered 192.168.100.11")]  # fmt: skip
    assert "DHCP offered none" in diagnose(NEW, events, now=1110.0)
