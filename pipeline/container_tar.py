"""A person's own container image as a tar: what is in it, whether it is whole, and a copy that Docker will load.

Taken are what ``docker save`` writes (``manifest.json``: moby, image/spec/v1.2.md) and an OCI image layout
(``index.json``: image-spec, image-layout.md), the latter also where Docker's own loader would not.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import zstandard

from contracts.arch import Arch
from pipeline.errors import ChecksumError, NotFoundError, PvmlabError, UsageError

MOST_MEMBERS = 20_000
MOST_DOCUMENT = 8 << 20  # bytes of a JSON document in it
MOST_UNPACKED = 4 << 30  # bytes of all layers together: the provisioner's disk has 8 GiB
_CHUNK = 1 << 20
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header
_INDEX_DEPTH = 3  # an index may lead to an index
_REF_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class ImageTarError(PvmlabError):
    """A file is no container image that could be used."""

    def __init__(self, path: Path, details: str) -> None:
        super().__init__(
            f"{path.name} is no container image for the provisioner",
            details=details,
            resolution="`docker save --output FILE IMAGE` writes one, of an image for linux/amd64",
        )


@dataclasses.dataclass(frozen=True)
class ForeignImage:
    """An image found in a tar.

    :ivar names: the names it has there, as ``web:1``. :ivar document: its configuration. :ivar layers: members that
        are its layers, the lowest first.
    """

    names: tuple[str, ...]
    document: bytes
    layers: tuple[str, ...]

    @property
    def image_id(self) -> str:
        """The image's id: the SHA-256 of its configuration, in hex."""
        return hashlib.sha256(self.document).hexdigest()

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        labels: dict[str, str] = (json.loads(self.document).get("config") or {}).get("Labels") or {}
        return labels


def find_image(path: Path, arch: Arch, *, name: str | None = None) -> ForeignImage:
    """Return the image in the tar *path*, of which all layers were read and are the ones it names.

    :param name: which one, where there are several; the ``:latest`` of it may be left out.
    :raises NotFoundError: if there is no such file or no image of that name. :raises UsageError: if there are several
        and none was named. :raises ImageTarError: if the file is no image, or for another machine or system.
    :raises ChecksumError: if a layer or document is damaged.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    try:
        with tarfile.open(path) as archive:
            found = _Archive(path, archive)
            image = _choose(path, list(found.images()), name)
            _require_platform(path, image, arch)
            found.verify_layers(image)
            return image
    except (tarfile.TarError, zlib.error, zstandard.ZstdError, EOFError, RecursionError) as error:
        raise ImageTarError(path, f"it cannot be read as a tar: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImageTarError(path, f"its description makes no sense: {error!r}") from None


def write_loadable(path: Path, image: ForeignImage, output: Path, *, tag: str) -> None:
    """Write *image*, found in the tar *path*, to *output* as Docker loads it, under the only name *tag*."""
    config = f"blobs/sha256/{image.image_id}"
    with tarfile.open(path) as source, tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as target:
        found = _Archive(path, source)
        members = [found.member(layer) for layer in image.layers]
        names = [f"blobs/sha256/layer{number}" for number in range(len(members))]
        manifest = [{"Config": config, "RepoTags": [tag], "Layers": names}]
        for name, data in (("manifest.json", json.dumps(manifest).encode()), (config, image.document)):
            target.addfile(_regular(name, len(data)), io.BytesIO(data))
        for name, member in zip(names, members, strict=True):
            stream = source.extractfile(member)
            assert stream is not None  # noqa: S101 (find_image has read it)
            with stream:
                target.addfile(_regular(name, member.size), stream)


class _Archive:
    """An open tar with an image in it."""

    def __init__(self, path: Path, archive: tarfile.TarFile) -> None:
        self._path = path
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            self._members[member.name.removeprefix("./")] = member
            if len(self._members) > MOST_MEMBERS:
                raise ImageTarError(path, f"it has more than {MOST_MEMBERS} members")

    def member(self, name: str) -> tarfile.TarInfo:
        """Return the regular file *name*. Older Docker writes layers that are equal once, and links to them."""
        member = self._members.get(name)
        if member is not None and member.issym():
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            member = self._members.get(target)
        if member is None or not member.isreg():
            raise ImageTarError(self._path, f"{name} is missing")
        return member

    def images(self) -> Iterator[ForeignImage]:
        """Yield the images that the tar describes."""
        if "manifest.json" in self._members:
            for entry in self._json("manifest.json"):
                yield ForeignImage(
                    tuple(entry.get("RepoTags") or ()), self._read(entry["Config"]), tuple(entry["Layers"])
                )
        elif "index.json" in self._members:
            yield from self._of_index(self._json("index.json"), names=(), depth=0)
        else:
            raise ImageTarError(self._path, "it has neither manifest.json (docker save) nor index.json (OCI layout)")

    def verify_layers(self, image: ForeignImage) -> None:
        """Read all layers.

        :raises ChecksumError: if one is not what the image's configuration says.
        """
        wanted = json.loads(image.document)["rootfs"]["diff_ids"]
        if len(wanted) != len(image.layers):
            raise ImageTarError(self._path, f"it names {len(wanted)} layers and has {len(image.layers)}")
        left = MOST_UNPACKED
        for name, diff_id in zip(image.layers, wanted, strict=True):
            stream = self._archive.extractfile(self.member(name))
            assert stream is not None  # noqa: S101 (it is a regular file)
            total = hashlib.sha256()
            with stream:
                for chunk in _unpacked(stream):
                    total.update(chunk)
                    left -= len(chunk)
                    if left < 0:
                        raise ImageTarError(self._path, f"its layers are larger than {MOST_UNPACKED >> 30} GiB")
            if f"sha256:{total.hexdigest()}" != diff_id:
                raise ChecksumError(
                    f"a layer of {self._path.name} is damaged",
                    details=f"{name} holds {total.hexdigest()}, not {diff_id}",
                )

    def _of_index(self, index: Mapping[str, Any], *, names: Sequence[str], depth: int) -> Iterator[ForeignImage]:
        if depth >= _INDEX_DEPTH:
            raise ImageTarError(self._path, f"its indexes are nested deeper than {_INDEX_DEPTH}")
        for entry in index["manifests"]:
            notes = entry.get("annotations") or {}
            if notes.get("vnd.docker.reference.type"):  # what BuildKit says of an image, no image
                continue
            found = next(((notes[key],) for key in _REF_NAMES if key in notes), tuple(names))
            document = json.loads(self._blob(entry["digest"]))
            if "manifests" in document:
                yield from self._of_index(document, names=found, depth=depth + 1)
            else:
                layers = tuple(_blob_name(layer["digest"]) for layer in document["layers"])
                yield ForeignImage(found, self._blob(document["config"]["digest"]), layers)

    def _blob(self, digest: str) -> bytes:
        data = self._read(_blob_name(digest))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise ChecksumError(f"{self._path.name} is damaged", details=f"the blob {digest} holds something else")
        return data

    def _json(self, name: str) -> Any:
        return json.loads(self._read(name))

    def _read(self, name: str) -> bytes:
        member = self.member(name)
        if member.size > MOST_DOCUMENT:
            raise ImageTarError(self._path, f"{name} is longer than {MOST_DOCUMENT >> 20} MiB")
        stream = self._archive.extractfile(member)
        assert stream is not None  # noqa: S101 (it is a regular file)
        with stream:
            return stream.read()


def _choose(path: Path, images: Sequence[ForeignImage], name: str | None) -> ForeignImage:
    names = ", ".join(" ".join(image.names) or f"unnamed {image.image_id[:12]}" for image in images)
    if name is not None:
        wanted = {name, f"{name}:latest"}
        if named := [image for image in images if wanted & set(image.names)]:
            return named[0]
        raise NotFoundError(f"{path.name} has no image named {name}", details=f"there are: {names or 'none'}")
    if not images:
        raise ImageTarError(path, "there is no image in it")
    if len({image.image_id for image in images}) > 1:
        raise UsageError(f"{path.name} has several images", details=names, resolution="say which: --image=NAME")
    return images[0]


def _require_platform(path: Path, image: ForeignImage, arch: Arch) -> None:
    document = json.loads(image.document)
    found = f"{document.get('os')}/{document.get('architecture')}"
    if found != f"linux/{arch.debian}":
        raise ImageTarError(path, f"it is for {found}, the provisioner is linux/{arch.debian}")


def _unpacked(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a layer: plain, or compressed by gzip or zstd."""
    magic = stream.read(4)
    stream.seek(0)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        with zstandard.ZstdDecompressor().stream_reader(stream) as reader:
            while chunk := reader.read(_CHUNK):
                yield chunk
    elif magic.startswith(b"\x1f\x8b"):
        yield from _gunzipped(stream)
    else:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _gunzipped(stream: IO[bytes]) -> Iterator[bytes]:
    inflater = None  # a gzip file may have several members
    while chunk := stream.read(_CHUNK):
        while chunk:
            inflater = inflater or zlib.decompressobj(wbits=_GZIP_FORMAT)
            yield inflater.decompress(chunk, _CHUNK)
            if inflater.eof:
                chunk, inflater = inflater.unused_data, None
            else:
                chunk = inflater.unconsumed_tail
    if inflater is not None:
        yield inflater.flush()
        if not inflater.eof:
            raise EOFError("a layer is cut off")


def _blob_name(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not value.isalnum():
        raise ValueError(f"the digest {digest!r}")
    return f"blobs/sha256/{value}"


def _regular(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member
