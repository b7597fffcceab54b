"""The provenance: read by in-toto's own library, field by field, and complete."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from google.protobuf.json_format import Parse, ParseDict
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement import Statement  # type: ignore[import-untyped]
from in_toto_attestation.v1.statement_pb2 import Statement as Message  # type: ignore[import-untyped]

from pipeline.documents.provenance import BUILD_TYPE, BUILDER, statement
from pipeline.documents.subject import Build, ContainedPackage, PackageKind, Subject

DEB = ContainedPackage(
    kind=PackageKind.DEB, name="busybox", version="1:1.37.0-6+b3", arch="amd64", sha256="d" * 64, source="busybox"
)
BUILD = Build(
    task="kernel:debian-12:x86_64",
    inputs={"images/rootfs.tar.zst": "1" * 64},
    sources={"pipeline/debian/rootfs.py": "2" * 64, "contracts/": "3" * 64},
    options={"selection": "installer", "packages": ["b", "a"]},
    tools={"py:zstandard": "0.25.0", "tar": "1.35"},
    packages=(DEB,),
)
VMLINUZ, INITRD = (
    Subject(f"images/{name}", digit * 64, 1, BUILD) for name, digit in (("vmlinuz", "a"), ("initrd", "b"))
)


def predicate(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data)["predicate"]
    return found


def test_the_reference_library_reads_every_field() -> None:
    data = statement([VMLINUZ, INITRD])
    message = Parse(data, Message())  # refuses unknown fields and wrong types
    Statement.copy_from_pb(message).validate()
    provenance = ParseDict(predicate(data), Provenance())
    assert message.predicate_type == "https://slsa.dev/provenance/v1"
    assert {subject.name: subject.digest["sha256"] for subject in message.subject} == {
        "images/vmlinuz": "a" * 64, "images/initrd": "b" * 64,
    }  # fmt: skip
    definition = provenance.build_definition
    assert definition.build_type == BUILD_TYPE
    assert definition.external_parameters["task"] == "kernel:debian-12:x86_64"
    assert definition.internal_parameters["tools"]["tar"] == "1.35"
    assert provenance.run_details.builder.id == BUILDER
    assert not provenance.run_details.HasField("metadata"), "no times"


def test_the_options_are_as_the_sidecar_has_them() -> None:
    definition = predicate(statement([VMLINUZ]))["buildDefinition"]
    assert definition["externalParameters"]["options"] == {"selection": "installer", "packages": ["b", "a"]}
    assert definition["internalParameters"] == {"tools": {"py:zstandard": "0.25.0", "tar": "1.35"}}


def test_all_that_went_in_is_named_with_its_digest() -> None:
    assert predicate(statement([VMLINUZ]))["buildDefinition"]["resolvedDependencies"] == [
        {"name": "images/rootfs.tar.zst", "digest": {"sha256": "1" * 64}, "annotations": {"kind": "input"}},
        {"name": "contracts/", "digest": {"pvmlabTree": "3" * 64}, "annotations": {"kind": "source"}},
        {"name": "pipeline/debian/rootfs.py", "digest": {"sha256": "2" * 64}, "annotations": {"kind": "source"}},
        {
            "uri": "pkg:deb/debian/busybox@1:1.37.0-6%2Bb3?arch=amd64",
            "digest": {"sha256": "d" * 64},
            "annotations": {"kind": "package"},
        },
    ]


def test_the_bytes_do_not_depend_on_any_order() -> None:
    turned = dataclasses.replace(
        BUILD,
        sources=dict(reversed(list(BUILD.sources.items()))),
        options=dict(reversed(list(BUILD.options.items()))),
        tools=dict(reversed(list(BUILD.tools.items()))),
    )
    subjects = [dataclasses.replace(subject, build=turned) for subject in (INITRD, VMLINUZ)]
    assert statement(subjects) == statement([VMLINUZ, INITRD])


@pytest.mark.parametrize(
    "subjects", [[], [VMLINUZ, dataclasses.replace(INITRD, build=dataclasses.replace(BUILD, task="modules"))]]
)
def test_files_of_several_builds_are_refused(subjects: list[Subject]) -> None:
    with pytest.raises(ValueError, match="of one build"):
        statement(subjects)
