"""Reads a distribution file: ``<name>.yaml`` into a :class:`~distros.release.Release`.

docs/reference/distribution-files.md describes the file. Every fault of a file is reported at once, with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from contracts.arch import Arch
from distros.family import Family
from distros.release import DEFAULT_MAX_SIZE, Checksums, Medium, MediumKind, Release, Sources
from distros.strict_yaml import DefinitionError, Node, parse

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}\Z")  # as contracts.machine has it; also a folder, a URL segment, a task
FINGERPRINT = re.compile(r"[0-9A-F]{40}\Z")  # of an OpenPGP key, version 4 (RFC 4880 12.2)
FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,254}\Z")
_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~*-]{0,254}\Z")
_LIST = re.compile(r"(?:[A-Za-z0-9]|\{file\})(?:[A-Za-z0-9._+~-]|\{file\})*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]+\Z")  # Debian policy 5.6.1
_SUITE = re.compile(r"[a-z][a-z0-9.-]*\Z")
_SIZE = re.compile(r"([1-9][0-9]{0,5}) (KiB|MiB|GiB|TiB)\Z")
_URL_TEXT = re.compile(r"[!-~]+\Z")
_FACTORS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_PACKAGED = "mmdebstrap"  # as a source: the root filesystem is made of Debian packages


def parse_definition(text: str, *, file: Path) -> Release:
    """Return the release that the *text* of *file* describes, without what the lock says of it.

    :raises DefinitionError: with all that is wrong in it.
    """
    node = parse(text, file=file)
    top = node.fields(("name", "title", "family", "sources"), ("suite", "repository"))
    name = _matching(top.get("name"), NAME, "a name is of a-z, 0-9, dots and hyphens, and begins with no mark")
    if name and name != file.stem:
        top["name"].refuse(f"it must be that of the file, {file.stem!r}")
    family = _family(top.get("family"))
    suite = _matching(top.get("suite"), _SUITE, "a suite is a word, such as noble")
    release = Release(
        name=name,
        title=_line(top.get("title")),
        family=family,
        suite=suite,
        repository=_url(top["repository"], placeholder="{arch}") if "repository" in top else "",
        sources=_sources(top.get("sources"), family=family, suite=suite),
    )
    if node.faults:
        raise DefinitionError(file, node.faults)
    return release


def _sources(node: Node | None, *, family: Family, suite: str) -> Mapping[Arch, Sources]:
    found: dict[Arch, Sources] = {}
    if node is None:
        return found
    for key, value in node.mapping().items():
        if key in set(Arch):
            found[Arch(key)] = _sources_of_arch(value, family=family, suite=suite)
        else:
            value.refuse_key(f"there is no such architecture here; there are: {', '.join(Arch)}")
    if not found and not node.faults:
        node.refuse("it must name at least one architecture")
    return found


def _sources_of_arch(node: Node, *, family: Family, suite: str) -> Sources:
    fields = node.fields((), (_PACKAGED, *MediumKind, "installer", "rootfs"))
    media = {kind: _medium(fields[kind], kind) for kind in MediumKind if kind in fields}
    kernel = _kernel_package(fields[_PACKAGED], family=family, suite=suite) if _PACKAGED in fields else None
    if kernel is None and not media and isinstance(node.content, dict):
        node.refuse(f"it must hold a source: {_PACKAGED}, {', '.join(MediumKind)}")
    installer = _matching(fields.get("installer"), _PACKAGE, "a Debian package is of a-z, 0-9, and marks + - .")
    if installer and not suite:
        fields["installer"].refuse("it needs the key `suite`: where the package is found")
    return Sources(
        kernel_package=kernel,
        installer_package=installer or None,
        media=media,
        rootfs=None if _PACKAGED in fields else _rootfs(node, fields.get("rootfs"), media, family),
    )


def _kernel_package(node: Node, *, family: Family, suite: str) -> str | None:
    kernel = _matching(
        node.fields(("kernel",)).get("kernel"), _PACKAGE, "a Debian package is of a-z, 0-9, and marks + - ."
    )
    if family is not Family.DEBIAN:
        node.refuse_key(f"only the family {Family.DEBIAN} is made of packages here")
    if not suite:
        node.refuse_key("it needs the key `suite`: what the packages are taken from")
    return kernel or None


def _rootfs(node: Node, asked: Node | None, media: Mapping[MediumKind, Medium], family: Family) -> MediumKind | None:
    """Return which medium the root filesystem is taken from: the one that is asked for, or the only one that can."""
    able = [kind for kind in media if kind is not MediumKind.ISO or family.iso_holds_rootfs]
    if asked is not None:
        word = asked.text()
        if word and word not in able:
            asked.refuse(f"it must be a medium that holds a root filesystem; there are: {', '.join(able) or 'none'}")
        return MediumKind(word) if word in able else None
    if len(able) > 1:
        node.refuse(f"the key 'rootfs' must say which it is taken from: {' or '.join(able)}")
    return able[0] if len(able) == 1 else None


def _medium(node: Node, kind: MediumKind) -> Medium:
    fields = node.fields(("mirrors", "file"), ("checksums", "max_size"))
    checksums = _checksums(fields["checksums"]) if "checksums" in fields else None
    file = _matching(
        fields.get("file"),
        FILE if checksums is None else _PATTERN,
        "it must be the name of a file, of letters, digits and . _ + ~ -"
        + ("; * needs signed checksums to choose by" if checksums is None else "; * stands for anything"),
    )
    mirrors = tuple(map(_url, fields["mirrors"].items())) if "mirrors" in fields else ()
    if not mirrors and checksums is not None and "mirrors" in fields:
        fields["mirrors"].refuse("it must name a mirror: the checksums are fetched from there")
    return Medium(
        kind=kind,
        mirrors=mirrors,
        file=file,
        checksums=checksums,
        max_size=_size(fields["max_size"]) if "max_size" in fields else DEFAULT_MAX_SIZE,
    )


def _checksums(node: Node) -> Checksums:
    fields = node.fields(("file", "keys"), ("signature",))
    wanted = "it must be the name of a file; {file} stands for the medium's"
    keys = fields["keys"].items() if "keys" in fields else []
    if not keys and "keys" in fields and isinstance(fields["keys"].content, list):
        fields["keys"].refuse("it must name the fingerprint of a key")
    return Checksums(
        file=_matching(fields.get("file"), _LIST, wanted),
        signature=_matching(fields.get("signature"), _LIST, wanted) or None,
        keys=tuple(_matching(key, FINGERPRINT, "a fingerprint has 40 digits 0-9 A-F, no blanks") for key in keys),
    )


def _family(node: Node | None) -> Family:
    word = node.text() if node is not None else ""
    if node is not None and word and word not in set(Family):
        node.refuse(f"there is no family {word!r}; there are: {', '.join(Family)}")
    return Family(word) if word in set(Family) else Family.DEBIAN  # whatever: the fault is noted


def _matching(node: Node | None, pattern: re.Pattern[str], wanted: str) -> str:
    """Return a text of the right form; an empty one if there is none, or, after adding a fault, another."""
    text = node.text() if node is not None else ""
    if node is not None and text and not pattern.match(text):
        node.refuse(f"{text!r:.80} is not right: {wanted}")
        return ""
    return text


def _line(node: Node | None) -> str:
    text = node.text() if node is not None else ""
    if node is not None and text and (len(text) > 120 or not text.isprintable()):
        node.refuse("it must be one line of at most 120 characters")
    return text


def _url(node: Node, *, placeholder: str = "") -> str:
    text = node.text()
    if not text:
        return ""
    if not _is_web(text):
        node.refuse(f"{text!r:.80} is not right: it must be an http or https URL")
    elif set("?#@") & set(text) or "/../" in text:
        node.refuse(f"{text!r:.80} is not right: a base URL has no user, no ? and # and no ..")
    elif not text.endswith("/"):
        node.refuse(f"{text!r:.80} is not right: a base URL ends with a slash")
    elif set("{}") & set(text.replace(placeholder, "") if placeholder else text):
        node.refuse(f"{text!r:.80} is not right: there is nothing to put in for what is in braces")
    return text


def _is_web(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0 and bool(_URL_TEXT.match(text))
    except ValueError:  # a port that is no number, half of an IPv6 address
        return False


def _size(node: Node) -> int:
    match = _SIZE.match(node.text())
    if match is None:
        node.refuse("it must be a size such as 4 GiB (KiB, MiB, GiB or TiB)")
        return DEFAULT_MAX_SIZE
    return int(match[1]) * _FACTORS[match[2]]
