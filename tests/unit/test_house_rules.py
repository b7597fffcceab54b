"""The rules of the house (docs/explanation/architecture.md), read off the source; each with a sample it refuses."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pipeline.workspace import REPOSITORY

PACKAGES = ("contracts", "pipeline", "distros", "pxeboot_stack", "installer", "lab", "cli")
ENTRIES = ("dodo", "tasks")
LONGEST_FUNCTION, LONGEST_MODULE = 60, 400

# What each part may import of ours, besides itself. Nothing may import upwards.
MAY_IMPORT = {
    "contracts": set[str](),
    "pipeline": {"contracts"},
    "distros": {"contracts", "pipeline"},
    "pxeboot_stack": {"contracts"},  # runs inside the container
    "installer": {"contracts"},  # runs inside the initrd
    "pipeline.recipes": {"contracts", "pipeline", "distros", "pxeboot_stack", "installer"},  # packs the two above
    "lab": {"contracts", "pipeline", "distros"},
    "cli": {"contracts", "pipeline", "distros", "pipeline.recipes", "lab", "pxeboot_stack"},
    "dodo": {*PACKAGES, "pipeline.recipes"},
    "tasks": {*PACKAGES, "pipeline.recipes"},
}
MAY_START_PROCESSES = {
    "pipeline/run.py": "the one door on the host",
    "installer/command.py": "the one door inside the initrd",
    "pxeboot_stack/supervisor.py": "PID 1 of the container starts its services",
    "cli/bootstrap.py": "becomes the command line: pipeline.run would cost every start an import of subprocess",
}
MAY_WRITE_FILES = {
    "pipeline/commit.py": "publishes files",
    "pxeboot_stack/publish.py": "publishes files inside the container",
    "pxeboot_stack/boot_handler/write_behind.py": "adds to a journal",
    "pipeline/run.py": "appends to logs",
    "pipeline/artifact.py": "appends to logs",
    "pipeline/engine/lock.py": "makes the lock file",
    "lab/forward_process.py": "appends to logs",
    "lab/host_services.py": "appends to logs",
    "lab/machine.py": "appends to logs",
    "lab/processes.py": "makes lock files",
    "lab/network.py": "appends to logs",
    "lab/logs.py": "appends to logs",
    "lab/tpm.py": "appends to logs",
}
# They write what their caller publishes: a Making's outputs and scratch files, a temporary folder, the new disk.
WRITES_FOR_PUBLISHING = ("pipeline/", "installer/", "lab/accelerator.py", "lab/snapshots.py")
# Only what is written beside its name, flushed and renamed is whole after a crash; so nobody else renames.
MAY_PUT_FILES_IN_PLACE = {
    "pipeline/commit.py": "publishes files",
    "pxeboot_stack/publish.py": "publishes files inside the container",
    "lab/logs.py": "turns a log over",
    "lab/switch.py": "its socket appears under its name when it listens",
    "pipeline/upkeep/bundle_import.py": "moves a file that was checked into the temporary path of publish()",
    "pipeline/debian/deb_store.py": "moves a file that was checked into the temporary path of publish()",
    "pipeline/fetch/store.py": "moves a file that was checked into the temporary path of publish()",
    "pipeline/upkeep/verification.py": "links inputs into a scratch cache",
}

PROCESS_MODULES = {"subprocess", "pty", "multiprocessing"}
PROCESS_CALL = re.compile(
    r"os\.(system|popen|fork|forkpty|(exec|spawn)[lv]p?e?|posix_spawnp?)\Z|asyncio\.create_subprocess_\w+\Z"
)
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def source_files() -> list[Path]:
    roots = [REPOSITORY / package for package in PACKAGES]
    entries = [path for name in ENTRIES if (path := REPOSITORY / f"{name}.py").exists()]
    return sorted(entries + [path for root in roots for path in root.rglob("*.py")])


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def part_of(module: str) -> str:
    """Return the part of the house that *module* belongs to: the longest known prefix."""
    known = [part for part in MAY_IMPORT if module == part or module.startswith(f"{part}.")]
    return max(known, key=len, default="")


def import_faults(module: str, tree: ast.AST) -> Iterator[str]:
    part = part_of(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
            if node.level:
                yield f"line {node.lineno}: relative import"
        else:
            continue
        for target in map(part_of, imported):
            if target and target != part and target not in MAY_IMPORT[part]:
                yield f"line {node.lineno}: {part} imports {target}"


def process_faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        yield from (
            f"line {node.lineno}: {name}" for name in names if name in PROCESS_MODULES or PROCESS_CALL.match(name)
        )


def write_faults(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"write_text", "write_bytes"}:
            yield f"line {node.lineno}: {called}"
        if ast.unparse(node.func) == "os.open":
            if "O_CREAT" in ast.unparse(node):
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif called in {"open", "fdopen"}:
            words = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
            modes = [word.value for word in words if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if any(re.fullmatch(r"[rwaxbt]*[wax+][rwaxbt+]*(\|[a-z0-9]*)?", mode) for mode in modes):
                yield f"line {node.lineno}: {ast.unparse(node)}"


def placing_faults(tree: ast.AST) -> Iterator[str]:
    """Find calls that give a file its name: rename, replace (the one with a single argument is Path's), link, move."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called, count = node.func.attr, len(node.args)
            owner = ast.unparse(node.func.value)
            of_path = called in {"rename", "hardlink_to"} or (called == "replace" and count == 1 and not node.keywords)
            of_module = f"{owner}.{called}" in {"os.rename", "os.renames", "os.replace", "os.link", "shutil.move"}
            if of_path or of_module:
                yield f"line {node.lineno}: {ast.unparse(node)}"


def length_faults(text: str, tree: ast.AST) -> Iterator[str]:
    if (lines := len(text.splitlines())) > LONGEST_MODULE:
        yield f"{lines} lines, at most {LONGEST_MODULE}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"line {node.lineno}: {node.name} has {lines} lines, at most {LONGEST_FUNCTION}"


def shape_faults(path: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "no module docstring"
    stem = Path(path).stem
    if stem in FORBIDDEN_NAMES or Path(path).parent.name in FORBIDDEN_NAMES:
        yield f"a module named {stem} says nothing about what is in it"
    if stem == "__init__":
        allowed = (ast.Expr, ast.Import, ast.ImportFrom)
        for node in tree.body:
            is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            if not isinstance(node, allowed) and not is_all:
                yield f"line {node.lineno}: __init__.py holds a docstring and re-exports, nothing else"


def place_faults(text: str, forbidden: Iterable[str]) -> Iterator[str]:
    """Find machine paths and the names of package hosts, as whole words."""
    for word in forbidden:
        if found := re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", text):
            yield f"line {text.count(chr(10), 0, found.start()) + 1}: {word}"


def places_of_this_machine() -> set[str]:
    """Return this checkout's path, and the hosts that apt and pip are configured to fetch from."""
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt").glob("sources.list.d/*"), Path("/etc/pip.conf"),
             Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"]  # fmt: skip
    texts = [path.read_text(errors="replace") for path in files if path.is_file()]
    texts += [
        value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_")) or "proxy" in name.lower()
    ]
    settings = "\n".join(line for text in texts for line in text.splitlines() if not line.lstrip().startswith("#"))
    hosts = set(re.findall(r"(?:https?|mirror)://(?:[^/@\s]*@)?([\w.-]+\.[\w.-]*\w)", settings))
    return {str(REPOSITORY)} | (hosts - {"127.0.0.1"})


def text_files() -> Iterator[tuple[Path, str]]:
    """Yield what is or may be committed: everything that .gitignore does not name."""
    left_out = {".git", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}
    for folder, folders, files in os.walk(REPOSITORY):
        in_cache = Path(folder) == REPOSITORY / "cache"
        folders[:] = [name for name in folders if name not in left_out and not in_cache]
        for name in ["README.md"] if in_cache else files:
            path = Path(folder) / name
            data = path.read_bytes() if path.is_file() else b""
            if b"\0" not in data and path.suffix != ".swp":
                yield path, data.decode(errors="replace")


@pytest.mark.parametrize("path", source_files(), ids=name_of)
def test_source_keeps_the_rules(path: Path) -> None:
    text, name = path.read_text(), name_of(path)
    tree = ast.parse(text)
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    faults = [*length_faults(text, tree), *shape_faults(name, tree)]
    if module not in {"cli.__main__", "cli.reference"}:  # they join the verbs (tasks.py) to the program
        faults += import_faults(module, tree)
    if name not in MAY_START_PROCESSES:
        faults += process_faults(tree)
    if name not in MAY_PUT_FILES_IN_PLACE:
        faults += placing_faults(tree)
    if name not in MAY_WRITE_FILES and not name.startswith(WRITES_FOR_PUBLISHING):
        faults += write_faults(tree)
    assert not faults, "\n".join(f"{name}: {fault}" for fault in faults)


def test_no_place_of_this_machine_is_written_down() -> None:
    places = places_of_this_machine()
    faults = [f"{name_of(path)}: {fault}" for path, text in text_files() for fault in place_faults(text, places)]
    assert not faults, "\n".join(faults)


def test_exceptions_are_still_needed() -> None:
    rules = (
        (MAY_START_PROCESSES, process_faults),
        (MAY_WRITE_FILES, write_faults),
        (MAY_PUT_FILES_IN_PLACE, placing_faults),
    )
    for exceptions, faults in rules:
        for name in exceptions:
            tree = ast.parse((REPOSITORY / name).read_text())
            assert list(faults(tree)), f"{name} no longer needs its exception"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("contracts.lan", "import pipeline.run"),
        ("pipeline.artifact", "from distros import registry"),
        ("pipeline.artifact", "from pipeline.recipes import graph"),
        ("pipeline.artifact", "from pipeline import recipes"),
        ("distros.debian", "def f():\n    from lab.spec import Disk"),
        ("pxeboot_stack.watcher", "from pipeline.commit import publish"),
        ("installer.init", "import lab"),
        ("lab.machine", "from cli.output import emit"),
        ("cli.doctor", "import tasks"),
        ("lab.machine", "from . import spec"),
    ],
)
def test_upward_imports_are_refused(module: str, source: str) -> None:
    assert list(import_faults(module, ast.parse(source)))


@pytest.mark.parametrize("source", ["from contracts.arch import Arch", "import json", "from lab import spec"])
def test_downward_imports_are_allowed(source: str) -> None:
    assert not list(import_faults("lab.machine", ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "from subprocess import run",
        "import os\nos.system('true')",
        "import os\nos.popen('true')",
        "from os import execv",
        "import os\nos.spawnlp(0, 'a', 'a')",
        "import os\nos.posix_spawn('a', [], {})",
        "import os\npid = os.fork()",
        "import asyncio\nasyncio.create_subprocess_exec('a')",
        "import multiprocessing",
        "import pty",
    ],
)
def test_other_doors_to_processes_are_refused(source: str) -> None:
    assert list(process_faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["open('f', 'w')", "open('f', mode='ab')", "p.open('r+')", "p.write_text('')", "p.write_bytes(b'')",
     "os.fdopen(3, 'wb')", "os.open(p, os.O_CREAT | os.O_WRONLY)", "tarfile.open('f', 'w|gz')", "p.open(mode='x')"],
)  # fmt: skip
def test_unpublished_writes_are_refused(source: str) -> None:
    assert list(write_faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    ["os.rename(a, b)", "os.replace(a, b)", "p.replace(q)", "p.rename(q)", "shutil.move(a, b)", "os.link(a, b)",
     "p.hardlink_to(q)"],
)  # fmt: skip
def test_other_ways_to_put_a_file_in_place_are_refused(source: str) -> None:
    assert list(placing_faults(ast.parse(source)))


@pytest.mark.parametrize("source", ["s.replace('a', 'b')", "dataclasses.replace(x, a=1)", "run.replace(argv, check=1)"])
def test_other_replacing_is_allowed(source: str) -> None:
    assert not list(placing_faults(ast.parse(source)))


@pytest.mark.parametrize("source", ["open('f')", "p.open('rb')", "p.read_text()", "os.open(p, 0)", "p.open()"])
def test_reading_is_allowed(source: str) -> None:
    assert not list(write_faults(ast.parse(source)))


def test_long_functions_and_modules_are_refused() -> None:
    long_function = "def f():\n" + "    pass\n" * LONGEST_FUNCTION
    assert list(length_faults(long_function, ast.parse(long_function)))
    long_module = "pass\n" * (LONGEST_MODULE + 1)
    assert list(length_faults(long_module, ast.parse(long_module)))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lab/utils.py", '"""Doc."""'),
        ("lab/helpers/x.py", '"""Doc."""'),
        ("lab/x.py", "pass"),
        ("lab/__init__.py", '"""Doc."""\nx = 1'),
        ("lab/__init__.py", '"""Doc."""\ndef f(): pass'),
    ],
)
def test_shapeless_modules_are_refused(path: str, source: str) -> None:
    assert list(shape_faults(path, ast.parse(source)))


def test_places_are_found_as_whole_words() -> None:
    assert list(place_faults("see http://mirror.example/debian", ["mirror.example"])) == ["line 1: mirror.example"]
    assert list(place_faults("a\ncd /home/me/lab/x", ["/home/me/lab"])) == ["line 2: /home/me/lab"]
    assert not list(place_faults("./pvmlab and my-mirror.example.org", ["/pvmlab", "mirror.example"]))
