"""Errors of several machines, told together: who looks at many does not stop at the first."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from pipeline.errors import PvmlabError


class MachinesError(PvmlabError):
    """Something cannot be done with several machines. :ivar errors: why, by their names."""

    def __init__(self, errors: Mapping[str, PvmlabError], *, what: str) -> None:
        self.errors = dict(errors)
        self.exit_code = next(iter(errors.values())).exit_code
        lines = [
            line
            for name, error in errors.items()
            for line in (f"{name}: {error.brief}", *(f"  {line}" for line in error.details.splitlines()))
        ]
        super().__init__(
            f"{len(errors)} machines {what}",
            details="\n".join(lines),
            resolution="; ".join(dict.fromkeys(error.resolution for error in errors.values() if error.resolution)),
        )


@contextlib.contextmanager
def noted(errors: dict[str, PvmlabError], name: str) -> Iterator[None]:
    """Keep the error of the block as that of the machine *name*: there are others to look at."""
    try:
        yield
    except PvmlabError as error:
        errors[name] = error


def raise_all(errors: Mapping[str, PvmlabError], *, what: str) -> None:
    """Raise the one error as it is, several as one; do nothing if there is none.

    :param what: is wrong with the machines, for people.
    """
    if len(errors) > 1:
        raise MachinesError(errors, what=what)
    for error in errors.values():
        raise error
