from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from contracts import document
from contracts.arch import Arch
from contracts.lan import DhcpMode, Lan
from contracts.machine import ExtraDisk, FirmwareKind, Installer, Label, Nic, NicModel, SshHostKey, VmDefinition
from lab import addresses
from lab.lab import Lab
from lab.store import BrokenDefinitionError, CardRequest, DefinitionStore, MachineRequest, require_name
from pipeline.commit import publish_text
from pipeline.errors import ConflictError, NotFoundError, UsageError

Make = Callable[..., VmDefinition]
KEY = "ssh-ed25519 AAAAuser pvmlab"


def plan(lab: Lab, host_key: SshHostKey, **values: object) -> VmDefinition:
    request = MachineRequest(**({"name": "web1", "distro": "debian-12"} | values))  # type: ignore[arg-type]
    return DefinitionStore(lab).plan(request, host_key=host_key, authorized_key=KEY)


def test_written_definition_is_loaded_again(lab: Lab, make_definition: Make) -> None:
    definition = make_definition()
    store = DefinitionStore(lab)
    assert store.load("web1") == definition
    assert store.load_all() == [definition]
    assert store.path("web1").stat().st_mode & 0o777 == 0o600


def test_plan_chooses_addresses_and_a_fresh_uuid(lab: Lab, host_key: SshHostKey) -> None:
    first, second = plan(lab, host_key), plan(lab, host_key)
    assert (first.ip, first.mac) == ("192.168.100.2", second.mac)
    assert first.uuid != second.uuid
    assert not DefinitionStore(lab).exists("web1")


def test_beside_another_dhcp_server_the_address_must_be_said(lab: Lab, host_key: SshHostKey) -> None:
    proxy = Lan(dhcp=DhcpMode.PROXY, address="192.168.100.7")
    (lab.home.config / "lab.json").write_text(document.dumps(proxy))
    with pytest.raises(UsageError, match="address of web1 must be said") as caught:
        plan(lab, host_key)
    assert caught.value.resolution.startswith("--ip=ADDRESS")
    assert plan(lab, host_key, ip="192.168.100.200").ip == "192.168.100.200"


def test_plan_avoids_the_addresses_of_others(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    make_definition("other", ip="192.168.100.2")
    assert plan(lab, host_key).ip == "192.168.100.3"


def test_plan_gives_every_card_its_addresses(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    make_definition("other", nics=(Nic(mac="52:54:00:00:00:09", ip="192.168.100.3"),))
    planned = plan(lab, host_key, cards=3)
    assert [card.ip for card in planned.cards] == ["192.168.100.4", "192.168.100.5", "192.168.100.6"]
    assert len({card.mac for card in planned.cards}) == 3
    assert [card.ipv6 for card in planned.cards] == [addresses.ipv6_of(lab.lan, card.ip) for card in planned.cards]
    assert all(card.ipv6 for card in planned.cards)


def test_address_of_another_machines_further_card_is_refused(
    lab: Lab, host_key: SshHostKey, make_definition: Make
) -> None:
    make_definition("other", nics=(Nic(mac="52:54:00:00:00:09", ip="192.168.100.3"),))
    with pytest.raises(ConflictError, match=r"192\.168\.100\.3 is taken by other"):
        plan(lab, host_key, ip="192.168.100.3")
    with pytest.raises(ConflictError, match=r"52:54:00:00:00:09 is taken by other"):
        plan(lab, host_key, mac="52-54-00-00-00-09")


def test_plan_knows_what_boots_the_machine(lab: Lab, host_key: SshHostKey) -> None:
    assert plan(lab, host_key).firmware is FirmwareKind.UEFI
    native = {"installer": Installer.PRESEED}
    assert plan(lab, host_key, firmware=FirmwareKind.BIOS, **native).firmware is FirmwareKind.BIOS
    with pytest.raises(UsageError, match="UEFI boots"):
        plan(lab, host_key, firmware=FirmwareKind.BIOS)


def test_taken_name_is_refused(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    make_definition("web1")
    with pytest.raises(ConflictError, match=r"there is a machine 'web1' already"):
        plan(lab, host_key)


def test_taken_mac_is_refused_in_any_spelling(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    make_definition("other", mac="52:54:00:ab:cd:ef")
    with pytest.raises(ConflictError, match=r"52:54:00:ab:cd:ef is taken by other"):
        plan(lab, host_key, mac="52-54-00-AB-CD-EF")


def test_taken_ip_is_refused(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    make_definition("other", ip="192.168.100.9")
    with pytest.raises(ConflictError, match=r"192\.168\.100\.9 is taken by other"):
        plan(lab, host_key, ip="192.168.100.9")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mac": "nonsense"}, "not a MAC address"),
        ({"ip": "192.168.100.200"}, "cannot be a machine's address"),
        ({"cpus": 0}, "cpus is 0"),
        ({"cards": 0}, "1 to 8 cards"),
        ({"cards": 9}, "1 to 8 cards"),
        ({"firmware": FirmwareKind.BIOS, "arch": Arch.AARCH64, "installer": Installer.PRESEED}, "x86_64 machines only"),
        ({"memory_mib": 1}, "memory_mib is 1"),
        ({"name": "Web_1"}, "not a machine name"),
        ({"name": "provisioner"}, "the provisioner has it"),
    ],
)
def test_values_without_sense_are_refused(
    lab: Lab, host_key: SshHostKey, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(lab, host_key, **values)


def test_unknown_machine_is_not_found_and_known_ones_are_named(lab: Lab, make_definition: Make) -> None:
    with pytest.raises(NotFoundError) as caught:
        DefinitionStore(lab).load("web2")
    assert "none at all" in caught.value.resolution
    make_definition("web1")
    with pytest.raises(NotFoundError, match=r"no machine 'web2'") as caught:
        DefinitionStore(lab).load("web2")
    assert "known are: web1" in caught.value.resolution


def test_name_that_leaves_the_folder_is_refused(lab: Lab) -> None:
    with pytest.raises(UsageError):
        DefinitionStore(lab).load("../ssh/id_ed25519")


def test_broken_definition_tells_file_and_all_faults_but_no_secret(lab: Lab) -> None:
    text = '{"name": "web1", "cpus": "two", "ssh_host_key": {"private": "SECRET", "public": 3}}'
    (lab.home.vms / "web1.json").write_text(text)
    with pytest.raises(BrokenDefinitionError, match=r"definition of web1 is broken") as caught:
        DefinitionStore(lab).load("web1")
    details = caught.value.details
    assert str(lab.home.vms / "web1.json") in details
    assert "cpus: expected int" in details
    assert "missing key 'uuid'" in details
    assert "SECRET" not in details
    assert "vm.clean web1" in caught.value.resolution


def test_a_definition_that_is_no_file_is_broken(lab: Lab) -> None:
    os.mkfifo(lab.home.vms / "web1.json")  # to open it would wait for a writer, for ever
    (lab.home.vms / "web2.json").mkdir()
    for name in ("web1", "web2"):
        with pytest.raises(BrokenDefinitionError, match=rf"definition of {name} is broken") as caught:
            DefinitionStore(lab).load(name)
        assert "it is no regular file" in caught.value.details


def test_definition_under_another_name_is_broken(lab: Lab, make_definition: Make) -> None:
    make_definition("web1")
    (lab.home.vms / "web1.json").rename(lab.home.vms / "web2.json")
    with pytest.raises(BrokenDefinitionError) as caught:
        DefinitionStore(lab).load("web2")
    assert caught.value.faults == ("name: it says 'web1', the file says 'web2'",)


def test_partial_files_are_no_definitions(lab: Lab) -> None:
    (lab.home.vms / ".web1.json.1.aa.partial").write_text("")
    (lab.home.vms / ".hidden.json").write_text("")
    assert DefinitionStore(lab).names() == []


def test_files_with_other_names_are_strays(lab: Lab, make_definition: Make) -> None:
    make_definition("web1")
    for name in ("Bad_Name", "provisioner"):
        (lab.home.vms / f"{name}.json").write_text("{}")
    assert DefinitionStore(lab).names() == ["web1"]
    assert DefinitionStore(lab).strays() == ["Bad_Name", "provisioner"]


def test_delete_is_idempotent(lab: Lab, make_definition: Make) -> None:
    make_definition("web1")
    DefinitionStore(lab).delete("web1")
    DefinitionStore(lab).delete("web1")
    assert not DefinitionStore(lab).exists("web1")


def test_localhost_is_no_machine() -> None:
    with pytest.raises(UsageError):
        require_name("localhost")


def test_addresses_of_all_cards_can_be_asked_for(lab: Lab, host_key: SshHostKey) -> None:
    network = lab.lan.ipv6_network
    assert network is not None
    planned = plan(
        lab, host_key, cards=3, ip="192.168.100.3", ipv6=str(network[0x77]),
        more_cards=(CardRequest(mac="52-54-00-00-00-09", ip="192.168.100.2"),),
    )  # fmt: skip
    assert [card.ip for card in planned.cards] == ["192.168.100.3", "192.168.100.2", "192.168.100.4"]
    assert planned.cards[1].mac == "52:54:00:00:00:09"
    assert [card.ipv6 for card in planned.cards] == [str(network[number]) for number in (0x77, 2, 4)]


def test_an_address_is_not_chosen_whose_ipv6_twin_is_taken(lab: Lab, host_key: SshHostKey) -> None:
    network = lab.lan.ipv6_network
    assert network is not None
    DefinitionStore(lab).write(plan(lab, host_key, name="other", ip="192.168.100.9", ipv6=str(network[2])))
    assert plan(lab, host_key).ip == "192.168.100.3"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ipv6": "fd00::5"}, r"fd00::5 cannot be a machine's address in fd"),
        ({"ipv6": "nonsense"}, "'nonsense' is not an IPv6 address"),
        ({"ipv6": "fe80::1%eth0"}, "is not an IPv6 address"),
        ({"more_cards": (CardRequest(),)}, "addresses for 2 cards are given, and the machine has 1"),
        ({"cards": 2, "more_cards": (CardRequest(ip="10.0.0.1"),)}, r"10\.0\.0\.1 cannot be a machine's address"),
        ({"cards": 2, "more_cards": (CardRequest(mac="x"),)}, "'x' is not a MAC address"),
        ({"ip": "192.168.100.1"}, r"192\.168\.100\.1 cannot be a machine's address"),
        ({"ip": "192.168.100.0"}, r"192\.168\.100\.0 cannot be a machine's address"),
        ({"qemu_arguments": ("",)}, "qemu_arguments"),
        (
            {"secure_boot": True, "firmware": FirmwareKind.BIOS, "installer": Installer.PRESEED},
            "secure_boot is of UEFI",
        ),
    ],
)
def test_more_values_without_sense_are_refused(
    lab: Lab, host_key: SshHostKey, values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(lab, host_key, **values)


def test_an_ipv6_address_needs_a_network_with_ipv6(lab: Lab, host_key: SshHostKey) -> None:
    publish_text(lab.home.config / "lab.json", document.dumps(Lan()))
    with pytest.raises(UsageError, match="the lab's network has no IPv6"):
        plan(lab, host_key, ipv6="fd00::5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cards": 2, "ip": "192.168.100.5", "more_cards": (CardRequest(ip="192.168.100.5"),)}, "another card"),
        ({"cards": 2, "mac": "52:54:00:00:00:0a", "more_cards": (CardRequest(mac="52540000000a"),)}, "another card"),
    ],
)
def test_two_cards_do_not_get_the_same_address(
    lab: Lab, host_key: SshHostKey, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ConflictError, match=message):
        plan(lab, host_key, **values)


def test_the_provisioners_addresses_are_taken(lab: Lab, host_key: SshHostKey, make_definition: Make) -> None:
    for card in ("lan", "wan"):
        with pytest.raises(ConflictError, match="is taken by provisioner"):
            plan(lab, host_key, mac=addresses.derive_mac(lab.identity(), "provisioner", card=card))
    other = make_definition("other", ip="192.168.100.9", ipv6=addresses.ipv6_of(lab.lan, "192.168.100.9"))
    with pytest.raises(ConflictError, match="is taken by other"):
        plan(lab, host_key, ipv6=other.ipv6)


def test_all_the_hardware_is_in_the_definition(lab: Lab, host_key: SshHostKey) -> None:
    values = {
        "nic_model": NicModel.E1000E,
        "more_disks": (ExtraDisk(size_gib=1),),
        "secure_boot": True,
        "tpm": True,
        "labels": (Label(key="a", value="b"),),
        "qemu_arguments": ("-device", "edu"),
    }
    planned = plan(lab, host_key, **values)
    assert {name: getattr(planned, name) for name in values} == values


def test_a_rewritten_definition_keeps_what_goes_with_it(lab: Lab, make_definition: Make) -> None:
    store = DefinitionStore(lab)
    definition = make_definition()
    publish_text(store.answers_path("web1"), "answers")
    store.rewrite(definition)
    assert store.answers_path("web1").read_text() == "answers"
    assert store.path("web1").stat().st_mode & 0o777 == 0o600


def test_what_a_person_wrote_is_read_as_it_is(lab: Lab) -> None:
    store = DefinitionStore(lab)
    assert (store.find_user_data("web1"), store.find_answers("web1")) == (None, None)
    store.write_user_data("web1", "#!/bin/sh\r\n\r")
    assert store.find_user_data("web1") == "#!/bin/sh\r\n\r"


@pytest.mark.parametrize("place", ["pipe", "folder", "latin"])
def test_what_cannot_be_read_is_told_and_not_waited_for(lab: Lab, place: str) -> None:
    store = DefinitionStore(lab)
    for path in (store.user_data_path("web1"), store.answers_path("web1")):
        {"pipe": os.mkfifo, "folder": os.mkdir, "latin": lambda name: name.write_bytes(b"\xe4")}[place](path)
    with pytest.raises(ConflictError, match="the user-data of web1 cannot be read") as caught:
        store.find_user_data("web1")
    assert str(store.user_data_path("web1")) in caught.value.details
    with pytest.raises(ConflictError, match="the answer file of web1 cannot be read"):
        store.find_answers("web1")


def test_no_address_is_chosen_for_one_machine_that_another_asks_for(lab: Lab, make_definition: Make) -> None:
    make_definition("there", ip="192.168.100.3")
    asked = MachineRequest(name="b", distro="debian-12", ip="192.168.100.2")
    two = MachineRequest(name="a", distro="debian-12", cards=2)
    a, b = DefinitionStore(lab).with_addresses([two, asked])
    assert (a.ip, [card.ip for card in a.more_cards]) == ("192.168.100.4", ["192.168.100.5"])
    assert b.ip == "192.168.100.2"
    assert all(card.mac and card.ipv6 for card in a.more_cards)
    with pytest.raises(ConflictError, match=r"192\.168\.100\.3 is taken by there"):
        DefinitionStore(lab).with_addresses([MachineRequest(name="c", distro="debian-12", ip="192.168.100.3")])
