"""What ``./pvmlab clean`` does."""

from __future__ import annotations

from cli.confirm import require_yes
from cli.output import say
from cli.purge import cache_contents, purge_cache, remove_network
from lab import journey
from lab.lab import Lab
from lab.progress import open_reporter
from pipeline.reporting.wording import format_size


def clean_lab(*, yes: bool, keys: bool, purge: bool) -> None:
    """Remove the machines of the lab, and as asked all the rest.

    :param keys: also its keys and settings. :param purge: also its network on this host, and what pvmlab made in the
        cache, which other labs may use.
    :raises ConflictError: if the answer is no, or another command works on the lab or the cache.
    """
    lab = Lab.from_environment()
    question = f"All machines of {lab.home.root} and what is on their disks will be gone."
    if purge:
        built = sum(found.size for found in cache_contents(lab.cache))
        question += f" So will its keys and settings, and {format_size(built)} in {lab.cache.root}, for all labs."
    require_yes(question, yes=yes)
    network = lab.network
    with open_reporter() as reporter:
        journey.clean(lab, reporter=reporter, with_keys=keys or purge)
    if purge:
        remove_network(network)
        say(f"freed {format_size(purge_cache(lab.cache))} in {lab.cache.root}")
