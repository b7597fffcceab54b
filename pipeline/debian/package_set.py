"""Sets of Debian packages: what is asked for, and the manifest that says which packages these are, by digest.

The manifest is an index in the archive's own format (deb-control(5), as ``Packages``): a paragraph for each package,
sorted by name, with the fields that matter for installing it. apt reads it, and so can people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from contracts.arch import Arch

# Fields of a paragraph that are kept, in this order; which archive it is from is a field of ours.
_ARCHIVE = "Archive"
_FIELDS = (
    "Package", "Version", "Architecture", "Source", "Essential", "Protected", "Important", "Priority", "Multi-Arch",
    "Pre-Depends", "Depends", "Provides", "Conflicts", "Breaks", "Replaces", "Filename", "Size", "SHA256", _ARCHIVE,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageSet:
    """Packages to be installed or unpacked together.

    :ivar name: what the set is for. :ivar packages: what is asked for; what they depend on comes with them.
    :ivar base: whether the suite's essential and required packages belong to it.
    """

    name: str
    suite: str
    arch: Arch
    packages: tuple[str, ...]
    base: bool = True

    def wanted(self) -> list[str]:
        """Return the words that tell apt what to install (apt-patterns(7)).

        The patterns are those of mmdebstrap, which installs the same packages in two steps.
        """
        of_suite = f"?or(?archive(^{self.suite}$),?codename(^{self.suite}$)),?architecture({self.arch.debian})"
        required = "?and(?priority(required),?not(?essential))"
        base = [f"?narrow({of_suite},?essential)", f"?narrow({of_suite},{required})"] if self.base else []
        return [*base, *self.packages]


@dataclasses.dataclass(frozen=True, eq=False)
class Package:
    """A package of a set. :ivar fields: those of its paragraph in the manifest."""

    fields: Mapping[str, str]

    @property
    def name(self) -> str:
        """Its name."""
        return self.fields["Package"]

    @property
    def sha256(self) -> str:
        """The digest of its file."""
        return self.fields["SHA256"]

    @property
    def size(self) -> int:
        """The bytes of its file."""
        return int(self.fields["Size"])

    @property
    def path(self) -> str:
        """Where its file is in the archive."""
        return self.fields["Filename"]

    @property
    def file_name(self) -> str:
        """The name of its file."""
        return PurePosixPath(self.path).name

    @property
    def is_security_update(self) -> bool:
        """Whether it is fetched from the security archive."""
        return self.fields[_ARCHIVE] == "security"

    def fact(self) -> dict[str, str]:
        """Return what a sidecar says of it."""
        source = self.fields.get("Source", self.name).split(" ")[0]  # the version follows, if it is another
        return {
            "type": "deb", "name": self.name, "version": self.fields["Version"], "arch": self.fields["Architecture"],
            "sha256": self.sha256, "source": source,
        }  # fmt: skip


def parse_package(paragraph: str, *, archive: str | None = None) -> Package:
    """Return the package that a paragraph describes, with the fields a manifest keeps.

    :param archive: which archive it is from, if the paragraph does not say.
    """
    fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
    if archive is not None:
        fields[_ARCHIVE] = archive
    return Package({name: fields[name] for name in _FIELDS if name in fields})


def read_manifest(path: Path) -> list[Package]:
    """Return the packages of a manifest."""
    return [parse_package(paragraph) for paragraph in path.read_text().split("\n\n")]


def render_manifest(packages: Iterable[Package], *, local: bool = False) -> str:
    """Return the text of a manifest.

    :param local: with each file beside the manifest, not in the pool of an archive.
    """
    paragraphs = []
    for package in packages:
        fields = dict(package.fields)
        if local:
            fields["Filename"] = f"./{package.file_name}"
        paragraphs.append("".join(f"{name}: {value}\n" for name, value in fields.items()))
    return "\n".join(paragraphs)
