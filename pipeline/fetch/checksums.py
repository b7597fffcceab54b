"""Lists of checksums as distributions publish them, and which line of one is meant.

::

    <hex>  <name>            GNU coreutils, text          SHA256 (<name>) = <hex>     BSD
    <hex> *<name>            GNU coreutils, binary        <hex>                       alone, in a list about one file
    # <name>: <n> bytes      Fedora's comments

A list is read strictly: a line that is none of these makes all of it unreadable. MD5 and SHA-1 are understood and not
taken.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from pipeline.errors import ChecksumError, NotFoundError
from pipeline.fetch.asset import FILE_NAME, Algorithm, Digest

_WEAK = {32: "MD5", 40: "SHA-1", 56: "SHA-224"}  # by hex digits
_STRONG = {algorithm.digits: algorithm for algorithm in Algorithm}
_TAGS = {"MD5": 32, "SHA1": 40, "SHA224": 56, "SHA256": 64, "SHA384": 96, "SHA512": 128}
_GNU = re.compile(r"([0-9A-Fa-f]{32,128}) [ *](\S.*)")
_BSD = re.compile(r"([\w-]+) \((.+)\) ?= ?([0-9A-Fa-f]{32,128})")
_BARE = re.compile(r"[0-9A-Fa-f]{32,128}")
_SIZE = re.compile(r"# ?(\S+): (\d{1,15}) bytes")
_LINES = 100_000
# what is older than the release it is named after: 24.04-beta, 43~rc1
_BEFORE = {"~", "a", "alpha", "b", "beta", "dev", "pre", "preview", "rc", "snapshot", "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listed:
    """What a list says of one name.

    :ivar digest: None if it is of a kind that is not taken (*weak* names it). :ivar size: bytes, if the list tells.
    """

    name: str
    digest: Digest | None
    weak: str = ""
    size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """The file that is meant. :ivar digests: one of each kind that the list has. :ivar size: bytes, if it tells."""

    name: str
    digests: tuple[Digest, ...]
    size: int | None


def parse_checksums(text: str, *, about: str | None = None) -> list[Listed]:
    """Parse a list of checksums.

    :param about: the name of the file that a digest alone is of; None if the list is not about one file.
    :raises ChecksumError: if there is none in it, or something else is.
    """
    listed: list[Listed] = []
    sizes: dict[str, int] = {}
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > _LINES:
        raise ChecksumError(f"the list of checksums has {len(lines):,} lines")
    for number, line in enumerate(lines, 1):
        content = line.strip()
        if found := _SIZE.fullmatch(content):
            sizes[_plain(found[1])] = int(found[2])
        if content and not content.startswith("#"):
            listed.append(_parse(content, number, about))
    if not listed:
        raise ChecksumError("the list of checksums is empty")
    return [dataclasses.replace(each, size=sizes.get(each.name)) for each in listed]


def choose(entries: Iterable[Listed], pattern: str) -> Chosen:
    """Return the file that *pattern* means: of that name, or with ``*`` in it the newest that matches.

    Newest is by version: 24.04.10 is newer than 24.04.9 and than 24.04, that newer than 24.04-beta.

    :raises NotFoundError: if none is listed. :raises ChecksumError: if the list has two digests of one kind for it, or
        none that is taken.
    """
    shape = re.compile("([^/]*)".join(map(re.escape, pattern.split("*"))))
    matches = {each.name: found for each in entries if (found := shape.fullmatch(each.name)) is not None}
    if not matches:
        raise NotFoundError(
            f"the list of checksums has no {pattern}",
            details=f"listed are, among others: {', '.join(_near(entries))}",
            resolution="if the distribution names its media otherwise now, change `file` in its definition",
        )
    name = max(matches, key=lambda each: ([version_key(part) for part in matches[each].groups()], each))
    if not FILE_NAME.fullmatch(name):
        raise ChecksumError(f"the list of checksums names {name[:200]!r}, which is no name for a file here")
    ours = [each for each in entries if each.name == name]
    digests = {each.digest for each in ours if each.digest is not None}
    if not digests:
        weak = ", ".join(sorted({each.weak for each in ours}))
        raise ChecksumError(f"the list of checksums has only {weak} of {name}", details="those can be forged")
    if len({digest.algorithm for digest in digests}) < len(digests):
        raise ChecksumError(f"the list of checksums has two different digests of {name}")
    ordered = tuple(sorted(digests, key=lambda digest: digest.algorithm.digits))
    return Chosen(name=name, digests=ordered, size=ours[0].size)


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return what sorts versions: numbers as numbers, longer after shorter, what comes before a release before it."""
    key = []
    for word in re.findall(r"\d+|[a-z]+|~", text.lower()):
        if word.isdigit():
            key.append((3, int(word), ""))
        else:
            key.append((0 if word in _BEFORE else 2, 0, word))
    return (*key, (1, 0, ""))


def _parse(line: str, number: int, about: str | None) -> Listed:
    if found := _BSD.fullmatch(line):
        tag, name, value = found.groups()
        if _TAGS.get(tag.upper().replace("-", "")) == len(value):
            return _listed(name, value, number)
    elif found := _GNU.fullmatch(line):
        value, name = found.groups()
        return _listed(name, value, number)
    elif _BARE.fullmatch(line) and about is not None:
        return _listed(about, line, number)
    raise ChecksumError("the list of checksums cannot be read", details=f"line {number}: {line[:100]!r}")


def _listed(name: str, value: str, number: int) -> Listed:
    if (strong := _STRONG.get(len(value))) is not None:
        return Listed(name=_plain(name), digest=Digest(strong, value.lower()))
    if (weak := _WEAK.get(len(value))) is not None:
        return Listed(name=_plain(name), digest=None, weak=weak)
    raise ChecksumError(
        "the list of checksums cannot be read", details=f"line {number}: no digest has {len(value)} digits"
    )


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _near(entries: Iterable[Listed]) -> Sequence[str]:
    return sorted({each.name[:100] for each in entries})[:5]
