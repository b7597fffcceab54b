"""``lab.diff``, ``lab.status`` and ``vm.create --disk|--user-data`` as they are typed; nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import program
from cli.render_checks import check_user_data
from cli.start_checks import require_documents
from contracts.machine import MachineSource
from contracts.nocloud import combine_user_data
from lab.lab import Lab
from lab.manifest_apply import LabUpError
from lab.manifest_crew import Outcome, State
from lab.store import DefinitionStore, MachineRequest
from pipeline.errors import ConflictError, ExitCode, PvmlabError
from pipeline.workspace import Cache
from tests.fakes.fresh_verbs import fresh_verbs
from tests.fakes.lab_files import make_machine

Run = Callable[..., tuple[int, str, str]]
LAB = "version: 1\nmachines:\n  db1: \n  web: {replicas: 2, after: {db1: ssh}}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a verb in a folder with a lab.yaml and a home that is not there; return exit code, output and errors."""
    monkeypatch.setenv("PVMLAB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PVMLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab.yaml").write_text(LAB)

    def call(*words: str) -> tuple[int, str, str]:
        code = program.run(fresh_verbs(), ["pvmlab", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_diff_of_a_new_lab_makes_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("lab.diff")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["provisioner", "provisioner"], ["db1", "create"], ["web-1", "create"], ["web-2", "create"],
    ]  # fmt: skip
    assert not (tmp_path / "home").exists()


def test_diff_for_programs(run: Run) -> None:
    _, out, _ = run("lab.diff", "lab.yaml", "--output", "json")
    plan = json.loads(out)
    assert [action["kind"] for action in plan["actions"]] == ["provisioner", "create", "create", "create"]
    assert (plan["schema"], plan["extra"], plan["actions"][1]["needs"]) == (1, [], "")


def test_status_shows_what_is_missing_and_what_waits(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("lab.status")
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[2:]] == [
        ["db1", "missing", "create:", "it"], ["web-1", "missing", "db1:", "ssh"], ["web-2", "missing", "db1:", "ssh"],
    ]  # fmt: skip
    _, out, _ = run("lab.status", "--output=json")
    assert json.loads(out)["machines"][1]["after"] == {"db1": "ssh"}
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["lab.up", "nowhere.yaml"], ExitCode.NOT_FOUND, "the lab file nowhere.yaml cannot be read"),
        (["lab.up", "a.yaml", "b.yaml"], ExitCode.USAGE, "a lab is described by one file"),
        (["lab.up", "--jobs", "-1"], ExitCode.USAGE, "--jobs is 0 or more"),
        (["lab.up", "--jobs", "two"], ExitCode.USAGE, "--jobs wants a whole number"),
        (["lab.down", "nowhere.yaml"], ExitCode.NOT_FOUND, "cannot be read"),
        (["lab.diff", "bad.yaml"], ExitCode.USAGE, "bad.yaml:3:3: machines.Web:"),
        (["lab.diff", "--output", "xml"], ExitCode.USAGE, "--output 'xml' is unknown"),
        (["lab.status", "--output", "xml"], ExitCode.USAGE, "--output 'xml' is unknown"),
        (["lab.status", "."], ExitCode.NOT_FOUND, "Is a directory"),
        (["lab.diff", "binary.yaml"], ExitCode.USAGE, "it is not UTF-8"),
        (["vm.create", "a", "--disk"], ExitCode.USAGE, "the definition of debian-12 names no cloud image"),
        (["vm.create", "a", "--disk=nowhere.img"], ExitCode.NOT_FOUND, "nowhere.img cannot be read"),
        (["vm.create", "a", "--disk=lab.yaml"], ExitCode.FAILED, "the disk image lab.yaml is refused"),
        (["vm.create", "a", "--user-data=nowhere"], ExitCode.NOT_FOUND, "the user-data nowhere cannot be read"),
        (["vm.create", "a", "junk"], ExitCode.USAGE, "vm.create does not take 'junk'"),
    ],
)
def test_bad_words_make_nothing(run: Run, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    (tmp_path / "bad.yaml").write_text("version: 1\nmachines:\n  Web: \n")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "home" / "vms").exists()


@pytest.mark.parametrize("source", MachineSource)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("packages: [curl]\n", "begins with neither #cloud-config nor another word"),
        ("#cloud-config\n- a\n", "it is a list, not a mapping"),
        ("#cloud-config\na: [\n", "not YAML"),
    ],
)
def test_user_data_at_fault_is_told_before_a_machine_is_made(
    run: Run, text: str, said: str, source: MachineSource
) -> None:
    with pytest.raises(ConflictError, match=r"web1 cannot be (installed|started) with its user-data") as caught:
        require_documents(Lab.from_environment(), make_machine(source=source), request=request_for(text))
    assert caught.value.details.startswith("its user-data: ")
    assert said in caught.value.details
    assert caught.value.resolution == "repair it"


@pytest.mark.parametrize("text", ["#!/bin/sh\n", "#cloud-config\n{}\n", "Content-Type: multipart/mixed\n"])
def test_user_data_of_any_kind_is_taken(run: Run, text: str) -> None:
    require_documents(Lab.from_environment(), make_machine(), request=request_for(text))


def test_user_data_that_is_in_its_place_is_checked_before_a_start(run: Run) -> None:
    lab, machine = Lab.from_environment(), make_machine(source=MachineSource.IMAGE)
    lab.ensure_folders()
    store = DefinitionStore(lab)
    store.write_user_data(machine.name, "#cloud-config\n- a\n")
    store.write(machine)
    with pytest.raises(ConflictError, match="web1 cannot be started with its user-data") as caught:
        require_documents(lab, machine)
    assert caught.value.resolution.startswith(f"repair {store.user_data_path('web1')}; ./pvmlab render web1")
    require_documents(lab, machine, request=request_for("#cloud-config\n{}\n"))  # made anew, with another one


def test_templates_of_network_boots_are_nothing_to_a_machine_from_an_image(run: Run) -> None:
    lab, machine = Lab.from_environment(), make_machine(source=MachineSource.IMAGE)
    lab.ensure_folders()
    (lab.home.templates / "ipxe.j2").write_text("nonsense")
    require_documents(lab, machine)
    (lab.home.templates / "meta-data.j2").write_text("a: b\n")
    with pytest.raises(ConflictError, match=r"web1 cannot be started with meta-data\.j2"):
        require_documents(lab, machine)


def request_for(user_data: str) -> MachineRequest:
    return MachineRequest(name="web1", distro="debian-12", user_data=user_data)


def test_a_broken_definition_stops_a_diff(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "vms").mkdir(parents=True)
    (tmp_path / "home" / "vms" / "db1.json").write_text("{}")
    code, _, err = run("lab.diff")
    assert code == ExitCode.FAILED
    assert "the definition of db1 is broken" in err


def test_a_broken_definition_of_no_concern_does_not_stop_looking(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "vms").mkdir(parents=True)
    (tmp_path / "home" / "vms" / "other.json").write_text("{}")
    code, out, err = run("lab.diff")
    assert (code, len(out.splitlines())) == (0, 5)
    assert "left alone without --prune: other" in err
    code, out, _ = run("lab.status", "--output=json")
    assert (code, json.loads(out)["extra"]) == (0, ["other"])


def test_all_broken_definitions_are_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home" / "vms").mkdir(parents=True)
    for name in ("db1", "web-1"):
        (tmp_path / "home" / "vms" / f"{name}.json").write_text("{}")
    code, _, err = run("lab.diff")
    assert code == ExitCode.FAILED
    assert "db1: the definition of db1 is broken" in err
    assert "web-1: the definition of web-1 is broken" in err


def test_programs_are_told_what_became_of_each_machine_also_if_not_all_came_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {
        "db1": Outcome(state=State.FAILED, why="no SSH", error=PvmlabError("no SSH"), seconds=1.0),
        "web-1": Outcome(state=State.UP, seconds=2.0),
    }

    def fail(*_: object, **__: object) -> None:
        raise LabUpError(outcomes)

    monkeypatch.setattr("lab.manifest_apply.up", fail)
    code, out, err = run("lab.up", "--output=json")
    assert (code, err.splitlines()[0]) == (1, "pvmlab: error: 1 of 2 machines did not come up")
    assert json.loads(out)["machines"] == [
        {"name": "db1", "state": "failed", "seconds": 1.0, "why": "no SSH"},
        {"name": "web-1", "state": "up", "seconds": 2.0, "why": ""},
    ]


def test_own_user_data_is_private_and_goes_with_the_machine(run: Run, tmp_path: Path) -> None:
    lab = Lab.from_environment()
    lab.ensure_folders()
    store, machine = DefinitionStore(lab), make_machine(source=MachineSource.IMAGE)
    store.write_user_data(machine.name, "#!/bin/sh\n")
    store.write(machine)
    assert store.user_data_path(machine.name).stat().st_mode & 0o777 == 0o600
    assert store.find_user_data(machine.name) == "#!/bin/sh\n"
    assert store.names() == ["web1"]
    store.delete(machine.name)
    assert list(lab.home.vms.iterdir()) == []
    assert store.find_user_data(machine.name) is None


def test_each_part_of_an_archive_is_checked() -> None:
    parts = [
        ("text/plain", "#cloud-config\n{}\n"), ("text/plain", "hostname: x\n"), ("text/cloud-config", "- a\n"),
        ("text/x-shellscript", "#!/bin/sh\n"), ("application/zip", "PK"),
    ]  # fmt: skip
    text = 'Content-Type: multipart/mixed; boundary="=b="\nMIME-Version: 1.0\n\n'
    text += "".join(f"--=b=\nContent-Type: {kind}\n\n{body}\n" for kind, body in parts) + "--=b=--\n"
    found = check_user_data(text, make_machine(), Cache(Path("nowhere")))
    assert [fault.partition(":")[0] for fault in found.faults] == ["part 2", "part 3"]
    assert "part 4: not checked: it is text/x-shellscript; part 5: not checked: it is application/zip" in found.by


def test_what_the_lab_makes_of_own_user_data_is_an_archive_of_two_good_parts() -> None:
    text = combine_user_data("#cloud-config\n{}\n", "#!/bin/sh\necho gr\u00fcezi\n")
    found = check_user_data(text, make_machine(), Cache(Path("nowhere")))
    assert found.faults == ()
    assert found.by.startswith("part 1: not checked: it begins with #!/bin/sh")
