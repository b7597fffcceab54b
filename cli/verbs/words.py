"""What the help of several verbs says."""

from __future__ import annotations

OUTPUT = "table, or json for programs"
ACTED = "table: it is told as it goes; json: at the end also an object, see docs/reference/json.md"
TASKS = "tasks, kinds (rootfs), patterns ('*:debian-12:*') or files; if there are none, all that needs no media"
TIMEOUT = "seconds to wait at most (default: enough for a machine many times slower than this one)"
