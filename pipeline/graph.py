"""Artifacts as doit tasks: who needs whom is read off the files they name."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doit.exceptions import TaskFailed

from pipeline.artifact import Artifact
from pipeline.digests import source_digest
from pipeline.engine.session import recipe_running
from pipeline.errors import HostError, NotFoundError, PvmlabError
from pipeline.progress import ignore_progress


class Graph:
    """The artifacts of a project, by task name.

    :raises ValueError: if two make the same file or have the same name, or one needs a file that none makes.
    """

    def __init__(self, artifacts: Iterable[Artifact]) -> None:
        self._by_name: dict[str, Artifact] = {}
        self._maker: dict[Path, Artifact] = {}
        for artifact in artifacts:
            if artifact.name in self._by_name:
                raise ValueError(f"two artifacts are called {artifact.name}")
            self._by_name[artifact.name] = artifact
            for target in artifact.targets:
                if target in self._maker:
                    raise ValueError(f"{artifact.name} and {self._maker[target].name} both make {target}")
                self._maker[target] = artifact
        for artifact in self._by_name.values():
            for needed in artifact.inputs:
                if needed not in self._maker:
                    raise ValueError(f"{artifact.name} needs {needed}, which nothing makes")
            for source in artifact.sources:
                source_digest(source)  # now, when the code is loaded: a source edited later is not what ran

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """All artifacts by task name."""
        return self._by_name

    def needed_by(self, artifact: Artifact) -> list[Artifact]:
        """Return the artifacts whose files *artifact* reads, without repetition."""
        return list(dict.fromkeys(self._maker[path] for path in artifact.inputs))

    def closure(self, names: Iterable[str]) -> list[Artifact]:
        """Return the named artifacts and all they need, the needed ones first.

        :raises KeyError: for a name that is not there.
        """
        ordered: dict[str, Artifact] = {}

        def visit(artifact: Artifact) -> None:
            if artifact.name not in ordered:
                for needed in self.needed_by(artifact):
                    visit(needed)
                ordered[artifact.name] = artifact

        for name in names:
            visit(self._by_name[name])
        return list(ordered.values())

    def select(self, words: Iterable[str]) -> list[str]:
        """Return the tasks that *words* name: tasks, kinds (``rootfs``), patterns (``*:debian-12:*``) or target files.

        :raises NotFoundError: for a word that names none.
        """
        return list(dict.fromkeys(name for word in words for name in self._named(word)))

    def _named(self, word: str) -> list[str]:
        if found := [name for name in self._by_name if name == word or name.startswith(f"{word}:")]:
            return found
        if found := fnmatch.filter(self._by_name, word):
            return found
        if (maker := self._maker.get(Path(word).absolute())) is not None:
            return [maker.name]
        kinds = dict.fromkeys(name.partition(":")[0] for name in self._by_name)
        near = difflib.get_close_matches(word, [*self._by_name, *kinds], n=1)
        raise NotFoundError(
            f"there is no task {word!r}",
            details=f"did you mean {near[0]}?" if near else "",
            resolution="`./pvmlab cache.list` and `doit list --all` show the tasks",
        )

    def tasks(self, kind: str) -> Iterator[dict[str, Any]]:
        """Yield the doit tasks of one *kind*: ``rootfs`` gives ``rootfs:debian-12:x86_64`` and its siblings."""
        for artifact in self._by_name.values():
            basename, _, name = artifact.name.partition(":")
            if basename == kind:
                yield {
                    "name": name,
                    "doc": artifact.doc,
                    "targets": [str(target) for target in artifact.targets],
                    "task_dep": [needed.name for needed in self.needed_by(artifact)],
                    "uptodate": [_UpToDate(artifact)],
                    "actions": [(_build, [artifact])],
                    "clean": [_Removal(artifact)],
                    # Programs write to the task's log; swapping sys.stdout would mix the output of parallel tasks.
                    "io": {"capture": False},
                    "verbosity": 0,
                    "meta": {"artifact": artifact},
                }


class _Removal:
    """What ``doit clean`` does; it prints this as what it executes."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def __call__(self) -> None:
        self._artifact.remove()

    def __repr__(self) -> str:
        # doit shows what is between the first character and " at ", as of a function's
        return f"<remove {', '.join(target.name for target in self._artifact.targets)} at {self._artifact.cache.root}>"


class _UpToDate:
    """doit's question whether a task is up to date. ``doit info`` prints it as the reason why not."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact

    def __call__(self, task: Any, values: Any) -> bool:  # noqa: ARG002 (doit knows these two by their names)
        return self._artifact.reason() is None

    def __str__(self) -> str:
        return "; ".join(map(str, self._artifact.reasons()))


def _build(artifact: Artifact, task: Any) -> TaskFailed | None:
    """Run a task's action; a failure people can act on is a value, so that doit prints no traceback for it."""
    try:
        with recipe_running(artifact.cache):
            artifact.build(task.meta.get("listener", ignore_progress))
    except PvmlabError as error:
        return _failure(error)
    except OSError as error:
        if HostError.knows(error):
            return _failure(HostError(error))
        raise  # a fault of ours: doit reports its traceback
    return None


def _failure(error: PvmlabError) -> TaskFailed:
    failure = TaskFailed(error.brief)
    failure.pvmlab_error = error
    return failure
