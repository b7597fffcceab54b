"""Container images as tars, as Docker and others write them, and as nobody should."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard


def layer(text: str) -> bytes:
    """Return a layer with one file."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def config(layers: Sequence[bytes], **changes: Any) -> bytes:
    """Return the configuration of an image of *layers*."""
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "config": {"Entrypoint": ["/x"], "Labels": {"org.opencontainers.image.version": "7"}}}  # fmt: skip
    return json.dumps(document | changes).encode()


def packed(layers: Sequence[bytes], how: str = "plain") -> list[bytes]:
    """Return *layers* as they are stored: ``plain``, ``gzip`` or ``zstd``."""
    packers: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}
    return [packers[how](data) for data in layers]


def write_tar(path: Path, files: Mapping[str, bytes | None], links: Mapping[str, str] | None = None) -> Path:
    """Write a tar with *files* and symbolic *links*."""
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path


def docker_files(
    layers: Sequence[bytes], *, document: bytes | None = None, names: Sequence[str] = ("web:1",), how: str = "plain"
) -> dict[str, bytes | None]:
    """Return what ``docker save`` puts into a tar."""
    document = document or config(layers)
    files: dict[str, bytes | None] = {f"l{n}/layer.tar": data for n, data in enumerate(packed(layers, how))}
    name = f"{hashlib.sha256(document).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": list(names), "Layers": list(files)}]
    return {"manifest.json": json.dumps(manifest).encode(), name: document, **files}


def oci_files(
    layers: Sequence[bytes], *, name: str = "web:1", how: str = "gzip", nested: bool = False
) -> dict[str, bytes | None]:
    """Return an OCI layout, without what Docker's loader wants."""
    files: dict[str, bytes | None] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "config": blob(config(layers)),
        "layers": [blob(data) for data in packed(layers, how)],
    }
    entry = blob(json.dumps(manifest).encode())
    if nested:  # as `docker buildx --output type=oci`: with what BuildKit says of it beside it
        said = blob(json.dumps({"config": {}, "layers": []}).encode())
        notes = {"vnd.docker.reference.type": "attestation-manifest"}
        entry = blob(json.dumps({"manifests": [entry, {**said, "annotations": notes}]}).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return files
