"""An artifact file as its sidecar describes it: what the bill of materials and the provenance are written about."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import quote


class PackageKind(enum.StrEnum):
    """Where a package comes from."""

    DEB = "deb"
    RPM = "rpm"
    APK = "apk"
    PYPI = "pypi"


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class ContainedPackage:
    """A package inside an artifact.

    :ivar arch: the distribution's word for it: ``amd64``, ``noarch``; nothing for a Python package.
    :ivar sha256: digest of the package's own file, the ``.deb`` or the wheel; empty if it was found installed in a
        medium.
    :ivar source: the source package it was built from, if that is known.
    :ivar vendor: whose package it is, by the ID of os-release(5); nothing for Debian's and for a Python package.
    """

    kind: PackageKind
    name: str
    version: str
    arch: str = ""
    sha256: str = ""
    source: str = ""
    vendor: str = ""

    @classmethod
    def from_fact(cls, fact: Mapping[str, str]) -> Self:
        """Return the package that one entry of the fact ``packages`` names.

        :raises KeyError: if a field is missing. :raises ValueError: for a kind we do not know.
        """
        return cls(
            kind=PackageKind(fact["type"]),
            name=fact["name"],
            version=fact["version"],
            arch=fact.get("arch", ""),
            sha256=fact.get("sha256", ""),
            source=fact.get("source", ""),
            vendor=fact.get("vendor", ""),
        )

    @property
    def is_debian(self) -> bool:
        """Whether it is from Debian's archive."""
        return self.kind is PackageKind.DEB and self.vendor in {"", "debian"}

    @property
    def purl(self) -> str:
        """The package URL (https://github.com/package-url/purl-spec), by which scanners look a package up."""
        version = _encoded(self.version)
        if self.kind is PackageKind.PYPI:
            return f"pkg:pypi/{_encoded(self.name.lower().replace('_', '-'))}@{version}"
        arch = f"?arch={_encoded(self.arch)}" if self.arch else ""
        vendor = f"{_encoded(self.vendor.lower())}/" if self.vendor else "debian/" if self.is_debian else ""
        # names of rpm are case-sensitive, those of Debian and Alpine have no capitals
        name = self.name if self.kind is PackageKind.RPM else self.name.lower()
        return f"pkg:{self.kind}/{vendor}{_encoded(name)}@{version}{arch}"


def _encoded(text: str) -> str:
    # The specification leaves the colon as it is, so an epoch stays readable; "+" must not be taken for a space.
    return quote(text, safe=":")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """One run of a task, as recorded.

    :ivar inputs: files of other artifacts, by path in the cache, to their SHA-256.
    :ivar sources: files of the repository to their SHA-256; a folder ends in ``/``, its digest is
        :func:`pipeline.digests.tree_digest`.
    :ivar options: JSON data. :ivar tools: programs and Python distributions to their versions.
    :ivar epoch: the date of the packages inside, in seconds since 1970, if there are any.
    """

    task: str
    inputs: Mapping[str, str]
    sources: Mapping[str, str]
    options: Mapping[str, Any]
    tools: Mapping[str, str]
    packages: tuple[ContainedPackage, ...] = ()
    epoch: int | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """An artifact file. :ivar path: where it is in the cache, with forward slashes.

    :ivar sha256: its digest; empty in a document that goes into the artifact itself. :ivar size: its bytes.
    """

    path: str
    sha256: str
    size: int
    build: Build

    @classmethod
    def from_sidecar(cls, path: str, sidecar: Mapping[str, Any]) -> Self:
        """Return what *sidecar* says about the file at *path* in the cache.

        :raises KeyError: if the sidecar lacks a field. :raises ValueError: if it names an unknown kind of package.
        """
        facts = sidecar["facts"]
        build = Build(
            task=sidecar["task"],
            inputs=sidecar["inputs"],
            sources=sidecar["sources"],
            options=sidecar["options"],
            tools=sidecar["tools"],
            packages=tuple(sorted(map(ContainedPackage.from_fact, facts.get("packages", ())))),
            epoch=facts.get("epoch"),
        )
        return cls(path, sidecar["sha256"], sidecar["size"], build)
