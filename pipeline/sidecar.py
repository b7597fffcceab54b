"""The sidecar of an artifact file: ``<file>.json``, what it is and what it was made from.

A JSON object: ``schema``, ``task``, ``sha256`` and ``size`` in bytes of the file, ``key`` (the identity of the recipe
with all it read), ``inputs`` (files of the cache with their digests), ``sources`` (of the repository, likewise),
``options``, ``tools`` with versions, ``facts`` that the recipe found out, ``documents`` that lie beside it (their
suffixes with their digests), and ``seal``, a digest over all the others: a sidecar that was edited or damaged is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts.sidecar import SCHEMA, SUFFIX
from pipeline.commit import publish_text
from pipeline.digests import json_digest
from pipeline.errors import NotFoundError

SBOM_SUFFIX = ".spdx.json"  # what is in the file (pipeline.documents.sbom)
PROVENANCE_SUFFIX = ".intoto.json"  # where it comes from (pipeline.documents.provenance)


def sidecar_path(path: Path) -> Path:
    """Return where the sidecar of the artifact file *path* is."""
    return path.with_name(path.name + SUFFIX)


def files_of(path: Path) -> list[Path]:
    """Return the artifact file *path* with all that goes with it, in the order in which to remove them."""
    return [sidecar_path(path), *(path.with_name(path.name + end) for end in (SBOM_SUFFIX, PROVENANCE_SUFFIX)), path]


def publish_sidecar(path: Path, record: Mapping[str, Any]) -> None:
    """Publish *record* as the sidecar of the artifact file *path*."""
    document = {"schema": SCHEMA, **record}
    document["seal"] = json_digest(document)
    publish_text(sidecar_path(path), json.dumps(document, indent=2, sort_keys=True) + "\n")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the sidecar of the artifact file *path*, or None if there is none that is whole and of this schema."""
    try:
        document = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        return None
    seal = document.pop("seal", None)
    return document if seal == json_digest(document) else None


def require_digest(path: Path) -> str:
    """Return the recorded SHA-256 digest of the artifact file *path*.

    :raises NotFoundError: if it was not built.
    """
    sidecar = read_sidecar(path)
    if sidecar is None or not path.exists():
        raise NotFoundError(f"{path.name} is not built", details=str(path), resolution="doit builds what is missing")
    return str(sidecar["sha256"])
