"""What a distribution release is: where its bits come from, for each architecture. Pure data, read by ``registry``."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from contracts.arch import Arch
from distros.family import Family

DEFAULT_MAX_SIZE = 16 << 30  # bytes; what no medium of a distribution reaches


class MediumKind(enum.StrEnum):
    """Files that a distribution publishes for download."""

    ISO = "iso"
    CLOUD_IMAGE = "cloud_image"
    ROOTFS_TARBALL = "rootfs_tarball"

    @property
    def file_name(self) -> str:
        """Its name under ``<cache>/media/<distro>/<arch>/``."""
        return {
            MediumKind.ISO: "installer.iso",
            MediumKind.CLOUD_IMAGE: "cloud.img",
            MediumKind.ROOTFS_TARBALL: "rootfs.tarball",
        }[self]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checksums:
    """A signed list of digests that the distribution publishes beside a medium.

    Names are relative to the medium's mirror; ``{file}`` stands for the medium's own name.

    :ivar file: the list. :ivar signature: its detached signature; None if the list is clear-signed itself.
    :ivar keys: fingerprints (40 hex digits, upper case) of the keys of which one must have signed it; the keys are in
        ``distros/keys/<fingerprint>.asc``.
    """

    file: str
    signature: str | None
    keys: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Medium:
    """One file to download.

    :ivar mirrors: base URLs, each with its final slash, in the order they are tried.
    :ivar file: its name on them. With checksums it may hold ``*``: the newest one that is listed.
    :ivar checksums: None if its digest is in the lock (``lock.yaml``).
    :ivar max_size: bytes; more is refused while it comes.
    """

    kind: MediumKind
    mirrors: tuple[str, ...]
    file: str
    checksums: Checksums | None = None
    max_size: int = DEFAULT_MAX_SIZE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Locked:
    """What the lock says of a medium: its name, its SHA-256 digest and its size in bytes."""

    file: str
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """Where a release for one architecture comes from.

    :ivar kernel_package: set if the root filesystem is made of Debian packages (``mmdebstrap``).
    :ivar installer_package: the Debian package that holds the distribution's own network installer.
    :ivar media: what can be downloaded.
    :ivar rootfs: which medium the root filesystem is taken from; None with a kernel package, or if there is none.
    """

    kernel_package: str | None = None
    installer_package: str | None = None
    media: Mapping[MediumKind, Medium] = dataclasses.field(default_factory=dict)
    rootfs: MediumKind | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """One release of a distribution.

    :ivar name: of its file, ``ubuntu-24.04``. :ivar suite: the code name apt knows it by, of those that have apt.
    :ivar repository: base URL of its packages, for its own installer, of those that do not take the host's mirror;
        ``{arch}`` stands for the architecture.
    :ivar locked: digests in the lock, by architecture and medium.
    """

    name: str
    title: str
    family: Family
    suite: str = ""
    repository: str = ""
    sources: Mapping[Arch, Sources]
    locked: Mapping[tuple[Arch, MediumKind], Locked] = dataclasses.field(default_factory=dict)

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The architectures it is there for."""
        return tuple(self.sources)
