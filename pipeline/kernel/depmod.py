"""What depmod(8) does: the index files from which modprobe knows where a module is, what it needs, and its aliases.

::

    modules.order         path of each, in the order of the kernel's build: of two with one alias the first is loaded
    modules.dep           path: paths of all it needs, directly or not
    modules.alias         alias <pattern> <name>                    modules.symbols   alias symbol:<symbol> <name>
    modules.softdep       softdep <name> pre: <names> post: ...     modules.weakdep   the same, by name
    modules.builtin       paths of what is in the kernel itself     modules.builtin.modinfo   <name>.<key>=<value>

kmod's modprobe reads the binary form of these (``.bin``), busybox's the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.kernel.module_file import module_name, read_modinfo, uncompressed_path, unpack_module
from pipeline.kernel.module_index import Line, index_key, write_index

_NAME_PLACE = {  # in a line, which word is the module's name
    "modules.alias": -1, "modules.symbols": -1, "modules.softdep": 1, "modules.weakdep": 1, "modules.devname": 0,
}  # fmt: skip
_THREADS = 2
_WITH_BINARY = ("modules.alias", "modules.symbols")


def derive_indexes(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the texts that depmod would make of the modules in *files* (path to content, maybe compressed).

    Installation scripts of packages run depmod: where packages were unpacked and no more, it never ran. Symbols are not
    read: what a module needs, it says itself.

    :raises PvmlabError: if one is no module.
    """
    order = {path: number for number, path in enumerate(_lines(files.get("modules.order", b"")))}
    paths = [path for path in files if ".ko" in path]
    paths.sort(key=lambda path: (order.get(uncompressed_path(path), len(order)), path))
    with ThreadPoolExecutor(_THREADS) as threads:  # unpacking lets other threads run
        said_by = threads.map(lambda path: read_modinfo(path, unpack_module(path, files[path])), paths)
        about = dict(zip(paths, said_by, strict=True))
    named = {module_name(path): path for path in paths}

    def said(key: str) -> Iterator[tuple[str, str]]:
        return ((path, text) for path in paths for text in about[path].get(key, ()))

    direct: dict[str, list[str]] = {path: [] for path in paths}
    for path, text in said("depends"):
        names = (name.replace("-", "_") for name in text.split(","))
        direct[path] += [named[name] for name in names if name in named]
    return {
        "modules.dep": _joined(f"{path}: {' '.join(_closure(path, direct))}".rstrip() for path in paths),
        "modules.alias": _joined(f"alias {alias} {module_name(path)}" for path, alias in said("alias")),
        "modules.softdep": _joined(f"softdep {module_name(path)} {text}" for path, text in said("softdep")),
    }


def modprobe_indexes(indexes: Mapping[str, bytes], stored: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files modprobe reads, for some of the modules that *indexes* speak of.

    :param stored: path of each chosen module to the path it has now.
    """
    pairs = [line.partition(":") for line in _lines(indexes["modules.dep"])]
    chosen = {path.strip(): needed.split() for path, _, needed in pairs if path.strip() in stored}
    dep = {
        path: f"{stored[path]}: {' '.join(map(stored.__getitem__, needed))}".rstrip() for path, needed in chosen.items()
    }
    numbers = {module_name(path): number for number, path in enumerate(chosen)}
    made = {
        "modules.order": _joined(stored[path] for path in chosen),
        "modules.dep": _joined(dep.values()),
        "modules.dep.bin": write_index(
            (module_name(path), line, number) for number, (path, line) in enumerate(dep.items())
        ),
    }
    is_cut = len(chosen) < len(pairs)
    for name, place in _NAME_PLACE.items():
        if name in indexes:
            made[name] = _cut(indexes[name], place, numbers) if is_cut else indexes[name]
    for name in _WITH_BINARY:
        if is_cut or f"{name}.bin" not in indexes:
            made[f"{name}.bin"] = write_index(_alias_lines(made.get(name, b""), numbers))
        else:
            made[f"{name}.bin"] = indexes[f"{name}.bin"]
    return made | _builtin(indexes)


def _builtin(indexes: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the files about modules that are in the kernel itself."""
    builtin = indexes.get("modules.builtin", b"")
    aliases = indexes.get("modules.builtin.alias.bin")
    return {
        "modules.builtin": builtin,
        "modules.builtin.bin": write_index((module_name(path), "", 0) for path in _lines(builtin)),
        "modules.builtin.alias.bin": aliases
        or write_index(_builtin_aliases(indexes.get("modules.builtin.modinfo", b""))),
    }


def _builtin_aliases(modinfo: bytes) -> Iterator[Line]:
    for text in modinfo.decode(errors="replace").split("\0"):
        key, _, value = text.partition("=")
        name, _, field = key.partition(".")
        if field == "alias":
            yield index_key(value), name.replace("-", "_"), 0


def _alias_lines(text: bytes, numbers: Mapping[str, int]) -> Iterator[Line]:
    for line in _lines(text):
        alias, name = line.removeprefix("alias ").rsplit(maxsplit=1)
        yield index_key(alias), name, numbers.get(name.replace("-", "_"), 0)


def _closure(path: str, direct: Mapping[str, list[str]]) -> list[str]:
    """Return all that a module needs, each before what it needs itself: modprobe loads them from the end."""
    seen, found = {path}, list[str]()

    def visit(each: str) -> None:
        for needed in direct[each]:
            if needed not in seen:
                seen.add(needed)
                visit(needed)
                found.append(needed)

    visit(path)
    return found[::-1]


def _cut(text: bytes, place: int, names: Mapping[str, int]) -> bytes:
    """Return the lines whose word at *place* is one of *names*."""
    return _joined(line for line in _lines(text) if line.split()[place].replace("-", "_") in names)


def _lines(text: bytes) -> list[str]:
    lines = text.decode(errors="replace").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
