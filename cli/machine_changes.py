"""What ``vm.set`` does."""

from __future__ import annotations

from collections.abc import Sequence

from cli.machine_options import parse_label_changes
from cli.output import say
from lab import changes
from lab.changes import Change
from lab.lab import Lab
from lab.sizes import parse_size
from pipeline.errors import UsageError


def change(name: str, *, cpus: str, memory: str, labels: Sequence[str]) -> None:
    """Change a target.

    :param cpus: :param memory: empty for as they are. :param labels: ``KEY=VALUE`` or ``KEY-``.
    :raises UsageError: if nothing is to be changed, or a value makes no sense.
    :raises NotFoundError: if there is no such machine, or no label that is to be removed.
    """
    wanted = Change(
        cpus=_number(cpus) if cpus else None,
        memory_mib=parse_size(memory, unit="m", option="--memory") if memory else None,
        labels=parse_label_changes(labels),
    )
    if wanted == Change():
        raise UsageError(f"nothing of {name} is to be changed", resolution="use --cpus, --memory or --label")
    lab = Lab.from_environment()
    after = changes.apply(lab, name, wanted)
    words = " ".join(f"{label.key}={label.value}" for label in after.labels)
    say(f"{name}: {after.cpus} cpus, {after.memory_mib} MiB of memory, labels {words or 'none'}")
    if wanted.is_of_hardware and after.managed and lab.machine(name).is_running():
        say(f"{name} runs: it has them after its next start")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise UsageError(f"--cpus {text!r} is not a number")
    return int(text)
