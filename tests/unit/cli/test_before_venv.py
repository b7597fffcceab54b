"""What runs before there is a ``.venv`` may import the standard library only."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from pipeline.workspace import REPOSITORY


def imported(module: str) -> Iterator[str]:
    """Yield what *module* imports when it is imported itself."""
    path = REPOSITORY / f"{module.replace('.', '/')}.py"
    if not path.exists():
        path = REPOSITORY / module.replace(".", "/") / "__init__.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            yield node.module


def test_the_way_to_the_environment_needs_no_other_package() -> None:
    seen, waiting = set[str](), ["cli.bootstrap", "cli.environment", "cli.failures"]
    while waiting:
        module = waiting.pop()
        if module in seen or module.partition(".")[0] in sys.stdlib_module_names:
            continue
        seen.add(module)
        assert (REPOSITORY / module.partition(".")[0]).is_dir(), f"{module} is not there yet"
        waiting += imported(module)
    assert "cli.output" in seen
