"""Completion in the real shells: bash's own function, bash and zsh at a terminal, fish's own question.

`./pvmlab setup --tests` installs the shells, so none of this is skipped.
"""

from __future__ import annotations

import os
import select
import shlex
import time
from pathlib import Path

import pytest

from pipeline.run import run, spawn
from pipeline.workspace import REPOSITORY

PROGRAM = REPOSITORY / "pvmlab"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "lab/vms").mkdir(parents=True)
    for name in ("web1", "web2", "db1"):
        (tmp_path / f"lab/vms/{name}.json").write_text("never read")
    (tmp_path / "answers.cfg").touch()
    (tmp_path / "my file.txt").touch()
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/pvmlab").symlink_to(PROGRAM)
    (tmp_path / "pvmlab").symlink_to(PROGRAM)
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
        f"source script.bash; COMP_LINE={shlex.quote(whole)}; COMP_POINT=${{#COMP_LINE}}; _pvmlab {PROGRAM}; "
        'printf "%s\\n" "${COMPREPLY[@]}"; complete -p pvmlab >&2'
    )
    done = run(["bash", "--norc", "-c", script], timeout=30, cwd=home, env={"PVMLAB_HOME": str(home / "lab")})
    assert sorted(done.stdout.split()) == offers
    assert done.stderr == "complete -F _pvmlab pvmlab\n"


_BASH = r"""
bind 'set enable-bracketed-paste off'; bind 'set bell-style none'; PS1=
show() { printf 'LINE<%s>\n' "$READLINE_LINE"; }; bind -x '"\C-x": show'; source script.bash; echo REA""DY
"""


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("./pvmlab vm.logs d", "./pvmlab vm.logs db1 "),
        ("true && ./pvmlab vm.logs we", "true && ./pvmlab vm.logs web"),
        (r"./a\ b/pvmlab vm.lis", r"./a\ b/pvmlab vm.list "),
        ("./pvmlab build rootfs:debian-12:", "./pvmlab build rootfs:debian-12:x86_64 "),
        ("./pvmlab vm.copy d", "./pvmlab vm.copy db1:"),
        ("./pvmlab vm.copy my", r"./pvmlab vm.copy my\ file.txt "),
        (r"./pvmlab vm.copy my\ fi", r"./pvmlab vm.copy my\ file.txt "),
        ("./pvmlab vm.create new --answer-file=my", r"./pvmlab vm.create new --answer-file=my\ file.txt "),
        ("./pvmlab vm.create new --disk --cp", "./pvmlab vm.create new --disk --cpus "),
    ],
)
def test_bash_at_a_terminal(home: Path, line: str, completed: str) -> None:
    screen, keyboard = os.openpty()
    with os.fdopen(keyboard, "r+b", buffering=0) as terminal:
        bash = spawn(
            ["bash", "--norc", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, cwd=home,
            env={"PVMLAB_HOME": str(home / "lab"), "TERM": "dumb", "HISTFILE": "/dev/null"},
        )  # fmt: skip
    seen, deadline = "", time.monotonic() + 30
    try:
        for keys, wanted in ((_BASH, "\nREADY"), (f"{line}\t", line), ("\x18", ">\r\n")):
            seen = "" if keys != "\x18" else seen
            os.write(screen, keys.encode())
            while wanted not in seen:
                assert time.monotonic() < deadline, seen
                if select.select([screen], [], [], 0.1)[0]:
                    seen += os.read(screen, 65536).decode()
    finally:
        bash.kill()
        bash.wait()
        os.close(screen)
    assert f"LINE<{completed}>" in seen


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
        ("vm.create new --answer-file=my", r"vm.create new --answer-file=my\ file.txt "),
        ("vm.copy d", "vm.copy db1:"),
        ("vm.copy my", r"vm.copy my\ file.txt "),
    ],
)
def test_zsh(home: Path, line: str, completed: str) -> None:
    (home / "keys.zsh").write_text(_ZPTY)
    done = run(
        ["zsh", "-f", "keys.zsh", f"./pvmlab {line}"],
        timeout=60, cwd=home, env={"PVMLAB_HOME": str(home / "lab"), "TERM": "dumb"},
    )  # fmt: skip
    assert f"LINE<./pvmlab {completed}>" in done.stdout


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        *LINES,
        ("build rootfs:debian-12:", ["rootfs:debian-12:x86_64"]),
        ("vm.create new --answer-file ans", ["answers.cfg"]),
        ("vm.create new --answer-file=my", ["--answer-file=my file.txt"]),
        ("vm.copy d", ["db1:"]),
    ],
)
def test_fish(home: Path, line: str, offers: list[str]) -> None:
    script = f"source script.fish; complete -C {shlex.quote(f'{PROGRAM} {line}')}"
    done = run(
        ["fish", "--no-config", "-c", script], timeout=30, cwd=home,
        env={"PVMLAB_HOME": str(home / "lab"), "HOME": str(home)},
    )  # fmt: skip
    assert sorted(line.partition("\t")[0] for line in done.stdout.splitlines()) == offers
