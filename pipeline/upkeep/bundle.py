"""A bundle: artifacts of a cache in one file, to be put into another cache.

An uncompressed tar (what is in it is compressed already) of regular files in an order of its own: ``bundle.json``, the
index, sealed as a sidecar is, which names all others with their sizes and SHA-256 digests; then for each artifact file
its sidecar, the documents about it, the file; then downloads. Equal artifacts give equal bytes. `tar` can list and
unpack it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from pipeline.artifact import Artifact
from pipeline.commit import publish
from pipeline.digests import file_digest, json_digest
from pipeline.errors import ChecksumError, ConflictError, PvmlabError
from pipeline.graph import Graph
from pipeline.progress import ProgressListener
from pipeline.sidecar import files_of, require_digest
from pipeline.upkeep.inventory import DOWNLOADS, digests_in, is_download, is_manifest
from pipeline.upkeep.transfer import Transfer
from pipeline.workspace import Cache

INDEX = "bundle.json"
FORMAT = "pvmlab-bundle"
SCHEMA = 1
BLOCK = 512
TRAILER = bytes(2 * BLOCK)  # the end of a tar
LARGEST_INDEX = 8 << 20  # bytes; a bundle of all there is has an index of some hundred kilobytes
LARGEST_SIDECAR = 16 << 20  # bytes; one that names a thousand packages has 300 kilobytes

# ustar: name, mode, uid, gid, size, mtime, checksum, type, link, magic, version, user, group, major, minor, prefix
_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")
_MODE, _ID, _TIME = b"0000644\0", b"0000000\0", b"00000000000\0"
_LARGEST_OCTAL = 8**11 - 1
_ENTRY_KEYS = {"path", "sha256", "size"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of a bundle. :ivar path: where it is in a cache, with forward slashes."""

    path: str
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What a bundle holds.

    :ivar tasks: whose artifacts. :ivar absent: digests of downloads that a manifest names and the cache lacks.
    """

    tasks: tuple[str, ...]
    entries: tuple[Entry, ...]
    absent: tuple[str, ...]

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(entry.size for entry in self.entries)


def plan_bundle(graph: Graph, tasks: Iterable[str], cache: Cache) -> Bundle:
    """Return what a bundle of *tasks* holds: their artifacts and all that these were made from.

    :raises ConflictError: if one is not up to date, saying which and why.
    """
    artifacts = graph.closure(tasks)
    if stale := [f"{artifact.name}: {reason}" for artifact in artifacts if (reason := artifact.reason()) is not None]:
        raise ConflictError(
            "not all of that is up to date", details="\n".join(stale),
            resolution="`./pvmlab build` builds what is missing; or name the tasks to export",
        )  # fmt: skip
    entries = [entry for artifact in artifacts for entry in _entries(artifact, cache)]
    manifests = [path for artifact in artifacts if is_manifest(artifact.name) for path in artifact.targets]
    named = {digest for manifest in manifests for digest in digests_in(manifest)}
    found = {digest: path for digest in named for path in (cache.root / DOWNLOADS / digest).glob("*")}
    downloads = [
        Entry(name, digest, path.stat().st_size)
        for digest, path in found.items()
        if is_download(name := path.relative_to(cache.root).as_posix())
    ]
    order = order_of(graph, cache)
    return Bundle(
        tasks=tuple(artifact.name for artifact in artifacts),
        entries=tuple(sorted([*entries, *downloads], key=lambda entry: order.get(entry.path, (1, entry.path)))),
        absent=tuple(sorted(named - found.keys())),
    )


def export_bundle(bundle: Bundle, cache: Cache, file: Path, listener: ProgressListener) -> None:
    """Publish *bundle* at *file*, or write it into what is there and is no regular file: a pipe, ``/dev/stdout``.

    :raises ChecksumError: if something in it is damaged; then a regular *file* is what it was.
    """
    with contextlib.ExitStack() as stack:
        is_file = file.is_file() or not file.exists()
        # resolved: a link is not replaced, but what it leads to
        place = stack.enter_context(publish(file.resolve())) if is_file else file
        write_bundle(bundle, cache, stack.enter_context(place.open("wb")), listener)


def write_bundle(bundle: Bundle, cache: Cache, sink: IO[bytes], listener: ProgressListener) -> None:
    """Write *bundle* to *sink*, reading and comparing each file.

    :raises ChecksumError: if a file is not what its digest says; what was written then is no bundle.
    """
    index = render_index(bundle.entries)
    sink.write(header(INDEX, len(index)) + index + padding(len(index)))
    transfer = Transfer("writing the bundle", bundle.size, listener)
    for entry in bundle.entries:
        sink.write(header(entry.path, entry.size))
        with (cache.root / entry.path).open("rb") as source:
            digest = _move(transfer, source, entry, sink)
        if digest != entry.sha256:
            raise ChecksumError(
                f"{entry.path} is damaged, or was built anew meanwhile",
                details=f"its digest is {digest}, not {entry.sha256}",
                resolution="./pvmlab cache.verify finds all that is damaged",
            )
        sink.write(padding(entry.size))
    sink.write(TRAILER)


def order_of(graph: Graph, cache: Cache) -> dict[str, tuple[int, str]]:
    """Return where the files of artifacts come in a bundle, by their paths in the cache; downloads come last.

    The sidecar is first: it is to be looked at before the bytes it vouches for, and put in place after them.
    """
    return {
        path.relative_to(cache.root).as_posix(): (0, f"{target.relative_to(cache.root).as_posix()}\0{rank}")
        for artifact in graph.artifacts.values()
        for target in artifact.targets
        for rank, path in enumerate(files_of(target))
    }


def render_index(entries: Sequence[Entry]) -> bytes:
    """Return the index as it stands in a bundle."""
    document: dict[str, Any] = {"format": FORMAT, "schema": SCHEMA}
    document["entries"] = [dataclasses.asdict(entry) for entry in entries]
    document["seal"] = json_digest(document)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_index(data: bytes) -> list[Entry]:
    """Return the entries of an index.

    :raises PvmlabError: if it is of a later schema. :raises ValueError: if it is none, or not as we write it.
    """
    document = json.loads(data)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("it is no index")
    if document.pop("seal", None) != json_digest(document):  # a flipped schema is damage, not another version
        raise ValueError("its seal is broken")
    if document.get("schema") != SCHEMA:
        raise PvmlabError(
            f"the bundle is of the format {document.get('schema')}, this pvmlab reads {SCHEMA}",
            resolution="update pvmlab, or export the bundle again with this version",
        )
    entries = [_entry(each) for each in document["entries"]] if isinstance(document.get("entries"), list) else []
    if render_index(entries) != data:
        raise ValueError("it is not as we write it")
    return entries


def header(name: str, size: int) -> bytes:
    """Return the header of a regular file in a tar (POSIX ustar; a size beyond 8 GiB as GNU tar writes it).

    :raises PvmlabError: if the name is too long for it.
    """
    encoded = name.encode()
    # of more than 100 bytes, the folders go into a field of their own
    prefix, _, base = encoded.rpartition(b"/") if len(encoded) > 100 else (b"", b"", encoded)
    if len(base) > 100 or len(prefix) > 155:
        raise PvmlabError("the name of a file is too long for a bundle", details=name)
    octal = f"{size:011o}\0".encode() if size <= _LARGEST_OCTAL else b"\x80" + size.to_bytes(11, "big")

    def fields(checksum: bytes) -> bytes:
        return _HEADER.pack(
            base, _MODE, _ID, _ID, octal, _TIME, checksum, b"0", b"", b"ustar\0", b"00", b"", b"", b"", b"", prefix
        )  # fmt: skip

    return fields(f"{sum(fields(b' ' * 8)):06o}\0 ".encode())


def padding(size: int) -> bytes:
    """Return the zeros after *size* bytes of a file, up to the next block."""
    return bytes(-size % BLOCK)


def _entries(artifact: Artifact, cache: Cache) -> list[Entry]:
    """Return the files of an artifact that is up to date."""
    entries = []
    for target in artifact.targets:
        for path in files_of(target):
            if path.is_file():
                digest = require_digest(path) if path == target else file_digest(path)
                entries.append(Entry(path.relative_to(cache.root).as_posix(), digest, path.stat().st_size))
    return entries


def _move(transfer: Transfer, source: IO[bytes], entry: Entry, sink: IO[bytes]) -> str:
    try:
        return transfer.move(source, entry.size, sink)
    except EOFError as error:
        raise ChecksumError(
            f"{entry.path} is damaged: {error}", resolution="./pvmlab cache.verify finds all that is damaged"
        ) from None


def _entry(data: Any) -> Entry:
    if not isinstance(data, dict) or data.keys() != _ENTRY_KEYS:
        raise ValueError("an entry has other keys")
    path, sha256, size = data["path"], data["sha256"], data["size"]
    if not isinstance(path, str) or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ValueError("an entry has no path or no digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 63:
        raise ValueError("an entry has no size")
    return Entry(path, sha256, size)
