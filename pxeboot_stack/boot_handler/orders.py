"""Reads the orders that the host gives for machines (:mod:`contracts.orders`)."""

from __future__ import annotations

import logging
from pathlib import Path

from contracts import document
from contracts.machine import VmDefinition
from contracts.orders import MAX_ORDER_BYTES, ORDER_SUFFIX, Order

_LOG = logging.getLogger(__name__)


def read_order(vms: Path, machine: VmDefinition) -> Order | None:
    """Return the last order for *machine*, carried out or not; None if there is none.

    One that cannot be understood is none: to guess could mean to wipe a disk. It is said in the log.
    """
    path = vms / f"{machine.name}{ORDER_SUFFIX}"
    try:
        with path.open("rb") as stream:
            return document.loads(Order, stream.read(MAX_ORDER_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, document.DocumentError) as error:
        _LOG.error("the order %s is not carried out: %s", path.name, error, extra={"machine": machine.name})
        return None
