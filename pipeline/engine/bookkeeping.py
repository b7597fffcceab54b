"""doit's notes about tasks, kept as they are made, and its question whether a file has changed, answered by content.

Artifacts answer for themselves (:mod:`pipeline.artifact`); this is for every other task that somebody writes into a
dodo file: what it finished is known even if the run is killed right after, a touched dependency is not a changed one,
and a target that was emptied, cut or swapped is made again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from doit.dependency import Dependency, DependencyStatus, FileChangedChecker

from pipeline.digests import tree_digest
from pipeline.state import State, state_of
from pipeline.workspace import Cache

_KIND = "task"
_TARGETS = "targets:"  # beside doit's own notes about a task, which end in a colon too


class StateBackend:
    """doit's database interface over the state of a cache: each change is in the file when the method returns."""

    def __init__(self, state: State) -> None:
        self.name = str(state.path)
        self._state = state
        self._notes: dict[str, dict[str, Any]] = {}  # as read or set in this run

    def get(self, task_id: str, dependency: str) -> Any:
        """Return a note about a task, or None."""
        return self._of(task_id).get(dependency)

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        """Make a note about a task; :meth:`save` puts it into the file."""
        self._of(task_id)[dependency] = value

    def save(self, task_id: str) -> None:
        """Put all notes about a task into the file, in one transaction."""
        self._state.put(_KIND, task_id, json.dumps(self._of(task_id), sort_keys=True))

    def in_(self, task_id: str) -> bool:
        """Return whether there are notes about a task."""
        return bool(self._of(task_id))

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        self._notes[task_id] = {}
        self._state.remove(_KIND, task_id)

    def remove_all(self) -> None:
        """Forget all tasks."""
        self._notes.clear()
        self._state.remove(_KIND)

    def dump(self) -> None:
        """End of a run: all is in the file already."""
        self._state.close()

    def _of(self, task_id: str) -> dict[str, Any]:
        if task_id not in self._notes:
            kept = self._state.get(_KIND, task_id)
            self._notes[task_id] = json.loads(kept) if kept is not None else {}
        return self._notes[task_id]


class ContentChecker(FileChangedChecker):
    """A file has changed when its content has; a folder, when one of its files, names or executable bits has.

    :ivar cache: whose state remembers digests; set by the class made for a cache.
    """

    cache: Cache

    def check_modified(self, file_path: str, file_stat: os.stat_result, state: str) -> bool:  # noqa: ARG002 (doit's)
        """Return whether the content is another one than when *state* was taken."""
        return self.get_state(file_path, None) != state

    def get_state(self, dep: str, current_state: str | None) -> str:  # noqa: ARG002 (doit's)
        """Return the SHA-256 of the content."""
        path = Path(dep)
        return tree_digest(path) if path.is_dir() else state_of(self.cache).digest_of(path.absolute())


class Bookkeeping(Dependency):
    """doit's dependency manager over the state of a cache.

    :ivar cache: set by the class made for a cache.
    """

    cache: Cache

    def __init__(self, _db_class: object, _file: str, **settings: Any) -> None:
        backend = StateBackend(state_of(self.cache))
        super().__init__(lambda *_args, **_settings: backend, backend.name, **settings)

    def save_success(self, task: Any, result_hash: str | None = None) -> None:
        """Take note of a finished task and what it made, at once."""
        super().save_success(task, result_hash)
        if not is_artifact(task):
            made = {name: self._target_state(name) for name in task.targets}
            self.backend.set(task.name, _TARGETS, made)
        self.backend.save(task.name)

    def ignore(self, task: Any) -> None:
        """Take note that the user wants a task ignored."""
        super().ignore(task)
        self.backend.save(task.name)

    def get_status(self, task: Any, tasks_dict: dict[str, Any], get_log: bool = False) -> DependencyStatus:  # noqa: FBT001, FBT002 (doit's signature)
        """Return whether a task is up to date; its targets must be what it made."""
        status = super().get_status(task, tasks_dict, get_log)
        if status.status == "up-to-date" and not is_artifact(task):
            made = self.backend.get(task.name, _TARGETS) or {}
            for name in task.targets:
                if self._target_state(name) != made.get(name):
                    status.add_reason("missing_target", f"{name} as the task made it (it was changed since)")
                    task.dep_changed = list(task.file_dep)
        return status

    def _target_state(self, name: str) -> str | None:
        path = Path(name)
        if path.is_dir():
            return "a folder"  # what is in it is for the task's own `uptodate` to judge
        return self.checker.get_state(name, None) if path.exists() else None


def is_artifact(task: Any) -> bool:
    """Return whether a doit task makes one of our artifacts."""
    return "artifact" in (task.meta or {})
