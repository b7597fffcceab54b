"""Where an artifact comes from: an in-toto Statement v1 with a SLSA Provenance v1 predicate, unsigned.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance. What is in
it and how it is read: docs/reference/sbom.md. There are no times in it and no host: equal builds give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.documents.subject import Build, Subject

# Names that docs/reference/sbom.md explains, no addresses: the domain can never exist (RFC 2606).
BUILD_TYPE = "https://pvmlab.invalid/build-type/doit-task/v1"
BUILDER = "https://pvmlab.invalid/builder/local/v1"

_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
_TREE_DIGEST = "pvmlabTree"  # pipeline.digests.tree_digest: nobody else's algorithm, so not called sha256


def statement(subjects: Sequence[Subject]) -> bytes:
    """Return the statement about the files *subjects*, all those that one task made, as one line of JSON.

    :raises ValueError: if there is none, or they are not from the same build.
    """
    if not subjects or any(subject.build != subjects[0].build for subject in subjects):
        raise ValueError("a statement is about the files of one build")
    build = subjects[0].build
    document = {
        "_type": _STATEMENT_TYPE,
        "subject": [
            {"name": path, "digest": {"sha256": digest}}
            for path, digest in sorted((subject.path, subject.sha256) for subject in subjects)
        ],
        "predicateType": _PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"task": build.task, "options": build.options},
                "internalParameters": {"tools": build.tools},
                "resolvedDependencies": list(_dependencies(build)),
            },
            "runDetails": {"builder": {"id": BUILDER}},
        },
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _dependencies(build: Build) -> Iterator[dict[str, Any]]:
    """Yield all that went in as resource descriptors: artifacts, our sources, packages; each kind sorted."""
    for path, digest in sorted(build.inputs.items()):
        yield _dependency("input", {"sha256": digest}, name=path)
    for path, digest in sorted(build.sources.items()):
        yield _dependency("source", {_TREE_DIGEST if path.endswith("/") else "sha256": digest}, name=path)
    for package in sorted(package for package in build.packages if package.sha256):  # else it came inside an input
        yield _dependency("package", {"sha256": package.sha256}, uri=package.purl)


def _dependency(kind: str, digest: dict[str, str], **identity: str) -> dict[str, Any]:
    return {**identity, "digest": digest, "annotations": {"kind": kind}}
