"""Container images written without a daemon.

One tar that is two things at once: a valid OCI image layout (``oci-layout``, ``index.json``, ``blobs/sha256``) and what
``docker load`` takes (``manifest.json``), sharing the same blobs. Docker 20.10 refuses an OCI layout alone.

Formats: https://github.com/opencontainers/image-spec/blob/main/image-layout.md and
https://github.com/moby/moby/blob/master/image/spec/v1.2.md ("Combined Image JSON").
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isal import isal_zlib

from contracts.arch import Arch
from pipeline.compression import GZIP_LEVEL
from pipeline.errors import ChecksumError

_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_GZIP_FORMAT = 31  # zlib's wbits for a gzip header
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class HealthCheck:
    """How Docker asks a container whether it is well (not in OCI's configuration, but engines keep it there).

    :ivar command: for the container's shell; its exit status 0 is "well". :ivar interval: seconds between two.
    :ivar timeout: seconds it may take. :ivar retries: failures in a row that make the container unhealthy.
    """

    command: str
    interval: int
    timeout: int
    retries: int

    def document(self) -> dict[str, Any]:
        """Return it as Docker writes it, times in nanoseconds."""
        second = 1_000_000_000
        return {
            "Test": ["CMD-SHELL", self.command],
            "Interval": self.interval * second,
            "Timeout": self.timeout * second,
            "Retries": self.retries,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """How a container made from the image runs.

    :ivar tag: name under which ``docker load`` stores it. :ivar created: when its content was made, in seconds since
        1970; not said if None.
    """

    tag: str
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    working_directory: str = "/"
    health_check: HealthCheck | None = None
    created: int | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """A compressed layer. :ivar digest: SHA-256 of the gzip. :ivar diff_id: SHA-256 of the tar inside."""

    path: Path
    digest: str
    diff_id: str
    size: int


def compress_layer(plain: Path, compressed: Path) -> Layer:
    """Compress the tar *plain* into *compressed*, without a time or a name in the gzip header."""
    diff = hashlib.sha256()
    compressor = isal_zlib.compressobj(level=GZIP_LEVEL, wbits=_GZIP_FORMAT)
    with plain.open("rb") as source, compressed.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            diff.update(chunk)
            sink.write(compressor.compress(chunk))
        sink.write(compressor.flush())
    with compressed.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    return Layer(compressed, digest, diff.hexdigest(), compressed.stat().st_size)


def rfc3339(seconds: int) -> str:
    """Return a time in seconds since 1970 as RFC 3339 wants it, in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def image_json(config: ImageConfig, arch: Arch, layers: Sequence[Layer]) -> bytes:
    """Return the image configuration document; its SHA-256 is the image id."""
    return _canonical(
        {
            "architecture": arch.debian,
            "os": "linux",
            **({"created": rfc3339(config.created)} if config.created is not None else {}),
            "config": {
                "Entrypoint": list(config.entrypoint),
                "Env": [f"{name}={value}" for name, value in sorted(config.environment.items())],
                "Labels": dict(config.labels),
                "WorkingDir": config.working_directory,
                **({"Healthcheck": config.health_check.document()} if config.health_check else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.diff_id}" for layer in layers]},
            "history": [{"created_by": "pvmlab"} for _ in layers],
        }
    )


def write_image(output: Path, config: ImageConfig, arch: Arch, layers: Sequence[Layer]) -> str:
    """Write the image tar to *output*; return the image id (hex, without ``sha256:``)."""
    image = image_json(config, arch, layers)
    image_id = hashlib.sha256(image).hexdigest()
    manifest = _canonical(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": {"mediaType": _CONFIG_TYPE, "digest": f"sha256:{image_id}", "size": len(image)},
            "layers": [
                {"mediaType": _LAYER_TYPE, "digest": f"sha256:{layer.digest}", "size": layer.size} for layer in layers
            ],
        }
    )
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    index = _canonical(
        {
            "schemaVersion": 2,
            "manifests": [
                {
                    "mediaType": _MANIFEST_TYPE,
                    "digest": f"sha256:{manifest_digest}",
                    "size": len(manifest),
                    "platform": {"architecture": arch.debian, "os": "linux"},
                    "annotations": {"org.opencontainers.image.ref.name": config.tag},
                }
            ],
        }
    )
    docker_manifest = _canonical(
        [
            {
                "Config": f"blobs/sha256/{image_id}",
                "RepoTags": [config.tag],
                "Layers": [f"blobs/sha256/{layer.digest}" for layer in layers],
            }
        ]
    )
    with tarfile.open(output, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", _canonical({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", index)
        _add(archive, "manifest.json", docker_manifest)
        _add(archive, f"blobs/sha256/{manifest_digest}", manifest)
        _add(archive, f"blobs/sha256/{image_id}", image)
        for layer in layers:
            with layer.path.open("rb") as stream:
                archive.addfile(_member(f"blobs/sha256/{layer.digest}", layer.size), stream)
    return image_id


@dataclasses.dataclass(frozen=True)
class Image:
    """An image read back. :ivar document: its configuration. :ivar plain: the layers' uncompressed tars."""

    tag: str
    document: bytes
    layers: tuple[Layer, ...]
    plain: tuple[Path, ...]


def read_image(archive: Path, into: Path) -> Image:
    """Unpack an image that :func:`write_image` wrote; its layers' uncompressed tars go to the directory *into*.

    :raises ChecksumError: if a layer is not the one the image names.
    """
    with tarfile.open(archive) as image:
        (entry,) = json.loads(_read(image, "manifest.json"))
        document = _read(image, entry["Config"])
        layers: list[Layer] = []
        plain: list[Path] = []
        for blob, diff_id in zip(entry["Layers"], json.loads(document)["rootfs"]["diff_ids"], strict=True):
            target = into / f"layer{len(plain)}.tar"
            found = _decompress(image, blob, target)
            if f"sha256:{found}" != diff_id:
                raise ChecksumError(
                    f"a layer of {archive.name} is damaged", details=f"{blob} holds {found}, not {diff_id}"
                )
            layers.append(Layer(target, blob.rpartition("/")[2], found, image.getmember(blob).size))
            plain.append(target)
    return Image(entry["RepoTags"][0], document, tuple(layers), tuple(plain))


def _decompress(image: tarfile.TarFile, blob: str, target: Path) -> str:
    """Write the uncompressed *blob* to *target*; return its SHA-256."""
    total = hashlib.sha256()
    inflater = isal_zlib.decompressobj(wbits=_GZIP_FORMAT)
    source = image.extractfile(blob)
    assert source is not None  # noqa: S101 (blobs are regular files)
    with source, target.open("wb") as sink:
        while chunk := source.read(_CHUNK):
            data = inflater.decompress(chunk)
            total.update(data)
            sink.write(data)
    return total.hexdigest()


def _read(image: tarfile.TarFile, name: str) -> bytes:
    source = image.extractfile(name)
    assert source is not None  # noqa: S101 (written by us as a regular file)
    with source:
        return source.read()


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    archive.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def _canonical(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
