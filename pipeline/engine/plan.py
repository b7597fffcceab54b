"""What a build would do and why, without doing any of it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

from pipeline.artifact import Artifact
from pipeline.graph import Graph


class Verdict(enum.StrEnum):
    """Whether a task would run."""

    UP_TO_DATE = "up to date"
    RUN = "would run"
    PERHAPS = "perhaps"

    @property
    def is_pending(self) -> bool:
        """Whether its files may become others."""
        return self is not Verdict.UP_TO_DATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One task of a plan.

    :ivar reasons: why it would run, or what it depends on whether it does.
    :ivar expected_seconds: how long it took last time on this host, None if nobody knows.
    """

    task: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    expected_seconds: float | None = None


def plan(graph: Graph, tasks: Iterable[str]) -> list[Step]:
    """Return a step for each of *tasks* and all they need, in the order of a build.

    A task whose input is made again runs only if that input's bytes come out different: perhaps.

    :raises KeyError: for a task that is not in the graph.
    """
    steps: dict[str, Step] = {}
    for artifact in graph.closure(tasks):
        pending = [needed.name for needed in graph.needed_by(artifact) if steps[needed.name].verdict.is_pending]
        steps[artifact.name] = _step(artifact, pending)
    return list(steps.values())


def _step(artifact: Artifact, pending: list[str]) -> Step:
    # An input that is about to be made is no reason of its own; an output that is missing is
    reasons = tuple(str(reason) for reason in artifact.reasons() if not reason.is_missing_input)
    verdict = Verdict.RUN if reasons else Verdict.PERHAPS if pending else Verdict.UP_TO_DATE
    if verdict is Verdict.PERHAPS:
        reasons = tuple(f"only if {task} comes out different" for task in pending)
    seconds = artifact.expected_seconds() if verdict.is_pending else None
    return Step(task=artifact.name, verdict=verdict, reasons=reasons, expected_seconds=seconds)
