"""Runs under the *initrd's* interpreter, not ours: find what a package imports, compile it to ``.pyc`` without sources.

    python3.13 -P -s -S -B sourceless.py OUTPUT REPOSITORY MODULE...

The first import of the installer takes 0.5 s from ``.pyc`` files, 3 s from sources under emulation. Written below
OUTPUT: ``stdlib/`` and ``app/``. Standard library only; nothing of this project may be imported here.
"""

import importlib
import importlib.util
import py_compile
import sys
from pathlib import Path
from types import ModuleType

# Optional helpers of stdlib modules: they fall back without them, and these would bring libcrypto and more (6 MB).
_LEFT_OUT = ("_ssl", "_hashlib", "_bz2", "_lzma", "_ctypes", "_uuid", "readline")

# Imported by the interpreter from C when they are first needed, so that no import statement shows them.
_IMPLIED = (
    "encodings.idna",  # socket.getaddrinfo encodes every host name with it
    "encodings.ascii", "encodings.latin_1", "encodings.utf_8",
    "traceback", "linecache",  # an uncaught exception
    "os",  # frozen, but the interpreter finds its library by this file
    "runpy",  # python -m
)  # fmt: skip


def main(output: Path, repository: Path, names: list[str]) -> None:
    """Write the compiled closure of *names* below *output*."""
    sys.modules.update(dict.fromkeys(_LEFT_OUT))  # type: ignore[arg-type]  # None makes the import fail, as documented
    sys.path.insert(0, str(repository))
    for name in (*_IMPLIED, *names):
        importlib.import_module(name)
    stdlib = Path(importlib.util.__file__).parent.parent
    for module in [module for name, module in sorted(sys.modules.items()) if name != "__main__"]:
        source = _find_source(module)
        if source is None:
            continue
        if source.suffix != ".py":
            sys.exit(f"{source.name} is an extension module: its libraries are not looked for yet")
        kind, place = place_of(source, repository=repository, stdlib=stdlib)
        py_compile.compile(
            str(source),
            cfile=str(output / kind / place.with_suffix(".pyc")),
            dfile=str(place),  # what tracebacks show; no path of the building machine gets in
            doraise=True,
            # The library loses its docstrings, which halves it. A dataclass without one makes itself one at import,
            # by inspecting its signature: slow under emulation. So ours keep them, and their assertions.
            optimize=0 if kind == "app" else 2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def place_of(source: Path, *, repository: Path, stdlib: Path) -> tuple[str, Path]:
    """Return whether *source* is of the ``app`` or the ``stdlib``, and its path there.

    The library is asked first: the tree that has it may itself lie in the repository, below ``cache/``.
    """
    if source.is_relative_to(stdlib):
        return "stdlib", source.relative_to(stdlib)
    return "app", source.relative_to(repository)


def _find_source(module: ModuleType | None) -> Path | None:
    """Return the file *module* came from; None for built-in ones and those left out."""
    path = getattr(module, "__file__", None)
    return Path(path) if path else None


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
