"""What a live-server disc of Ubuntu's layout installs: layers, and packages of its own archive that go on top.

::

    casper/install-sources.yaml        what can be installed; older discs have only casper/filesystem.squashfs
    casper/a.squashfs                  the minimal system
    casper/a.b.squashfs                the server, on top of a; its name says so
    casper/a.b.installer*.squashfs     the live session, which is not installed
    dists/<suite>, pool                a signed apt archive: kernel and bootloader, which no layer has

The catalog is documented by its reader, subiquity's ``models/source.py``; that names of layers are chains, by curtin
(``fsimage-layered`` in doc/topics/config.rst).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any

import yaml

from contracts.arch import Arch
from pipeline.errors import NotFoundError, PvmlabError
from pipeline.media.disc import Disc

_FOLDER = "casper"
_CATALOG = f"{_FOLDER}/install-sources.yaml"
_OLD_LAYER = "filesystem.squashfs"  # until Ubuntu 20.04
_LAYERED = "fsimage-layered"
_TYPES = ("fsimage", _LAYERED)
_LAYER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]*(?:\.[A-Za-z0-9_+-]+)*\.squashfs")
_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_INDEX = re.compile(r"dists/([\w.-]+)/([\w.-]+)/binary-([a-z0-9]+)/Packages(?:\.gz|\.xz)?")
_SIGNATURES = ("InRelease", "Release.gpg")
# What an installed machine of a lab cannot do without; each line is satisfied by any one of it, the first wins.
_NEEDED = (("initramfs-tools", "dracut"), ("cloud-init",), ("openssh-server",), ("sudo",))
_BOOTLOADER = {
    Arch.X86_64: (("grub-efi-amd64-signed",), ("shim-signed",)),
    Arch.AARCH64: (("grub-efi-arm64-signed",), ("shim-signed",)),
}
_FLAVOURS = ("generic", "virtual", "{arch}", "cloud-{arch}")


class UnfitDiscError(PvmlabError):
    """A disc is none of Ubuntu's live-server layout, or lacks something that an installed system needs."""

    def __init__(self, brief: str, details: str) -> None:
        super().__init__(
            brief,
            details=details,
            resolution="take a live-server disc of Ubuntu, or a cloud image (`rootfs: cloud_image` in the definition)",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Something that the disc installs. :ivar layers: file names, the lowest first."""

    id: str
    layers: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Catalog:
    """What can be installed, the disc's default first. :ivar kernel: the package the disc names, if it does."""

    sources: tuple[Source, ...]
    kernel: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite of the disc's own archive. :ivar is_signed: whether its Release file is."""

    name: str
    components: tuple[str, ...]
    is_signed: bool

    def source_line(self, place: str) -> str:
        """Return its line in sources.list(5), the archive being in the folder *place*.

        One that is not signed is trusted like the layers beside it: the digest of the whole disc was verified.
        """
        options = "" if self.is_signed else "[trusted=yes] "
        return f"deb {options}file:{place} {self.name} {' '.join(self.components)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveServer:
    """What of a disc is needed to make the root filesystem of one of its sources.

    :ivar layers: paths on the disc, the lowest first. :ivar archive: paths of its apt archive.
    :ivar indices: those of them that list packages.
    """

    source: Source
    kernel: str | None
    layers: tuple[str, ...]
    suites: tuple[Suite, ...]
    archive: tuple[str, ...]
    indices: tuple[str, ...]


def read_live_server(disc: Disc, arch: Arch, *, source: str | None = None) -> LiveServer:
    """Return what *disc* installs.

    :param source: the id of a source in its catalog; None for the disc's default.
    :raises UnfitDiscError: if it is no disc of this layout, or a layer is not on it.
    :raises NotFoundError: if there is no such source.
    """
    if (path := disc.find(_CATALOG)) is not None:
        catalog = parse_catalog(disc.read(path), disc.path.name)
    elif disc.find(f"{_FOLDER}/{_OLD_LAYER}") is not None:
        catalog = Catalog(sources=(Source(id=_OLD_LAYER.partition(".")[0], layers=(_OLD_LAYER,)),))
    else:
        raise UnfitDiscError(
            f"{disc.path.name} is no live-server disc",
            f"it has neither {_CATALOG} nor {_FOLDER}/{_OLD_LAYER}; its label is {disc.volume_id!r}",
        )
    chosen = choose_source(catalog, source, disc.path.name)
    layers = [f"{_FOLDER}/{name}" for name in chosen.layers]
    if missing := [name for name in layers if disc.find(name) is None]:
        raise UnfitDiscError(
            f"{disc.path.name} lacks a layer of {chosen.id}", f"{', '.join(missing)} should be below {layers[-1]}"
        )
    archive = tuple(path for path in disc.members if path.startswith(("dists/", "pool/")))
    suites, indices = find_suites(archive, arch)
    return LiveServer(
        source=chosen, kernel=catalog.kernel, layers=tuple(layers), suites=suites, archive=archive, indices=indices
    )


def parse_catalog(text: bytes, disc: str) -> Catalog:
    """Return the catalog in ``install-sources.yaml``, of version 1 (a list) or 2 (with the kernel beside it).

    Sources that are no layers (Ubuntu Core's) are left out.

    :raises UnfitDiscError: if it is none, or empty.
    """
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UnfitDiscError(f"the catalog of {disc} is damaged", str(error)) from None
    entries = document.get("sources") if isinstance(document, dict) else document
    kernel = document.get("kernel") if isinstance(document, dict) else None
    named = kernel.get("default") if isinstance(kernel, dict) else None
    usable = [entry for entry in entries if _layers_of(entry)] if isinstance(entries, list) else []
    if not usable:
        raise UnfitDiscError(
            f"the catalog of {disc} names nothing that can be installed", f"{_CATALOG}, {document!r:.300}"
        )
    usable.sort(key=lambda entry: entry.get("default") is not True)
    valid = isinstance(named, str) and _PACKAGE_NAME.fullmatch(named) is not None
    return Catalog(
        sources=tuple(Source(id=str(entry.get("id")), layers=_layers_of(entry)) for entry in usable),
        kernel=named if valid else None,
    )


def _layers_of(entry: Any) -> tuple[str, ...]:
    """Return the layers of a source, or of its first variation; none if it does not consist of any."""
    if not isinstance(entry, dict) or entry.get("type") not in _TYPES:
        return ()
    variations = entry.get("variations")
    first = next(iter(variations.values()), None) if isinstance(variations, dict) else None
    for each in (entry, first):
        path = each.get("path") if isinstance(each, dict) else None
        if isinstance(path, str) and _LAYER_NAME.fullmatch(path):
            return layer_chain(path) if entry["type"] == _LAYERED else (path,)
    return ()


def choose_source(catalog: Catalog, name: str | None, disc: str) -> Source:
    """Return the source *name*, or the disc's default.

    :raises NotFoundError: if there is none of that name.
    """
    for source in catalog.sources:
        if name in {None, source.id}:
            return source
    known = ", ".join(source.id for source in catalog.sources)
    raise NotFoundError(f"{disc} does not install {name}", details=f"it has {known}", resolution="name one of these")


def layer_chain(name: str) -> tuple[str, ...]:
    """Return ``a.b.squashfs`` and what it lies on, by its name: ``a.squashfs``; the lowest first."""
    stem, dot, suffix = name.rpartition(".")
    parts = stem.split(".")
    return tuple(".".join(parts[:end]) + dot + suffix for end in range(1, len(parts) + 1))


def find_suites(paths: Iterable[str], arch: Arch) -> tuple[tuple[Suite, ...], tuple[str, ...]]:
    """Return the suites for *arch* in the archive that consists of *paths*, and the paths of their indices."""
    there = frozenset(paths)
    components: dict[str, set[str]] = {}
    indices = []
    for path in sorted(there):
        if (match := _INDEX.fullmatch(path)) is not None and match[3] == arch.debian:
            components.setdefault(match[1], set()).add(match[2])
            indices.append(path)
    suites = tuple(
        Suite(
            name=name, components=tuple(sorted(found)),
            is_signed=any(f"dists/{name}/{signature}" in there for signature in _SIGNATURES),
        )
        for name, found in sorted(components.items())
    )  # fmt: skip
    return suites, tuple(indices)


def plan_packages(
    installed: Collection[str], available: Collection[str], arch: Arch, *, kernel: str | None, disc: str
) -> list[str]:
    """Return the packages that the archive on a disc must add to its layers.

    :param kernel: the package that the disc's catalog names.
    :raises UnfitDiscError: naming what neither the layers nor the archive have.
    """
    wanted, missing = list[str](), list[str]()
    if not any(re.match(r"linux-image-(?:unsigned-)?\d", name) for name in installed):
        chosen = choose_kernel(available, arch, named=kernel)
        wanted += [chosen] if chosen is not None else []
        missing += ["a kernel (linux-generic)"] if chosen is None else []
    for alternatives in (*_BOOTLOADER[arch], *_NEEDED):
        if any(name in installed for name in alternatives):
            continue
        found = next((name for name in alternatives if name in available), None)
        wanted += [found] if found is not None else []
        missing += [alternatives[0]] if found is None else []
    if missing:
        raise UnfitDiscError(
            f"{disc} lacks what an installed machine needs: {', '.join(missing)}",
            f"neither its layers ({len(installed)} packages) nor its archive ({len(available)}) have it",
        )
    return wanted


def choose_kernel(available: Collection[str], arch: Arch, *, named: str | None) -> str | None:
    """Return the package that brings the kernel, None if there is none.

    That is the one the disc names, else Ubuntu's usual one, else the newest for newer hardware (HWE), else the image
    without its metapackage.
    """
    usual = [name for name in (named, "linux-generic") if name is not None and name in available]
    hardware = _newest(available, r"linux-generic-hwe-[\d.]+")
    flavours = [flavour.format(arch=arch.debian) for flavour in _FLAVOURS]
    images = [name for name in (f"linux-image-{flavour}" for flavour in flavours) if name in available]
    bare = _newest(available, rf"linux-image-\d\S*-(?:{'|'.join(flavours)})")
    return next((name for name in (*usual, hardware, *images, bare) if name is not None), None)


def _newest(names: Iterable[str], pattern: str) -> str | None:
    matching = (name for name in names if re.fullmatch(pattern, name))
    return max(matching, key=_by_number, default=None)


def _by_number(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts 6.8.0-9 before 6.8.0-10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]


def package_names(indices: Iterable[str]) -> set[str]:
    """Return the names in the texts of Packages files (deb-control(5))."""
    return {name for text in indices for name in re.findall(r"^Package: (\S+)$", text, re.MULTILINE)}
