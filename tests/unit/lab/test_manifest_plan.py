"""The plan is a pure function: what is there and what is wanted in, actions out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from contracts.lan import Lan
from contracts.machine import Label, VmDefinition
from lab.manifest import Manifest, read
from lab.manifest_plan import ActionKind, CurrentLab, CurrentMachine, Effect, changed, find_differences, make_plan
from lab.provisioner_record import ProvisionerMode


def wanted(body: str, top: str = "") -> Manifest:
    return read(f"version: 1\n{top}machines:\n{body}", Path("lab.yaml"), Lan())


def there(manifest: Manifest, *, running: bool = True, **changes: Any) -> CurrentLab:
    """Return a lab that has the machines of *manifest*, each with *changes* of its definition."""
    machines = {
        machine.name: CurrentMachine(
            definition=dataclasses.replace(machine.trial, **changes), running=running,
            user_data=machine.request.user_data,
        )
        for machine in manifest.machines
    }  # fmt: skip
    return CurrentLab(lan=Lan(), mode=ProvisionerMode.VM, provisioner_running=running, machines=machines)


def actions(manifest: Manifest, current: CurrentLab, **options: bool) -> list[tuple[str, str, tuple[str, ...], bool]]:
    found = make_plan(manifest, current, **options).actions
    return [(action.kind.value, action.name, action.reasons, action.restarts) for action in found]


def test_nothing_is_to_be_done_if_all_is_as_wanted() -> None:
    manifest = wanted("  db1: {labels: {b: x, a: y}}\n  web: {replicas: 2, after: {db1: ssh}}\n")
    assert make_plan(manifest, there(manifest)).is_empty


def test_what_the_file_leaves_open_is_as_wanted() -> None:
    manifest = wanted("  a: \n")
    assert actions(manifest, there(manifest, mac="52:54:00:12:34:56", ip="192.168.100.77")) == []


def test_all_of_a_new_lab_is_made() -> None:
    manifest = wanted("  b: \n  a: {memory: 2G}\n", "network: {domain: x.test}\nprovisioner: {mode: host}\n")
    current = CurrentLab(lan=Lan(), mode=None, provisioner_running=False, machines={})
    assert actions(manifest, current) == [
        ("network", "network", ("domain: pvmlab.local -> x.test",), False),
        ("provisioner", "provisioner", ("it is not there",), False),
        ("create", "b", ("it is not there: debian-12, 2 cpus, 1024 MiB",), False),
        ("create", "a", ("it is not there: debian-12, 2 cpus, 2048 MiB",), False),
    ]


@pytest.mark.parametrize(
    ("changes", "kind", "reason", "restarts"),
    [
        ({"memory_mib": 512}, "change", "memory (MiB): 512 -> 1024", True),
        ({"cpus": 1}, "change", "cpus: 1 -> 2", True),
        ({"qemu_arguments": ("-S",)}, "change", "qemu-args: -S -> none", True),
        ({"labels": (Label(key="a", value="b"),)}, "change", "labels: a=b -> none", False),
        ({"disk_gib": 4}, "recreate", "disk-size (GiB): 4 -> 8", True),
        ({"distro": "debian-13"}, "recreate", "distro: debian-13 -> debian-12", True),
        ({"tpm": True}, "recreate", "tpm: True -> False", True),
    ],
)
def test_a_difference_is_a_change_a_restart_or_a_new_machine(
    changes: dict[str, Any], kind: str, reason: str, *, restarts: bool
) -> None:
    manifest = wanted("  a: \n")
    assert actions(manifest, there(manifest, **changes)) == [(kind, "a", (reason,), restarts)]
    off = actions(manifest, there(manifest, running=False, **changes))
    assert (kind, "a", (reason,), False) in off


def test_addresses_that_are_asked_for_are_compared_in_any_spelling() -> None:
    manifest = wanted("  a: {ip: 192.168.100.9, mac: 52-54-00-AA-BB-CC}\n")
    assert actions(manifest, there(manifest, ip="192.168.100.9", mac="52:54:00:aa:bb:cc")) == []
    assert actions(manifest, there(manifest, ip="192.168.100.8", mac="52:54:00:aa:bb:cc")) == [
        ("recreate", "a", ("ip: 192.168.100.8 -> 192.168.100.9",), True)
    ]


def test_user_data_is_compared_and_not_shown() -> None:
    manifest = wanted("  a: {user-data: {password: SECRET}}\n")
    current = there(manifest)
    machine = dataclasses.replace(current.machines["a"], user_data="#cloud-config\nother: SECRET\n")
    found = find_differences(manifest.machines[0], machine)
    assert [(str(each), each.effect) for each in found] == [("user-data is other", Effect.RECREATE)]


def test_extra_machines_stay_without_prune_and_adopted_ones_always() -> None:
    manifest, other = wanted("  a: \n"), wanted("  a: \n  old: \n  real: \n")
    current = there(other)
    real = dataclasses.replace(current.machines["real"].definition, managed=False)
    machines = {**current.machines, "real": CurrentMachine(definition=real, running=False)}
    current = dataclasses.replace(current, machines=machines)
    plan = make_plan(manifest, current)
    assert (plan.actions, plan.extra) == ((), ("old",))
    pruned = make_plan(manifest, current, prune=True)
    assert [(action.kind, action.name) for action in pruned.actions] == [(ActionKind.REMOVE, "old")]
    assert pruned.extra == ()


@pytest.mark.parametrize(
    ("mode", "running", "expected"),
    [
        (None, False, [("provisioner", ("it is not there",), False)]),
        (ProvisionerMode.VM, True, [("provisioner", ("mode: vm -> host",), True)]),
        (ProvisionerMode.VM, False, [("provisioner", ("mode: vm -> host",), False)]),
        (ProvisionerMode.HOST, False, [("start", ("it is off",), False)]),
        (ProvisionerMode.HOST, True, []),
    ],
)
def test_the_provisioner_is_made_moved_or_started(
    mode: ProvisionerMode | None, expected: list[tuple[str, tuple[str, ...], bool]], *, running: bool
) -> None:
    manifest = wanted("  a: \n", "provisioner: {mode: host}\n")
    current = dataclasses.replace(there(manifest), mode=mode, provisioner_running=running)
    found = make_plan(manifest, current).actions
    assert [(action.kind.value, action.reasons, action.restarts) for action in found] == expected


def test_what_can_be_changed_is_changed_and_nothing_else() -> None:
    manifest = wanted("  a: {memory: 2G, cpus: 4, labels: {x: y}}\n")
    present = there(manifest, memory_mib=512, cpus=1, labels=(), ip="192.168.100.77")
    before: VmDefinition = present.machines["a"].definition
    after = changed(before, manifest.machines[0])
    assert after == dataclasses.replace(before, memory_mib=2048, cpus=4, labels=(Label(key="x", value="y"),))
    current = CurrentMachine(definition=after, running=True)
    assert find_differences(manifest.machines[0], current) == []
