"""A whole lab as a file, ``lab.yaml``: its network, its provisioner, its machines and what waits for what.

::

    text ──strict YAML──> nodes with places ──JSON Schema──> faults
                                └──────────> machines ──────> faults ──> Manifest, or all faults at once

``lab.schema.json`` beside this module is the format; docs/reference/lab-yaml.md explains it. Reading touches nothing
but the files that it names.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from contracts.lan import Lan
from distros.strict_yaml import MAX_SIZE, BrokenFileError, Fault, Node, parse
from lab.bringup import Milestone
from lab.manifest_machines import Dependency, WantedMachine, read_machines
from lab.manifest_schema import find_faults, plain
from lab.network_settings import NetworkSettings, require_usable_lan
from lab.provisioner_record import ProvisionerMode
from pipeline.errors import ExitCode, NotFoundError, PvmlabError

__all__ = ["DEFAULT_FILE", "Dependency", "Manifest", "ManifestError", "Milestone", "WantedMachine", "load", "read"]

DEFAULT_FILE = "lab.yaml"
MAX_VALUES = 20_000
"""How many values a file may come to, with all that aliases repeat: some hundred machines have a few thousand."""
_LAN_KEYS = {"subnet": "subnet", "ipv6-subnet": "ipv6_subnet", "domain": "domain"}


class ManifestError(BrokenFileError):
    """A lab.yaml cannot be understood, or what it asks for cannot be. :ivar faults: all that is wrong in it."""

    exit_code = ExitCode.USAGE
    what = "lab file"
    reference = "docs/reference/lab-yaml.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a lab is to be.

    :ivar network: what is asked for of the network, by the names of :class:`contracts.lan.Lan`; empty for any.
    :ivar mode: where the provisioner's services are to run; None for wherever they do.
    :ivar machines: in the order of the file, replicas one by one.
    """

    file: Path
    network: dict[str, str]
    mode: ProvisionerMode | None
    machines: tuple[WantedMachine, ...]

    def lan(self, present: Lan) -> Lan:
        """Return the network that is asked for, where *present* is what there is otherwise."""
        return _changed(present, self.network)


def load(path: Path, present: Lan) -> Manifest:
    """Return what the file *path* asks for.

    :param present: the lab's network as it is: addresses have to fit into it, or into what the file says.
    :raises NotFoundError: if there is no such file. :raises ManifestError: with all that is wrong in it.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SIZE + 1)
    except OSError as error:
        raise NotFoundError(
            f"the lab file {path} cannot be read",
            details=error.strerror or str(error),
            resolution=f"docs/tutorial/lab-yaml.md begins one; without a FILE it is ./{DEFAULT_FILE}",
        ) from None
    if len(data) > MAX_SIZE:
        raise ManifestError(path, [Fault(1, 1, "", f"it is larger than {MAX_SIZE} bytes")])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ManifestError(path, [Fault(1, 1, "", f"it is not UTF-8: {error.reason} at byte {error.start}")]) from None
    return read(text, path, present)


def read(text: str, file: Path, present: Lan) -> Manifest:
    """Return what *text* asks for.

    :param file: for the messages; paths in it are relative to its folder.
    :raises ManifestError: with all that is wrong in it.
    """
    node = parse(text, file=file, error=ManifestError, most_values=MAX_VALUES)
    faults = find_faults(node)
    broken = {fault.path for fault in faults}
    top = node.content if isinstance(node.content, dict) else {}
    network = _network(top.get("network"))
    lan = _lan(network, top.get("network"), present, faults)
    machines = read_machines(top, lan, folder=file.absolute().parent, broken=broken, faults=faults)
    if faults:
        raise ManifestError(file, list(dict.fromkeys(faults)))
    mode = _text(top.get("provisioner"), "mode")
    return Manifest(file=file, network=network, mode=ProvisionerMode(mode) if mode else None, machines=tuple(machines))


def _network(node: Node | None) -> dict[str, str]:
    found = plain(node) if node is not None else {}
    values: dict[str, Any] = found if isinstance(found, dict) else {}
    return {_LAN_KEYS[key]: value for key, value in values.items() if key in _LAN_KEYS and isinstance(value, str)}


def _lan(wanted: dict[str, str], node: Node | None, present: Lan, faults: list[Fault]) -> Lan:
    """Return the network that addresses have to fit into; the present one, after a fault, if it cannot be."""
    try:
        lan = _changed(present, wanted)
        if node is not None and lan != present:
            require_usable_lan(lan, NetworkSettings())
    except (ValueError, PvmlabError) as error:
        if node is not None:
            faults.append(Fault(*node.place, node.path, str(error)))
        return present
    return lan


def _changed(lan: Lan, wanted: dict[str, str]) -> Lan:
    return dataclasses.replace(
        lan,
        subnet=wanted.get("subnet", lan.subnet),
        ipv6_subnet=wanted.get("ipv6_subnet", lan.ipv6_subnet),
        domain=wanted.get("domain", lan.domain),
    )


def _text(node: Node | None, key: str) -> str:
    found = plain(node) if node is not None else None
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, str) else ""
