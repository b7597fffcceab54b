"""The bill of materials of an artifact: an SPDX 2.3 document as JSON (ISO/IEC 5962:2021, https://spdx.github.io/spdx-spec/v2.3/).

What is in it and how it is read: docs/reference/sbom.md. Equal artifacts with equal sidecars give equal bytes.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.documents.contents import ContainedFile
from pipeline.documents.subject import ContainedPackage, Subject

# Only a name: the domain is one that can never exist (RFC 2606), since the document is not published anywhere.
NAMESPACE = "https://pvmlab.invalid/spdx"

_DOCUMENT, _ARTIFACT = "SPDXRef-DOCUMENT", "SPDXRef-Artifact"
_UNKNOWN = "NOASSERTION"
_NO_LICENCE = {"licenseConcluded": _UNKNOWN, "licenseDeclared": _UNKNOWN, "copyrightText": _UNKNOWN}


def spdx_document(subject: Subject, files: Iterable[ContainedFile]) -> bytes:
    """Return the SPDX document of the artifact *subject* with *files* in it, as one line of JSON."""
    contained = sorted(files)
    inputs = [_input(number, path, digest) for number, (path, digest) in enumerate(_sorted(subject.build.inputs), 1)]
    packages = [_package(number, package) for number, package in enumerate(sorted(subject.build.packages), 1)]
    listed = [_file(number, file) for number, file in enumerate(contained, 1)]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": subject.path,
        "creationInfo": {"created": _created(subject.build.epoch), "creators": ["Tool: pvmlab"]},
        "packages": [_artifact(subject, contained), *packages, *inputs],
        "files": listed,
        "relationships": list(_relationships(packages + listed, inputs)),
    }
    # A namespace belongs to one document for ever: so it is named by what the document says.
    digest = hashlib.sha256(_compact(document)).hexdigest()
    return _compact({**document, "documentNamespace": f"{NAMESPACE}/{digest}"}) + b"\n"


def _artifact(subject: Subject, contained: Sequence[ContainedFile]) -> dict[str, Any]:
    unpacked = sum(file.size for file in contained)
    return {
        "SPDXID": _ARTIFACT,
        "name": subject.build.task,
        "packageFileName": subject.path,
        **_identity(subject, unpacked),
        **_origin(None),
        "filesAnalyzed": bool(contained),
        **(
            {"packageVerificationCode": {"packageVerificationCodeValue": _verification(contained)}} if contained else {}
        ),
        **_NO_LICENCE,
    }


def _identity(subject: Subject, unpacked: int) -> dict[str, Any]:
    """Return what the artifact is recognised by. A document inside it cannot know that."""
    if not subject.sha256:
        return {"comment": "the artifact that this document is in"}
    return {
        "checksums": [_checksum("SHA256", subject.sha256)],
        "comment": f"size: {subject.size} bytes" + (f"; unpacked: {unpacked} bytes" if unpacked else ""),
    }


def _package(number: int, package: ContainedPackage) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-Package-{number}",
        "name": package.name,
        "versionInfo": package.version,
        **({"checksums": [_checksum("SHA256", package.sha256)]} if package.sha256 else {}),
        **({"sourceInfo": f"built from the source package {package.source}"} if package.source else {}),
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}
        ],
        **_origin("Organization: Debian" if package.is_debian else None),
        "filesAnalyzed": False,
        **_NO_LICENCE,
    }


def _input(number: int, path: str, digest: str) -> dict[str, Any]:
    # A package, not a file: for a file SPDX demands its SHA-1, which no sidecar has.
    return {
        "SPDXID": f"SPDXRef-Input-{number}",
        "name": path,
        "packageFileName": path,
        "checksums": [_checksum("SHA256", digest)],
        **_origin(None),
        "filesAnalyzed": False,
        **_NO_LICENCE,
    }


def _file(number: int, file: ContainedFile) -> dict[str, Any]:
    # No licence fields: SPDX 2.3 takes a missing one for NOASSERTION, and there are tens of thousands of files.
    return {
        "SPDXID": f"SPDXRef-File-{number}",
        "fileName": f"./{file.path}",
        "checksums": [_checksum("SHA1", file.sha1), _checksum("SHA256", file.sha256)],
    }


def _relationships(contents: Iterable[dict[str, Any]], inputs: Iterable[dict[str, Any]]) -> Iterator[dict[str, str]]:
    yield _relationship(_DOCUMENT, "DESCRIBES", _ARTIFACT)
    yield from (_relationship(_ARTIFACT, "CONTAINS", element["SPDXID"]) for element in contents)
    yield from (_relationship(_ARTIFACT, "GENERATED_FROM", element["SPDXID"]) for element in inputs)


def _relationship(element: str, kind: str, related: str) -> dict[str, str]:
    return {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}


def _checksum(algorithm: str, value: str) -> dict[str, str]:
    return {"algorithm": algorithm, "checksumValue": value}


def _origin(supplier: str | None) -> dict[str, str]:
    # Which mirror a package came from does not matter: its digest says what it is.
    return {"supplier": supplier or _UNKNOWN, "downloadLocation": _UNKNOWN}


def _verification(contained: Iterable[ContainedFile]) -> str:
    """Return the package verification code (SPDX 2.3, 7.9): the SHA-1 of all files' SHA-1, sorted."""
    return hashlib.sha1("".join(sorted(file.sha1 for file in contained)).encode(), usedforsecurity=False).hexdigest()


def _created(epoch: int | None) -> str:
    return dt.datetime.fromtimestamp(epoch or 0, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _sorted(mapping: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(mapping.items())
