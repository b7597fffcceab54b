"""Stopping many machines at once; one that cannot be stopped keeps none of the others on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from lab.lab import Lab
from lab.machine import StopOutcome
from lab.machine_errors import noted
from lab.progress import Reporter
from pipeline.errors import PvmlabError


def may_run(lab: Lab, name: str) -> bool:
    """Tell whether a machine runs, or nobody knows: its record is damaged, as an attempt to stop it will say."""
    try:
        return lab.machine(name).is_running()
    except PvmlabError:
        return True


def stop_together(
    lab: Lab, names: Sequence[str], *, timeout: float, reporter: Reporter, errors: dict[str, PvmlabError],
    force: bool = False,
) -> dict[str, StopOutcome]:  # fmt: skip
    """Stop those of *names* that run, all at once; return what ended each.

    :param timeout: seconds for the guests to shut down before they are ended by force. :param errors: gets why some
        could not be stopped, by their names.
    """
    running = [name for name in names if may_run(lab, name)]
    if not running:
        return {}
    reporter.show(f"stopping {', '.join(running)}")
    with ThreadPoolExecutor(len(running)) as threads:
        stops = {name: threads.submit(lab.machine(name).stop, timeout=timeout, force=force) for name in running}
    outcomes: dict[str, StopOutcome] = {}
    for name, stop in stops.items():
        with noted(errors, name):
            outcomes[name] = stop.result()
    return outcomes
