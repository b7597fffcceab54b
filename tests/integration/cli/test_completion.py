"""Completion in the real shells: bash's own function, zsh at a terminal, fish's own question."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pipeline.run import find_program, run
from pipeline.workspace import REPOSITORY

PROGRAM = REPOSITORY / "pvmlab"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "lab/vms").mkdir(parents=True)
    for name in ("web1", "web2", "db1"):
        (tmp_path / f"lab/vms/{name}.json").write_text("never read")
    (tmp_path / "answers.cfg").touch()
    for shell in ("bash", "zsh", "fish"):
        text = run([PROGRAM, "completion", shell], timeout=30, env={"PVMLAB_HOME": str(tmp_path / "lab")}).stdout
        (tmp_path / f"script.{shell}").write_text(text)
    return tmp_path


LINES = [
    ("vm.lis", ["vm.list"]),
    ("vm.logs we", ["web1", "web2"]),
    ("vm.logs --which ", ["lab", "qemu", "serial"]),
    ("vm.logs d", ["db1"]),
    ("vm.logs web1 --fol", ["--follow"]),
    ("vm.create new --distro debian-1", ["debian-12", "debian-13"]),
]


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        *LINES,
        # bash puts back what follows the last : or = only
        ("build rootfs:debian-12:", ["x86_64"]),
        ("vm.logs web1 --which=q", ["qemu"]),
        ("vm.create new --answer-file ans", ["answers.cfg"]),
    ],
)
def test_bash(home: Path, line: str, offers: list[str]) -> None:
    whole = f"{PROGRAM} {line}"
    script = (
        f"source script.bash; COMP_LINE={shlex.quote(whole)}; COMP_POINT=${{#COMP_LINE}}; _pvmlab; "
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p pvmlab >&2'
    )
    done = run(["bash", "--norc", "-c", script], timeout=30, cwd=home, env={"PVMLAB_HOME": str(home / "lab")})
    assert sorted(done.stdout.split()) == offers
    assert done.stderr == "complete -F _pvmlab pvmlab\n"


_ZPTY = r"""
zmodload zsh/zpty
zpty -b z zsh -f -i
zpty -w z 'PROMPT="" PS2="" RPROMPT=""; autoload -Uz compinit; compinit -u -D; source script.zsh'
zpty -w z 'unsetopt prompt_cr prompt_sp; setopt auto_list; zstyle ":completion:*" list-prompt ""'
zpty -w z 'show() { print -r -- "LINE<$BUFFER>" }; zle -N show; bindkey "^X" show; print REA""DY'
zpty -r -m z _ '*READY*'
zpty -w -n z "$1"$'\t'
sleep 0.1
zpty -w -n z $'\x18'
zpty -r -m z seen '*LINE<*>*'
print -r -- "$seen"
zpty -d z
"""


@pytest.mark.skipif(find_program("zsh") is None, reason="there is no zsh")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("vm.lis", "vm.list "),
        ("vm.logs d", "vm.logs db1 "),
        ("vm.logs we", "vm.logs web"),
        ("vm.logs web1 --fol", "vm.logs web1 --follow "),
        ("vm.create new --distro debian-1", "vm.create new --distro debian-1"),
        ("build rootfs:debian-12:", "build rootfs:debian-12:x86_64 "),
        ("vm.create new --answer-file ans", "vm.create new --answer-file answers.cfg "),
    ],
)
def test_zsh(home: Path, line: str, completed: str) -> None:
    (home / "drive.zsh").write_text(_ZPTY)
    (home / "pvmlab").symlink_to(PROGRAM)
    done = run(
        ["zsh", "-f", "drive.zsh", f"./pvmlab {line}"],
        timeout=60, cwd=home, env={"PVMLAB_HOME": str(home / "lab"), "TERM": "dumb"},
    )  # fmt: skip
    assert f"LINE<./pvmlab {completed}>" in done.stdout


@pytest.mark.skipif(find_program("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        *LINES,
        ("build rootfs:debian-12:", ["rootfs:debian-12:x86_64"]),
        ("vm.create new --answer-file ans", ["answers.cfg"]),
    ],
)
def test_fish(home: Path, line: str, offers: list[str]) -> None:
    script = f"source script.fish; complete -C {shlex.quote(f'{PROGRAM} {line}')}"
    done = run(
        ["fish", "--no-config", "-c", script], timeout=30, cwd=home,
        env={"PVMLAB_HOME": str(home / "lab"), "HOME": str(home)},
    )  # fmt: skip
    assert sorted(line.partition("\t")[0] for line in done.stdout.splitlines()) == offers
