"""The lock of a folder of definitions, ``lock.yaml``: digests of media that have no signed list of their own.

``<distribution>: <architecture>: <medium>: {file, sha256, size}``. Written by ``distro.add`` and ``distro.pull
--lock``, read by people: sorted, one value a line, the same entries give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from contracts.arch import Arch
from distros.definition import FILE, NAME
from distros.release import Locked, MediumKind
from distros.strict_yaml import DefinitionError, Node, parse

Lock = Mapping[str, Mapping[tuple[Arch, MediumKind], Locked]]

FILE_NAME = "lock.yaml"
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_HEADER = "# Digests of media without a signed list. distro.add and distro.pull --lock write this file.\n"


def parse_lock(text: str, *, file: Path) -> Lock:
    """Return the entries of a lock, by distribution; a file without any holds ``{}``.

    :raises DefinitionError: with all that is wrong in it.
    """
    node = parse(text, file=file)
    found: dict[str, dict[tuple[Arch, MediumKind], Locked]] = {}
    for name, of_distro in node.mapping().items():
        if not NAME.match(name):
            of_distro.refuse_key("it must be the name of a distribution")
        entries = found.setdefault(name, {})
        for arch, of_arch in _known(of_distro, tuple(Arch)):
            for kind, entry in _known(of_arch, tuple(MediumKind)):
                entries[Arch(arch), MediumKind(kind)] = _entry(entry)
    if node.faults:
        raise DefinitionError(file, node.faults)
    return found


def render_lock(lock: Lock) -> str:
    """Return the text of a lock."""
    lines = []
    for name in sorted(name for name in lock if lock[name]):
        lines.append(f"{name}:")
        for arch in sorted({arch for arch, _ in lock[name]}):
            lines.append(f"  {arch}:")
            for kind in sorted(kind for of, kind in lock[name] if of is arch):
                entry = lock[name][arch, kind]
                lines += [f"    {kind}:", f"      file: {entry.file!r}", f"      sha256: {entry.sha256!r}",
                          f"      size: {entry.size}"]  # fmt: skip
    return _HEADER + "".join(f"{line}\n" for line in lines or ["{}"])


def _known(node: Node, words: tuple[str, ...]) -> list[tuple[str, Node]]:
    found = node.fields((), words)
    return list(found.items())


def _entry(node: Node) -> Locked:
    fields = node.fields(("file", "sha256", "size"))
    file, sha256 = (fields[key].text() if key in fields else "" for key in ("file", "sha256"))
    size = fields["size"].number() if "size" in fields else 0
    if file and not FILE.match(file):
        fields["file"].refuse(f"{file!r:.80} is not the name of a file")
    if sha256 and not _SHA256.match(sha256):
        fields["sha256"].refuse("it must be 64 digits 0-9 a-f")
    if "size" in fields and size == 0 and fields["size"].kind == "a number":
        fields["size"].refuse("it must be a number of bytes, more than 0")
    return Locked(file=file, sha256=sha256, size=size)
