"""An artifact: files made by one task from declared inputs, each with a sidecar that says how.

Whether an artifact is up to date is read off its files and their sidecars alone. Its *key*, a hash over the digests of
its inputs, the content of the recipe's sources, the options and the versions of the tools, must be the one it was made
with, and its bytes must be those that were made. So no state is lost when a build is killed, and neither a touched
file, nor a fresh clone, nor a moved cache rebuilds anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.commit import publish, publish_bytes
from pipeline.digests import bytes_digest, file_digest, json_digest, source_digest
from pipeline.documents.contents import files_in
from pipeline.documents.provenance import statement
from pipeline.documents.sbom import spdx_document
from pipeline.documents.subject import Subject
from pipeline.errors import ChecksumError, NotFoundError
from pipeline.progress import Progress, ProgressListener, ignore_progress
from pipeline.reasons import Reason, differences
from pipeline.sidecar import (
    PROVENANCE_SUFFIX,
    SBOM_SUFFIX,
    files_of,
    publish_sidecar,
    read_sidecar,
    require_digest,
    sidecar_path,
)
from pipeline.state import State, state_of
from pipeline.tool_versions import tool_version
from pipeline.workspace import REPOSITORY, Cache


@dataclasses.dataclass(frozen=True)
class Making:
    """One run of an artifact's recipe.

    :ivar outputs: for each target the temporary path to write; it is published when the recipe returns.
    :ivar scratch: an empty directory, removed afterwards.
    :ivar log: takes the output of programs.
    :ivar listener: takes the progress of long steps.
    """

    outputs: Mapping[Path, Path]
    scratch: Path
    log: Path
    listener: ProgressListener = ignore_progress

    @property
    def output(self) -> Path:
        """The temporary path of the only target."""
        (path,) = self.outputs.values()
        return path

    def report(self, step: str, done: int = 0, total: int | None = None, *, unit: str = "B") -> None:
        """Tell how far *step* is; see :class:`pipeline.progress.Progress`."""
        self.listener(Progress(step=step, done=done, total=total, unit=unit))

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
    :ivar tools: programs and Python distributions whose version decides the result: ``mmdebstrap``, ``py:zstandard``.
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
    tools: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """The log of the last build."""
        return self.cache.logs / (self.name.replace(":", ".") + ".log")

    @property
    def state(self) -> State:
        """What the cache remembers."""
        return state_of(self.cache)

    def recipe(self) -> dict[str, Any]:
        """Return everything that decides the result, as recorded in the sidecar.

        :raises NotFoundError: if an input is not built.
        """
        return {
            "inputs": {self._relative(path): require_digest(path) for path in self.inputs},
            "sources": {_source_name(path): source_digest(path) for path in self.sources},
            "options": json.loads(json.dumps(dict(self.options))),  # as it will be read back: tuples are lists
            "tools": {tool: tool_version(tool, self.state) for tool in self.tools},
        }

    def reasons(self) -> tuple[Reason, ...]:
        """Return why the artifact must be made; nothing if it is up to date."""
        records = {target: read_sidecar(target) for target in self.targets}
        damages = (self._damage(target, record) for target, record in records.items())
        found = [damage for damage in damages if damage is not None]
        try:
            recipe = self.recipe()
        except NotFoundError:
            missing = (path for path in self.inputs if read_sidecar(path) is None or not path.exists())
            return (*found, *(Reason("input", self._relative(path), after="not built") for path in missing))
        # each: somebody may have put one of the targets back from a copy, with its sidecar
        whole = [record for record in records.values() if record is not None]
        return (*found, *dict.fromkeys(change for record in whole for change in differences(record, recipe)))

    def reason(self) -> str | None:
        """Return the first reason in words, or None if the artifact is up to date."""
        return next((str(reason) for reason in self.reasons()), None)

    def build(self, listener: ProgressListener = ignore_progress) -> None:
        """Make the artifact and publish its targets with their sidecars.

        The sidecars go first and come last: a crash in between leaves targets without a sidecar, which count as
        not built.
        """
        recipe, start = self.recipe(), time.monotonic()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(scratch_directory(self.cache, self.name))
            with contextlib.ExitStack() as published:
                outputs = {target: published.enter_context(publish(target)) for target in self.targets}
                facts = self.make(Making(outputs, scratch, self.log, listener)) or {}
                digests = {target: (file_digest(output), output.stat().st_size) for target, output in outputs.items()}
                for target in self.targets:
                    sidecar_path(target).unlink(missing_ok=True)
        key = json_digest({"task": self.name, **recipe})
        records = {
            target: {"task": self.name, "key": key, "sha256": sha256, "size": size, "facts": dict(facts), **recipe}
            for target, (sha256, size) in digests.items()
        }
        self._describe(records)
        self.state.put("seconds", self.name, f"{time.monotonic() - start:.1f}")

    def expected_seconds(self) -> float | None:
        """Return how long the last build on this host took, or None if there was none."""
        seconds = self.state.get("seconds", self.name)
        return float(seconds) if seconds is not None else None

    def remove(self) -> None:
        """Remove the targets and what goes with them."""
        for path in [path for target in self.targets for path in files_of(target)]:
            path.unlink(missing_ok=True)

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
                    resolution=f"`doit {self.name}` builds it again",
                )

    def _describe(self, records: Mapping[Path, Mapping[str, Any]]) -> None:
        """Publish what goes with the targets: what is in them, where they come from, and last the sidecars."""
        subjects = {path: Subject.from_sidecar(self._relative(path), record) for path, record in records.items()}
        provenance = statement(list(subjects.values()))
        for target, subject in subjects.items():
            documents = {SBOM_SUFFIX: spdx_document(subject, files_in(target)), PROVENANCE_SUFFIX: provenance}
            for suffix, content in documents.items():
                publish_bytes(target.with_name(target.name + suffix), content)
            digests = {suffix: bytes_digest(content) for suffix, content in documents.items()}
            publish_sidecar(target, {**records[target], "documents": digests})
            self.state.learn_digest(target, subject.sha256)

    def _damage(self, target: Path, record: Mapping[str, Any] | None) -> Reason | None:
        """Return what is wrong with the file *target*, whatever it was made from, by the *record* in its sidecar."""
        name = self._relative(target)
        if record is None or not target.is_file():
            return Reason("output", name, after="not built")
        if target.stat().st_size != record["size"] or self.state.digest_of(target) != record["sha256"]:
            return Reason("output", name, after="changed since it was built")
        for suffix, digest in record["documents"].items():
            document = target.with_name(target.name + suffix)
            if not document.is_file() or self.state.digest_of(document) != digest:
                return Reason("output", name + suffix, after="changed or removed since it was built")
        return None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.cache.root).as_posix()


def _source_name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix() + ("/" if path.is_dir() else "")


@contextlib.contextmanager
def scratch_directory(cache: Cache, name: str) -> Iterator[Path]:
    """Yield an empty directory under the cache; remove it afterwards."""
    cache.scratch.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=name.replace(":", ".") + ".", dir=cache.scratch))
    try:
        yield path
    finally:
        shutil.rmtree(path)
