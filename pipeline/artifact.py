"""An artifact: files made by one task from declared inputs, each with a sidecar that says how.

Whether an artifact is up to date is read off the sidecars alone: its *key*, a hash over the inputs' digests, the
content of the recipe's sources and the options, must be the one it was made with. So no state is lost when a build
is killed, and neither a touched file, nor a fresh clone, nor a moved cache rebuilds anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.commit import publish, publish_text
from pipeline.errors import ChecksumError, NotFoundError
from pipeline.workspace import REPOSITORY, Cache

SIDECAR_SCHEMA = 1


def sidecar_path(path: Path) -> Path:
    """Return where the sidecar of the artifact file *path* is."""
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the sidecar of the artifact file *path*, or None if there is none that can be read."""
    try:
        data = json.loads(sidecar_path(path).read_bytes())
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and data.get("schema") == SIDECAR_SCHEMA else None


def require_digest(path: Path) -> str:
    """Return the recorded SHA-256 digest of the artifact file *path*.

    :raises NotFoundError: if it was not built.
    """
    sidecar = read_sidecar(path)
    if sidecar is None or not path.exists():
        raise NotFoundError(f"{path.name} is not built", details=str(path), resolution="doit builds what is missing")
    return str(sidecar["sha256"])


@dataclasses.dataclass(frozen=True)
class Making:
    """One run of an artifact's recipe.

    :ivar outputs: for each target the temporary path to write; it is published when the recipe returns.
    :ivar scratch: an empty directory, removed afterwards.
    :ivar log: takes the output of programs.
    """

    outputs: Mapping[Path, Path]
    scratch: Path
    log: Path

    @property
    def output(self) -> Path:
        """The temporary path of the only target."""
        (path,) = self.outputs.values()
        return path

    def note(self, text: str) -> None:
        """Append a line to the task's log."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """Files made by one task.

    :ivar name: the doit task: ``rootfs:debian-12:x86_64``.
    :ivar targets: the files it makes, under the cache.
    :ivar inputs: files of other artifacts that it reads.
    :ivar sources: files and folders of the repository whose content decides the result.
    :ivar options: everything else that does, as JSON data.
    :ivar make: writes the targets; returns facts to record in the sidecars (kernel version, tool versions).
    """

    name: str
    doc: str
    cache: Cache
    targets: tuple[Path, ...]
    make: Callable[[Making], Mapping[str, Any] | None]
    inputs: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def log(self) -> Path:
        """The log of the last build."""
        return self.cache.logs / (self.name.replace(":", ".") + ".log")

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the result, as recorded in the sidecar.

        :raises NotFoundError: if an input is not built.
        """
        return {
            "inputs": {self._relative(path): require_digest(path) for path in self.inputs},
            "sources": {path.relative_to(REPOSITORY).as_posix(): digest_of_source(path) for path in self.sources},
            "options": dict(self.options),
        }

    def reason(self) -> str | None:
        """Return why the artifact must be made, in words, or None if it is up to date."""
        for target in self.targets:
            sidecar = read_sidecar(target)
            if sidecar is None or not target.exists():
                return "not built yet"
            if target.stat().st_size != sidecar["size"]:
                return f"{target.name} was changed since it was built"
        try:
            recipe = self.recipe()
        except NotFoundError as error:
            return error.brief
        return next((difference for path in self.targets if (difference := _difference(path, recipe))), None)

    def build(self) -> None:
        """Make the artifact and publish its targets with their sidecars.

        The sidecars go first and come last: a crash in between leaves targets without a sidecar, which count as
        not built.
        """
        recipe = self.recipe()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(scratch_directory(self.cache, self.name))
            with contextlib.ExitStack() as published:
                outputs = {target: published.enter_context(publish(target)) for target in self.targets}
                facts = self.make(Making(outputs, scratch, self.log)) or {}
                digests = {target: (file_digest(output), output.stat().st_size) for target, output in outputs.items()}
                for target in self.targets:
                    sidecar_path(target).unlink(missing_ok=True)
        for target, (sha256, size) in digests.items():
            record = {
                "schema": SIDECAR_SCHEMA, "task": self.name, "sha256": sha256, "size": size, "facts": facts, **recipe,
            }  # fmt: skip
            publish_text(sidecar_path(target), json.dumps(record, indent=2, sort_keys=True) + "\n")

    def remove(self) -> None:
        """Remove the targets and their sidecars."""
        for target in self.targets:
            sidecar_path(target).unlink(missing_ok=True)
            target.unlink(missing_ok=True)

    def verify(self) -> None:
        """Read the targets and compare them with their sidecars.

        :raises ChecksumError: if one differs. :raises NotFoundError: if one is not built.
        """
        for target in self.targets:
            recorded = require_digest(target)
            if file_digest(target) != recorded:
                raise ChecksumError(
                    f"{target.name} is damaged: its digest is not the recorded one",
                    details=str(target),
                    resolution=f"doit forget is not needed: remove it with `doit clean {self.name}` and build again",
                )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.cache.root).as_posix()


def _difference(target: Path, recipe: Mapping[str, Any]) -> str | None:
    recorded = read_sidecar(target) or {}
    for part in ("inputs", "sources", "options"):
        before, now = recorded.get(part, {}), json.loads(json.dumps(recipe[part]))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if changed:
            return f"{part.removesuffix('s')} {changed[0]} changed"
    return None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def digest_of_source(path: Path) -> str:
    """Return the SHA-256 over the content of a repository file, or of all files in a folder with their names.

    Computed once per process: sources do not change under a running build that is to be trusted.

    :raises FileNotFoundError: if it does not exist.
    """
    if path.is_file():
        return file_digest(path)
    total = hashlib.sha256()
    for file in _source_files(path):
        executable = os.access(file, os.X_OK)
        total.update(f"{file.relative_to(path).as_posix()}\0{executable}\0{file_digest(file)}\n".encode())
    return total.hexdigest()


def _source_files(folder: Path) -> Sequence[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    )
    if not files:
        raise FileNotFoundError(folder)
    return files


@contextlib.contextmanager
def scratch_directory(cache: Cache, name: str) -> Iterator[Path]:
    """Yield an empty directory under the cache; remove it afterwards."""
    cache.scratch.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=name.replace(":", ".") + ".", dir=cache.scratch))
    try:
        yield path
    finally:
        shutil.rmtree(path)
