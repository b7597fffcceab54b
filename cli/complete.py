"""What a shell offers after TAB: ``./pvmlab __complete WORDS``, asked by the scripts of :mod:`cli.completion`.

The words are those of the line up to the cursor, the last one unfinished. The answer is a line for each word that could
stand there: the word, a tab, what it means. A line :data:`FILES` means that names of files may stand there too.
Whatever goes wrong, nothing is offered: nobody wants an error there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence

from cli.invoking import Collection, ParserContext
from cli.program import list_argument
from pipeline.workspace import REPOSITORY

FILES = ":files"
_CORE = {
    "--help": "show the first page, or the help of a verb", "--list": "list the verbs",
    "--debug": "show where an error comes from", "--version": "show the version",
}  # fmt: skip
# What may stand for an argument, by its name. Machines' and distributions' names are read off the folders.
_CHOICES: Mapping[str, Sequence[str]] = {
    "arch": ("x86_64", "aarch64"),
    "output": ("table", "json"),
    "disk-bus": ("nvme", "virtio", "sata"),
    "nic-model": ("virtio", "e1000e"),
    "firmware": ("uefi", "uefi-http", "bios"),
    "installer": ("pvmlab", "native"),
    "which": ("serial", "qemu", "lab"),
    "mode": ("vm", "host"),
    "kind": ("switch", "bridge", "vmnet"),
    "dhcp": ("server", "proxy"),
    "ipv6-subnet": ("none", "auto"),
    "boot": ("disk", "pxe"),
    "shell": ("bash", "zsh", "fish"),
    "family": ("debian", "ubuntu", "fedora", "alpine", "suse"),
    "what": ("ipxe", "config", "user-data", "meta-data", "network-config", "vendor-data", "autoinstall", "preseed",
             "kickstart", "ignition"),
}  # fmt: skip
_FILES = {
    "answer-file", "docker-tar", "dockerfile", "user-data", "disk", "file", "keep", "socket", "source", "destination",
}  # fmt: skip
# Where the argument "name" is no machine that is there.
_NEW_NAMES = {"vm.create", "vm.adopt", "vm.clone", "distro.add"}
_WITH_PROVISIONER = {"vm.shell", "vm.logs", "vm.stop", "vm.console", "vm.screenshot", "vm.run", "vm.show"}
_MACHINE_ARGUMENTS = {"name", "names", "machine", "machines"}


def answer(words: Sequence[str], namespace: Collection) -> None:
    """Print what may stand for the last of *words*, of which the first is the program."""
    try:
        found = offers(words, namespace)
    except Exception:  # noqa: BLE001 (a shell would show it in the middle of the line)
        return
    sys.stdout.writelines(f"{word}\t{meaning}\n" if word != FILES else f"{FILES}\n" for word, meaning in found)


def offers(words: Sequence[str], namespace: Collection) -> list[tuple[str, str]]:
    """Return what may stand for the last of *words*, each with what it means."""
    line, begun = list(words[1:-1]), words[-1] if len(words) > 1 else ""
    if "--" in line:
        return [(FILES, "")]
    verbs = namespace.task_names
    verb = next((word for word in line if word in verbs), None)
    if verb is None:
        if begun.startswith("-"):
            return _matching(begun, _CORE)
        if line and line[-1] not in {"--help", "-h", "help", "--debug"}:
            return []
        return _matching(begun, {name: _first_line(namespace[name].__doc__) for name in sorted(verbs)})
    context = ParserContext(name=verb, args=namespace[verb].get_arguments())
    return _of_verb(verb, context, line[line.index(verb) + 1 :], begun)


def _of_verb(verb: str, context: ParserContext, given: Sequence[str], begun: str) -> list[tuple[str, str]]:
    option, equals, value = begun.partition("=")
    if equals and option in context.flags:  # bash and zsh want the whole word back
        return [
            (word if word == FILES else f"{option}={word}", meaning)
            for word, meaning in _values(verb, str(context.flags[option].name), value)
        ]
    previous = context.flags.get(given[-1]) if given else None
    may_be_alone = previous is not None and previous.optional and begun.startswith("-")
    if previous is not None and previous.takes_value and not may_be_alone:
        return _values(verb, str(previous.name), begun, given)
    if begun.startswith("-"):
        used = {word.partition("=")[0] for word in given}
        several = {f"--{name}" for name, argument in context.args.items() if argument.kind is list}
        positional = {f"--{argument.name}" for argument in context.positional_args}
        flags = {
            flag: _help(argument.help)
            for flag, argument in sorted(context.flags.items())
            if flag.startswith("--") and (flag not in used or flag in several) and flag not in positional
        }
        return _matching(begun, flags | {"--help": "show what it takes"})
    return _positional(verb, context, given, begun)


def _positional(verb: str, context: ParserContext, given: Sequence[str], begun: str) -> list[tuple[str, str]]:
    count, is_value = 0, False
    for word in given:
        flag = context.flags.get(word)
        if not is_value and not word.startswith("-"):
            count += 1
        is_value = flag is not None and bool(flag.takes_value)
    positional = [str(argument.name) for argument in context.positional_args]
    if count < len(positional):
        return _values(verb, positional[count], begun, given)
    several = list_argument(context)
    left = _values(verb, several, begun) if several else []
    already = set(given)
    return [(word, meaning) for word, meaning in left if word not in already]


def _values(verb: str, argument: str, begun: str, given: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return what may stand for the *argument* of a verb. :param given: the words between the verb and this one."""
    kind = argument.replace("_", "-")
    files = [(FILES, "")] if kind in _FILES and verb != "vm.clone" else []
    return files + _matching(begun, _known(verb, kind, given))


def _known(verb: str, kind: str, given: Sequence[str]) -> dict[str, str]:
    """Return the words that are known for an argument, with what they are."""
    if verb == "vm.copy":
        return {f"{name}:": "machine" for name in machine_names()}
    if kind == "snapshot" or (verb, kind) == ("vm.snapshots", "remove"):
        return dict.fromkeys([] if verb == "vm.snapshot" else _snapshot_names(given), "snapshot")
    if kind in _MACHINE_ARGUMENTS and verb not in _NEW_NAMES and verb.startswith(("vm.", "render", "up")):
        return dict.fromkeys(machine_names() + ["provisioner"] * (verb in _WITH_PROVISIONER), "machine")
    if (verb, kind) == ("vm.clone", "source"):
        return dict.fromkeys(machine_names(), "machine")
    if kind == "distro":
        return dict.fromkeys(distro_names(), "distribution")
    return dict.fromkeys(_task_names() if kind == "task" else _CHOICES.get(kind, ()), "")


def machine_names() -> list[str]:
    """Return the names of the machines: of the files with their definitions, which are not opened."""
    return _stems(f"{_home()}/vms", ".json")


def _snapshot_names(given: Sequence[str]) -> list[str]:
    """Return the names of the snapshots of the machine among the *given* words: of their folders."""
    machine = next((word for word in given if not word.startswith("-")), "")
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(f"{_home()}/disks/snapshots/{machine}") if not name.startswith("_"))  # noqa: PTH208
    return []


def _home() -> str:
    return os.path.expanduser(os.environ.get("PVMLAB_HOME") or "~/.pvmlab")  # noqa: PTH111


def distro_names() -> list[str]:
    """Return the names of the distributions: of the files with their definitions."""
    folders = [str(REPOSITORY / "distros"), *filter(None, os.environ.get("PVMLAB_DISTROS", "").split(":"))]
    return sorted({name for folder in folders for name in _stems(folder, ".yaml")} - {"lock"})


def _stems(folder: str, suffix: str) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listdir(folder)  # noqa: PTH208
    return sorted(name[: -len(suffix)] for name in names if name.endswith(suffix) and not name.startswith("."))


def _task_names() -> Iterable[str]:
    from pipeline.recipes.graph import graph

    names = sorted(graph().artifacts)
    return [*sorted({name.partition(":")[0] for name in names}), *names]


def _matching(begun: str, known: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(word, meaning) for word, meaning in known.items() if word.startswith(begun)]


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _help(text: object) -> str:
    return str(text or "").partition("\n")[0]
