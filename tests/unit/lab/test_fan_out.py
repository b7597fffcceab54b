"""Which machines a command is run on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts.machine import Label, VmDefinition
from lab.fan_out import choose_machines
from lab.lab import Lab
from lab.store import DefinitionStore
from pipeline.errors import UsageError

Make = Callable[..., VmDefinition]


def test_a_value_with_a_comma_is_a_value(lab: Lab, make_definition: Make) -> None:
    make_definition("web1", labels=(Label(key="for", value="ann,bob"), Label(key="role", value="db")))
    make_definition("web2", mac="52:54:00:00:00:02", ip="192.168.100.3", labels=(Label(key="role", value="db"),))
    assert choose_machines(lab, [], everyone=False, labels=["for=ann,bob", "role"]) == ["web1"]


def test_a_broken_definition_beside_good_ones(lab: Lab, make_definition: Make) -> None:
    make_definition("web2", labels=(Label(key="role", value="db"),))
    DefinitionStore(lab).path("web1").write_text("{")
    assert choose_machines(lab, [], everyone=True, labels=[]) == ["web1", "web2"]  # one of all: it is tried, and told
    assert choose_machines(lab, [], everyone=False, labels=["role"]) == ["web2"]


def test_an_adopted_machine_is_none_that_the_lab_runs(lab: Lab, make_definition: Make) -> None:
    make_definition("web1", managed=False)
    with pytest.raises(UsageError, match="no machine is there"):
        choose_machines(lab, [], everyone=True, labels=[])
