from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.machine import AnswerFile, Installer, Label, VmDefinition
from lab import changes
from lab.changes import Change
from lab.lab import Lab
from lab.native import OwnAnswers
from lab.store import DefinitionStore
from pipeline.errors import NotFoundError, UsageError
from pipeline.workspace import Cache, Home, Workspace

Make = Callable[..., VmDefinition]


def test_what_is_not_named_stays(lab: Lab, make_definition: Make) -> None:
    before = make_definition(cpus=3, labels=(Label(key="a", value="1"),))
    after = changes.apply(lab, "web1", Change(memory_mib=2048))
    assert (after.cpus, after.memory_mib, after.labels) == (3, 2048, before.labels)
    assert DefinitionStore(lab).load("web1") == after


def test_labels_are_set_changed_and_removed(lab: Lab, make_definition: Make) -> None:
    make_definition(labels=(Label(key="b", value="1"), Label(key="c", value="2")))
    after = changes.apply(lab, "web1", Change(labels={"a": "0", "b": "new", "c": None}))
    assert after.labels == (Label(key="a", value="0"), Label(key="b", value="new"))


def test_a_label_that_is_not_there_cannot_be_removed(lab: Lab, make_definition: Make) -> None:
    make_definition(labels=(Label(key="b", value="1"),))
    with pytest.raises(NotFoundError, match="web1 has no label 'a'") as caught:
        changes.apply(lab, "web1", Change(labels={"a": None, "x": "y"}))
    assert caught.value.resolution == "it has b"
    assert DefinitionStore(lab).load("web1").labels == (Label(key="b", value="1"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change(cpus=256), "cpus is 256"),
        (Change(memory_mib=1), "memory_mib is 1"),
        (Change(labels={f"k{number}": "" for number in range(65)}), "65 labels"),
    ],
)
def test_a_machine_that_cannot_be_stays_as_it_was(
    lab: Lab, make_definition: Make, change: Change, message: str
) -> None:
    before = make_definition()
    with pytest.raises(UsageError, match=f"web1 cannot be changed like this: .*{message}"):
        changes.apply(lab, "web1", change)
    assert DefinitionStore(lab).load("web1") == before


def test_an_answer_file_of_ones_own_stays(lab: Lab, make_definition: Make) -> None:
    definition = make_definition(installer=Installer.PRESEED, answer_file=AnswerFile.VERBATIM)
    store = DefinitionStore(lab)
    store.write(definition, OwnAnswers("d-i ...", AnswerFile.VERBATIM))
    changes.apply(lab, "web1", Change(cpus=4))
    assert store.answers_path("web1").read_text() == "d-i ..."


def test_an_unknown_machine_is_not_changed(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="there is no machine 'web1'"):
        changes.apply(lab, "web1", Change(cpus=4))


def test_only_hardware_waits_for_a_start() -> None:
    assert Change(cpus=1).is_of_hardware
    assert Change(memory_mib=1).is_of_hardware
    assert not Change(labels={"a": "b"}).is_of_hardware


def test_what_is_not_there_makes_nothing(tmp_path: Path) -> None:
    lab = Lab(Workspace(Cache(tmp_path / "cache"), Home(tmp_path / "home")))
    with pytest.raises(NotFoundError, match="there is no machine 'nope'"):
        changes.apply(lab, "nope", Change(cpus=4))
    assert not lab.home.root.exists()
