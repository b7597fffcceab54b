"""What the lab remembers of its provisioner: ``disks/provisioner.json``."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

from contracts import document
from contracts.document import DocumentError
from contracts.names import PROVISIONER_NAME
from pipeline import commit
from pipeline.workspace import Home


class ProvisionerMode(enum.StrEnum):
    """Where the services run."""

    VM = "vm"  # in a container in a machine of its own
    HOST = "host"  # in namespaces of this host: lab.host_mode


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProvisionerRecord:
    """What the lab remembers of its provisioner.

    :ivar base_sha256: digest of the disk in the cache it was started from last; None before the first start.
    :ivar ssh_port: of 127.0.0.1, the one it had then. :ivar mode: where its services run.
    :ivar interface: of this host, which the lab's network is joined with (host mode); empty for none.
    """

    schema: int = 1
    uuid: str
    base_sha256: str | None = None
    ssh_port: int | None = None
    mode: ProvisionerMode = ProvisionerMode.VM
    interface: str = ""


def record_path(home: Home) -> Path:
    """Return where the record of the lab at *home* is."""
    return home.disks / f"{PROVISIONER_NAME}.json"


def find_record(home: Home) -> ProvisionerRecord | None:
    """Return what is remembered of the provisioner; None if it was never created (or the record is broken)."""
    try:
        return document.loads(ProvisionerRecord, record_path(home).read_bytes())
    except (FileNotFoundError, DocumentError):
        return None


def write_record(home: Home, record: ProvisionerRecord) -> None:
    """Publish *record*."""
    commit.publish_text(record_path(home), document.dumps(record))


def find_mode(home: Home) -> ProvisionerMode:
    """Return where the services of the lab at *home* run; the usual way if that was never said."""
    record = find_record(home)
    return record.mode if record is not None else ProvisionerMode.VM
