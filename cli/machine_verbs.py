"""What the verbs of single machines do: words into values, then ``lab``."""

from __future__ import annotations

import sys
from pathlib import Path

from cli.builds import DoitArtifacts, image_task
from cli.confirm import require_yes
from cli.creation_checks import require_creatable
from cli.machine_options import HardwareWords
from cli.output import say, until_interrupted
from cli.start_checks import require_documents
from cli.words import choice
from contracts.arch import Arch
from contracts.lan import DhcpMode
from contracts.machine import Installer, MachineSource
from contracts.names import PROVISIONER_NAME
from lab import journey, provisioner, ssh, target
from lab.cloud_machine import require_image
from lab.console_logs import choose_log, follow_log, read_log
from lab.lab import Lab
from lab.lan_settings import UNCHANGED, LanRequest, plan_lan
from lab.machine import Machine
from lab.native import OwnAnswers, native_installer, read_answers
from lab.progress import open_reporter
from lab.provisioner_record import ProvisionerMode, find_mode, find_record
from lab.reach import require_reachable
from lab.store import DefinitionStore, MachineRequest
from lab.target import BootFrom, StartOptions
from lab.user_data import read_user_data
from pipeline.errors import UsageError


def create(
    name: str, *, distro: str, arch: str, hardware: HardwareWords, installer: str = "", answer_file: str = "",
    disk: str | bool = "", user_data: str = "",
) -> None:  # fmt: skip
    """Create a target.

    :param disk: a person's own cloud image; True for the distribution's; nothing for a machine that is installed.
    :param installer: ``native``, ``pvmlab``, or nothing: the native one if there is an *answer_file* for it.
    :raises PvmlabError: if a value makes no sense or is taken.
    """
    machine_arch, answers = choice(Arch, arch, "--arch"), read_answers(Path(answer_file)) if answer_file else None
    kind = _installer(installer, distro, machine_arch, answers)
    lab, source = Lab.from_environment(), MachineSource.IMAGE if disk else MachineSource.NETWORK
    text = read_user_data(Path(user_data)) if user_data else None
    if disk is True:
        image_task(distro, machine_arch)  # is there one at all?
    image = str(require_image(disk)) if isinstance(disk, str) and disk else ""
    request = hardware.apply(
        MachineRequest(
            name=name, distro=distro, arch=machine_arch, installer=kind, answers=answers, source=source, image=image,
            user_data=text,
        )
    )  # fmt: skip
    definition = target.create(lab, request, check=lambda planned: require_creatable(lab, planned, request))
    if answers is not None and kind is Installer.AUTOINSTALL and not answers.tells_its_end:
        say(f"{answer_file} does not seem to report its end to the lab: see docs/reference/answer-files.md")
    say(f"created {name}: {definition.distro}, {definition.ip}, {definition.mac}; ./pvmlab vm.start {name} --wait")


def start(name: str, *, wait: bool, timeout: float | None, boot: str = "", reboots: bool = True) -> None:
    """Start a target.

    :param boot: ``disk`` or ``pxe`` for this start; nothing for what it needs next.
    :param reboots: False: it is off where its system would reboot.
    :raises PvmlabError: if it does not come up.
    """
    options = StartOptions(boot=choice(BootFrom, boot, "--boot") if boot else None, reboots=reboots)
    lab = Lab.from_environment()
    definition = DefinitionStore(lab).load(name)
    with open_reporter() as reporter:
        journey.start(
            lab, definition, reporter=reporter, artifacts=DoitArtifacts(), wait=wait, timeout=timeout, options=options,
            check=lambda machine: require_documents(lab, machine),
        )  # fmt: skip


def stop(name: str, *, timeout: float, force: bool) -> None:
    """Stop a target or the provisioner.

    :raises NotFoundError: if there is none of that name. :raises ConflictError: if it is not the lab's to stop.
    """
    lab = Lab.from_environment()
    machine = require_our_machine(lab, name)
    outcome = provisioner.stop(lab) if name == PROVISIONER_NAME else machine.stop(timeout=timeout, force=force)
    journey.stop_unused_network(lab)
    say(f"{name}: {outcome}")


def stop_provisioner() -> None:
    """Stop the provisioner; off is fine too."""
    stop(PROVISIONER_NAME, timeout=0, force=True)


def shell(name: str, command: str | None) -> int:
    """Log in to a machine, or run a command line there; return the exit status.

    :raises NotFoundError: if there is none of that name. :raises ConflictError: if it is off, or does not answer.
    """
    lab = Lab.from_environment()
    require_reachable(lab, name)
    return ssh.shell(lab, name, command)


def print_log(name: str, *, which: str, follow: bool) -> None:
    """Print a log. :raises NotFoundError: if there is no such machine or log."""
    log = choose_log(require_machine(Lab.from_environment(), name).logs, which)
    for line in read_log(log):
        sys.stdout.write(f"{line}\n")
    if follow:
        with until_interrupted():
            for text in follow_log(log):
                sys.stdout.write(text)
                sys.stdout.flush()


def clean_machine(name: str, *, yes: bool) -> None:
    """Remove a target. :raises NotFoundError: if there is none of that name."""
    lab = Lab.from_environment()
    require_machine(lab, name)
    require_yes(f"{name} and what is on its disk will be gone.", yes=yes)
    target.clean(lab, name)
    say(f"removed {name}")


def create_provisioner(mode: str = "", *, network: LanRequest = UNCHANGED, interface: str = "") -> None:
    """Make the provisioner.

    :param mode: ``vm`` or ``host``; nothing for what it is already, or else ``vm``.
    :param network: what is to change in the lab's network. :param interface: of this host, joined with the lab's.
    :raises UsageError: for another *mode*. :raises PvmlabError: if the network or its artifacts cannot be made.
    """
    lab, wanted = Lab.from_environment(), find_wanted_mode(mode)
    lan, record = plan_lan(lab, network, mode=wanted), find_record(lab.home)  # before anything is built
    planned = provisioner.plan_record(lab, wanted, interface, dhcp=network.dhcp)
    changed = lan != lab.lan or (record is not None and planned.interface != record.interface)
    DoitArtifacts(planned.mode).ensure_provisioner()
    made, chosen = provisioner.create(lab, wanted, network=network, interface=interface), find_mode(lab.home)
    what = f"the provisioner ({chosen} mode)"
    there = f"{what} is there already" + (", the network has changed" if changed else "")
    say(f"created {what}; ./pvmlab provisioner.start" if made else there)


def find_wanted_mode(words: str) -> ProvisionerMode | None:
    """Return the mode that *words* name; None for none. :raises UsageError: for an unknown one."""
    return choice(ProvisionerMode, words, "--mode") if words else None


def network_request(*, dhcp: str, subnet: str, ipv6_subnet: str, domain: str, address: str) -> LanRequest:
    """Return what the words ask of the network. :raises UsageError: if *dhcp* is none we know."""
    mode = choice(DhcpMode, dhcp, "--dhcp") if dhcp else None
    return LanRequest(dhcp=mode, subnet=subnet, ipv6_subnet=ipv6_subnet, domain=domain, address=address)


def start_provisioner() -> None:
    """Start the provisioner. :raises PvmlabError: if it does not get ready."""
    with open_reporter() as reporter:
        journey.start_provisioner(Lab.from_environment(), reporter=reporter, artifacts=DoitArtifacts())


def require_machine(lab: Lab, name: str) -> Machine:
    """Return the machine *name*, whose definition may be broken. :raises NotFoundError: if there is none."""
    store = DefinitionStore(lab)
    if name != PROVISIONER_NAME and not store.exists(name):
        store.load(name)  # says so
    return lab.machine(name)


def require_our_machine(lab: Lab, name: str) -> Machine:
    """Return the machine *name*, whose definition may be broken.

    :raises NotFoundError: if there is none. :raises ConflictError: if it was adopted: nothing is known of its power.
    """
    store = DefinitionStore(lab)
    if name != PROVISIONER_NAME and store.is_adopted(name):
        target.require_managed(store.load(name))
    return lab.machine(name)


def _installer(words: str, distro: str, arch: Arch, answers: OwnAnswers | None) -> Installer:
    """Return what installs the machine. :raises UsageError: if *words* make no sense, or no sense with *answers*."""
    from distros.registry import require_release

    wanted = words or ("native" if answers is not None else "pvmlab")
    if wanted == "native":
        return native_installer(require_release(distro, arch), arch)
    if wanted != "pvmlab":
        raise UsageError(f"--installer {words!r} is unknown", resolution="use one of: pvmlab, native")
    if answers is not None:
        raise UsageError(
            "--answer-file is for a distribution's own installer, not for pvmlab's", resolution="use --installer=native"
        )
    return Installer.PVMLAB
