"""The SPDX document: what the official validator says of it, and that package URLs are those of the reference."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL
from spdx_tools.spdx.model.document import Document
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from pipeline.documents.contents import ContainedFile
from pipeline.documents.provenance import statement
from pipeline.documents.sbom import spdx_document
from pipeline.documents.subject import Build, ContainedPackage, PackageKind, Subject

DEB = ContainedPackage(
    kind=PackageKind.DEB, name="libstdc++6", version="1:12.2.0-14+deb12u1~x", arch="amd64", sha256="d" * 64,
    source="gcc-12",
)  # fmt: skip
WHEEL = ContainedPackage(kind=PackageKind.PYPI, name="Typing_Extensions", version="4.1", sha256="e" * 64)
BUILD = Build(
    task="container:x86_64",
    inputs={"images/rootfs.tar.zst": "b" * 64, "ipxe/ipxe.efi": "c" * 64},
    sources={},
    options={},
    tools={},
    packages=(WHEEL, DEB),
    epoch=1_700_000_000,
)
SUBJECT = Subject("containers/stack.tar", "a" * 64, 12_345, BUILD)


def contained(path: str, data: bytes) -> ContainedFile:
    return ContainedFile(
        path, hashlib.sha1(data, usedforsecurity=False).hexdigest(), hashlib.sha256(data).hexdigest(), len(data)
    )


FILES = [contained("usr/bin/ünï\ncode", b"1"), contained("etc/passwd", b"root\n"), contained("etc/empty", b"")]


def official(document: bytes) -> Document:
    """Return the document as the official tools read it, which say nothing against it."""
    parsed = parse(json.loads(document))
    assert not complaints(parsed)
    return parsed


def parse(document: dict[str, Any]) -> Document:
    return JsonLikeDictParser().parse(document)  # type: ignore[no-untyped-call]


def complaints(document: Document) -> list[str]:
    return [message.validation_message for message in validate_full_spdx_document(document, "SPDX-2.3")]


def related(document: dict[str, Any], kind: str) -> list[tuple[str, str]]:
    return [
        (relationship["spdxElementId"], relationship["relatedSpdxElement"])
        for relationship in document["relationships"]
        if relationship["relationshipType"] == kind
    ]


@pytest.mark.parametrize("files", [FILES, []], ids=["archive", "kernel"])
@pytest.mark.parametrize("build", [BUILD, dataclasses.replace(BUILD, packages=(), inputs={}, epoch=None)])
def test_the_official_validator_accepts_it(files: list[ContainedFile], build: Build) -> None:
    document = official(spdx_document(dataclasses.replace(SUBJECT, build=build), files))
    assert len(document.files) == len(files)
    assert len(document.packages) == 1 + len(build.packages) + len(build.inputs)


def test_the_official_validator_would_complain() -> None:
    document = json.loads(spdx_document(SUBJECT, FILES))
    document["files"][0]["checksums"].pop(0)
    assert any("SHA1" in complaint for complaint in complaints(parse(document)))


def test_the_artifact_is_described_with_all_that_is_in_it() -> None:
    document = json.loads(spdx_document(SUBJECT, FILES))
    elements = {element["SPDXID"]: element for element in document["packages"] + document["files"]}
    (described,) = related(document, "DESCRIBES")
    assert described == ("SPDXRef-DOCUMENT", "SPDXRef-Artifact")
    artifact = elements.pop("SPDXRef-Artifact")
    assert artifact["name"] == "container:x86_64"
    assert artifact["packageFileName"] == "containers/stack.tar"
    assert artifact["checksums"] == [{"algorithm": "SHA256", "checksumValue": "a" * 64}]
    assert artifact["comment"] == "size: 12345 bytes; unpacked: 6 bytes"
    inside = [elements.pop(element) for _, element in related(document, "CONTAINS")]
    assert [element.get("name") or element["fileName"] for element in inside] == [
        "libstdc++6", "Typing_Extensions", "./etc/empty", "./etc/passwd", "./usr/bin/ünï\ncode",
    ]  # fmt: skip
    generated_from = [elements.pop(element) for _, element in related(document, "GENERATED_FROM")]
    assert [(element["name"], element["checksums"][0]["checksumValue"]) for element in generated_from] == [
        ("images/rootfs.tar.zst", "b" * 64), ("ipxe/ipxe.efi", "c" * 64),
    ]  # fmt: skip
    assert not elements, "everything is related to the artifact"


def test_a_package_is_named_by_its_digest_its_url_and_its_source() -> None:
    document = json.loads(spdx_document(SUBJECT, []))
    found = {package["name"]: package for package in document["packages"]}
    deb, wheel = found["libstdc++6"], found["Typing_Extensions"]
    assert deb["versionInfo"] == DEB.version
    assert deb["checksums"] == [{"algorithm": "SHA256", "checksumValue": "d" * 64}]
    assert deb["sourceInfo"] == "built from the source package gcc-12"
    assert deb["supplier"] == "Organization: Debian"
    (reference,) = deb["externalRefs"]
    assert reference["referenceLocator"] == "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1~x?arch=amd64"
    assert wheel["externalRefs"][0]["referenceLocator"] == "pkg:pypi/typing-extensions@4.1"
    assert wheel["supplier"] == "NOASSERTION"
    assert "sourceInfo" not in wheel
    for package in document["packages"]:
        assert package["licenseConcluded"] == package["licenseDeclared"] == package["copyrightText"] == "NOASSERTION"
        assert package["downloadLocation"] == "NOASSERTION"


def test_the_verification_code_is_over_the_digests_of_all_files() -> None:
    (artifact, *others) = json.loads(spdx_document(SUBJECT, FILES))["packages"]
    # made with sha1sum, cut, sort and sha1sum
    expected = "c45b1f21eeb70f427324505f320ee92fa614fabf"
    assert artifact["packageVerificationCode"] == {"packageVerificationCodeValue": expected}
    assert artifact["filesAnalyzed"] is True
    assert not any(other["filesAnalyzed"] for other in others)
    (artifact, *_) = json.loads(spdx_document(SUBJECT, []))["packages"]
    assert artifact["filesAnalyzed"] is False
    assert "packageVerificationCode" not in artifact


def test_the_bytes_do_not_depend_on_any_order() -> None:
    shuffled = dataclasses.replace(
        BUILD, packages=BUILD.packages[::-1], inputs=dict(reversed(list(BUILD.inputs.items())))
    )
    document = spdx_document(SUBJECT, FILES)
    assert spdx_document(dataclasses.replace(SUBJECT, build=shuffled), reversed(FILES)) == document
    assert document.count(b"\n") == 1, "one line"


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(SUBJECT, sha256="f" * 64),
        dataclasses.replace(SUBJECT, build=dataclasses.replace(BUILD, packages=(DEB,))),
        dataclasses.replace(SUBJECT, build=dataclasses.replace(BUILD, inputs={"images/rootfs.tar.zst": "0" * 64})),
    ],
)
def test_another_document_has_another_namespace(other: Subject) -> None:
    first, second = (json.loads(spdx_document(subject, FILES)) for subject in (SUBJECT, other))
    assert first["documentNamespace"] != second["documentNamespace"]


@pytest.mark.parametrize(
    ("epoch", "created"), [(None, "1970-01-01T00:00:00Z"), (1_700_000_000, "2023-11-14T22:13:20Z")]
)
def test_the_date_is_that_of_the_packages(epoch: int | None, created: str) -> None:
    subject = dataclasses.replace(SUBJECT, build=dataclasses.replace(BUILD, epoch=epoch))
    assert json.loads(spdx_document(subject, []))["creationInfo"]["created"] == created


# What versions are made of: deb-version(7), and the version specifiers of Python packages.
_DEB_VERSIONS = st.from_regex(r"([0-9]:)?[0-9][A-Za-z0-9.+~-]{0,20}", fullmatch=True)
_PYPI_VERSIONS = st.from_regex(r"([0-9]!)?[0-9][a-z0-9._+-]{0,20}", fullmatch=True)
_DEB_NAMES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,20}", fullmatch=True)
_PYPI_NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)


@given(name=_DEB_NAMES, version=_DEB_VERSIONS, arch=st.sampled_from(["all", "arm64"]))
def test_the_url_of_a_deb_is_that_of_the_reference(name: str, version: str, arch: str) -> None:
    package = dataclasses.replace(DEB, name=name, version=version, arch=arch)
    assert package.purl == PackageURL("deb", "debian", name, version, {"arch": arch}).to_string()
    assert PackageURL.from_string(package.purl).version == version


@given(name=_PYPI_NAMES, version=_PYPI_VERSIONS)
def test_the_url_of_a_python_package_is_that_of_the_reference(name: str, version: str) -> None:
    assert (
        dataclasses.replace(WHEEL, name=name, version=version).purl
        == PackageURL("pypi", None, name, version).to_string()
    )


SIDECAR: dict[str, Any] = {
    "schema": 2,
    "task": "container:x86_64",
    "key": "1" * 64,
    "sha256": "a" * 64,
    "size": 12_345,
    "inputs": dict(BUILD.inputs),
    "sources": {},
    "options": {},
    "tools": {},
    "facts": {
        "epoch": 1_700_000_000,
        "packages": [
            {"type": "pypi", "name": "Typing_Extensions", "version": "4.1", "sha256": "e" * 64},
            {"type": "deb", "name": "libstdc++6", "version": DEB.version, "arch": "amd64", "sha256": "d" * 64,
             "source": "gcc-12"},
        ],
    },
}  # fmt: skip


def test_a_subject_is_what_the_sidecar_says() -> None:
    assert Subject.from_sidecar("containers/stack.tar", SIDECAR) == dataclasses.replace(
        SUBJECT, build=dataclasses.replace(BUILD, packages=(DEB, WHEEL))
    )
    nothing = Subject.from_sidecar("x", {**SIDECAR, "facts": {}}).build
    assert (nothing.packages, nothing.epoch) == ((), None)


def test_an_unknown_kind_of_package_is_refused() -> None:
    facts = {"packages": [{"type": "egg", "name": "bash", "version": "5", "sha256": "0" * 64}]}
    with pytest.raises(ValueError, match="egg"):
        Subject.from_sidecar("x", {**SIDECAR, "facts": facts})


@pytest.mark.parametrize(
    ("fact", "purl"),
    [
        ({"type": "rpm", "name": "GConf2", "version": "3.2.6-1.fc44", "arch": "x86_64", "vendor": "fedora"},
         "pkg:rpm/fedora/GConf2@3.2.6-1.fc44?arch=x86_64"),
        ({"type": "apk", "name": "musl", "version": "1.2.5-r0", "arch": "x86_64", "vendor": "alpine"},
         "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64"),
        ({"type": "deb", "name": "bash", "version": "5.2", "arch": "amd64", "vendor": "ubuntu"},
         "pkg:deb/ubuntu/bash@5.2?arch=amd64"),
    ],
)  # fmt: skip
def test_packages_that_were_found_in_a_medium_have_a_url_and_no_digest(fact: dict[str, str], purl: str) -> None:
    subject = Subject.from_sidecar("images/rootfs.tar.zst", {**SIDECAR, "facts": {"packages": [fact]}})
    (package,) = subject.build.packages
    assert package.purl == purl == PackageURL.from_string(purl).to_string()
    document = spdx_document(subject, [])
    assert complaints(official(document)) == []
    described = next(each for each in json.loads(document)["packages"] if each["name"] == fact["name"])
    assert "checksums" not in described
    assert fact["name"] not in statement([subject]).decode()  # it came inside an input, nobody fetched it
