"""What verbs that act print for programs, at their end: how what they acted on stands now.

What they do is told as it goes, on standard error, in either format.
"""

from __future__ import annotations

from contracts.document import encode
from contracts.names import PROVISIONER_NAME


def tell_machine(name: str, *, output: str) -> None:
    """For ``json``, print what `vm.show` prints of the machine *name*; for the provisioner, see :func:`tell_lab`."""
    if output != "json":
        return
    if name == PROVISIONER_NAME:
        tell_lab(output=output)
        return
    from cli.machine_life_verbs import show

    show(name, output=output)


def tell_lab(*, output: str) -> None:
    """For ``json``, print how the provisioner, the machines and the network stand: `status` without the artifacts."""
    if output != "json":
        return
    from cli.output import emit
    from lab.lab import Lab
    from lab.status import view_lab

    emit(encode(view_lab(Lab.from_environment())), output=output, table=[])


def tell_removed(name: str, *, output: str) -> None:
    """For ``json``, print the name of the machine that is gone."""
    if output == "json":
        from cli.output import emit

        emit({"removed": [name]}, output=output, table=[])


def tell_copied(source: str, destination: str, *, output: str) -> None:
    """For ``json``, print from where to where something was copied."""
    if output == "json":
        from cli.output import emit

        emit({"source": source, "destination": destination}, output=output, table=[])


def tell_distros(*, output: str) -> None:
    """For ``json``, print what `distro.ls` prints."""
    if output == "json":
        from cli.distro_list import list_distros

        list_distros(output=output)
