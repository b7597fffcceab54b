"""Who waits for whom: cycles, and the order in which to bring machines up or down. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def find_cycle(graph: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of a way that leads back to where it began, the first one again at its end; empty if none does.

    :param graph: whom each waits for.
    """
    finished: set[str] = set()
    for start in graph:
        way: list[str] = [start]
        rest = [iter(graph[start])] if start not in finished else []
        while rest:
            following = next(rest[-1], None)
            if following is None:
                rest.pop()
                finished.add(way.pop())
            elif following in way:
                return [*way[way.index(following) :], following]
            elif following not in finished:
                way.append(following)
                rest.append(iter(graph.get(following, ())))
    return []


def levels(graph: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names of *graph*, which has no cycle, in groups: each waits only for such of groups before its own.

    Names that are waited for and no keys of *graph* are left out.

    :raises ValueError: if it has a cycle.
    """
    groups: list[list[str]] = []
    left = dict(graph)
    while left:
        group = [name for name, others in left.items() if not any(other in left for other in others)]
        if not group:
            raise ValueError(f"there is a cycle among {', '.join(left)}")
        groups.append(group)
        for name in group:
            del left[name]
    return groups
