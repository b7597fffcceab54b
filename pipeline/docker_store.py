"""An image laid into Docker's own store (``/var/lib/docker``, storage driver overlay2) without running Docker.

``docker load`` in the provisioner would take 13 to 15 s under emulation at every first boot (e2e-feasibility, F); a
build step that boots a VM to do it would not give equal bytes twice. So the store is written down, as Docker's
``layer`` and ``image`` packages read it (moby/moby: layer/filestore.go, image/fs.go, image/store.go,
reference/store.go, daemon/graphdriver/overlay2/overlay.go). The layout has been the same since Docker 1.10; the
end-to-end test runs the container from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.disk_image import Unpacked
from pipeline.oci import Layer
from pipeline.tree_tar import TreeTar

ROOT = "var/lib/docker"


def chain_ids(diff_ids: Sequence[str]) -> Iterator[str]:
    """Yield the chain id of each layer (OCI image-spec config.md, "Layer ChainID"), in hex."""
    chain = ""
    for diff_id in diff_ids:
        chain = diff_id if not chain else hashlib.sha256(f"sha256:{chain} sha256:{diff_id}".encode()).hexdigest()
        yield chain


def write_metadata(output: Path, *, tag: str, image: bytes, layers: Sequence[Layer], sizes: Sequence[int]) -> None:
    """Write the store's metadata as a tar to unpack at the root of a file system.

    :param image: the image configuration document. :param sizes: unpacked bytes of each layer.
    """
    image_id = hashlib.sha256(image).hexdigest()
    reference = f"sha256:{image_id}"
    driver, content = f"{ROOT}/overlay2", f"{ROOT}/image/overlay2"
    with TreeTar(output) as tree:
        tree.directory(ROOT, mode=0o710)
        tree.file(
            f"{content}/repositories.json",
            _json({"Repositories": {tag.rsplit(":", 1)[0]: {tag: reference}}}),
            mode=0o600,
        )
        tree.file(f"{content}/imagedb/content/sha256/{image_id}", image, mode=0o600)
        tree.directory(f"{content}/imagedb/metadata/sha256")
        parent = None
        lower: list[str] = []
        for layer, size, chain in zip(layers, sizes, chain_ids([layer.diff_id for layer in layers]), strict=True):
            record, cache_id, link = f"{content}/layerdb/sha256/{chain}", layer.diff_id, _link_name(layer.diff_id)
            tree.file(f"{record}/cache-id", cache_id.encode())
            tree.file(f"{record}/diff", f"sha256:{layer.diff_id}".encode())
            tree.file(f"{record}/size", str(size).encode())
            if parent is not None:
                tree.file(f"{record}/parent", f"sha256:{parent}".encode())
                tree.file(f"{driver}/{cache_id}/lower", ":".join(lower).encode())
                tree.directory(f"{driver}/{cache_id}/work", mode=0o700)
            tree.file(f"{driver}/{cache_id}/link", link.encode())
            tree.file(f"{driver}/{cache_id}/committed", b"", mode=0o600)
            tree.symlink(f"{driver}/l/{link}", f"../{cache_id}/diff")
            lower.insert(0, f"l/{link}")
            parent = chain


def layer_content(layers: Sequence[Layer], plain: Sequence[Path]) -> list[Unpacked]:
    """Return the layers' uncompressed tars with the places in the store where they are unpacked."""
    return [Unpacked(path, f"{ROOT}/overlay2/{layer.diff_id}/diff") for layer, path in zip(layers, plain, strict=True)]


def _link_name(diff_id: str) -> str:
    """Return the layer's short name: overlay2 wants 26 characters, to keep mount options under a page."""
    return diff_id[:26].upper()


def _json(data: object) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
