"""What ``distro.add`` does: a medium somewhere becomes a definition and a lock entry."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cli.distro_verbs import locked_as, shown_by, trust_once
from cli.output import say
from contracts.arch import Arch
from distros import authoring, registry
from distros.authoring import NewRelease
from distros.definition import FILE, NAME
from distros.family import Family
from distros.release import Locked, Medium, MediumKind
from lab.progress import Reporter, open_reporter
from pipeline.commit import publish
from pipeline.digests import file_digest
from pipeline.engine.lock import hold, lock_wait
from pipeline.errors import ChecksumError, ConflictError, NotFoundError, UsageError
from pipeline.fetch.addresses import require_url
from pipeline.fetch.asset import Algorithm, Asset, Digest
from pipeline.fetch.store import Store, obtain
from pipeline.media import disc
from pipeline.media.recognize import (
    DiscFacts,
    MediumFormat,
    NameFacts,
    UnknownMediumError,
    guess_from_name,
    recognize_disc,
    recognize_format,
)
from pipeline.recipes import graph as recipes
from pipeline.reporting.wording import format_size
from pipeline.workspace import Cache, Workspace

_KINDS = {
    MediumFormat.ISO: MediumKind.ISO,
    MediumFormat.QCOW2: MediumKind.CLOUD_IMAGE,
    MediumFormat.DISK: MediumKind.CLOUD_IMAGE,
    MediumFormat.TARBALL: MediumKind.ROOTFS_TARBALL,
}
_PACKED_DISK = re.compile(r"\.(img|raw|qcow2|iso|vmdk|vdi)\.(gz|xz|zst|bz2)\Z", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the person says; empty for what is to be found out. :ivar sha256: what the medium must have."""

    name: str = ""
    title: str = ""
    family: str = ""
    arch: str = ""
    sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Facts:
    """What was found out of a medium. :ivar use: what it is good for, in words."""

    kind: MediumKind
    name: str
    title: str
    family: str
    arch: Arch | None
    use: str


def add(source: str, wishes: Wishes) -> None:
    """Take an ISO, a cloud image or an archive of a root filesystem, and define a release of it.

    The same file once more puts it back into the cache, if it was lost there.

    :param source: its address, or a file of this host.
    :raises UsageError: if it cannot be told what it is. :raises ConflictError: if there is such a release already.
    :raises NotFoundError: if there is no such file. :raises PvmlabError: if it cannot be fetched or read.
    """
    _check(wishes)
    folder, cache = authoring.folder_for_new(), Workspace.from_environment().cache
    is_address = "://" in source
    if is_address and wishes.name in registry.releases():  # before much is downloaded in vain
        raise ConflictError(f"there is a distribution {wishes.name!r} already", resolution="--name gives another name")
    if is_address:
        require_url(source)
    else:
        _require_file(source)
    # held: a build's sweep would take what is half-written for a leftover
    with hold(cache, wait=lock_wait(), tell=say), open_reporter() as reporter:
        mirrors, locked = (_fetch if is_address else _take)(source, wishes, cache, reporter)
        reporter.show(f"looking what {locked.file} is")
        facts = _inspect(Store(cache).place(locked.sha256, locked.file), wishes)
    medium = Medium(kind=facts.kind, mirrors=mirrors, file=locked.file)
    new = _new_release(facts, wishes, medium, locked)
    if _is_known(new):
        say(f"{new.name} is defined so already; {locked.file} is in the cache")
        return
    path = authoring.define(new, folder=folder)
    recipes.reload()
    say(f"{new.name}: {new.title}, {new.arch}, {facts.kind} ({facts.use}), {format_size(locked.size)}")
    say(f"sha256 {locked.sha256}" + ("" if wishes.sha256 else ": compare it with what the distribution publishes"))
    say(f"wrote {path} and its entry in {folder / 'lock.yaml'}")
    if not mirrors:
        say("it has no address to fetch it from again: keep the file")
    say(f"./pvmlab distro.pull {new.name} --arch {new.arch} makes of it what installs need")


def _check(wishes: Wishes) -> None:
    if wishes.name and not NAME.match(wishes.name):
        raise UsageError(f"--name {wishes.name!r} is no name", resolution="use a-z, 0-9, dots and hyphens")
    if wishes.family and wishes.family not in set(Family):
        raise UsageError(f"--family {wishes.family!r} is unknown", resolution=f"use one of: {', '.join(Family)}")
    if wishes.arch and wishes.arch not in set(Arch):
        raise UsageError(f"--arch {wishes.arch!r} is unknown", resolution=f"use one of: {', '.join(Arch)}")
    if wishes.sha256:
        Digest(Algorithm.SHA256, wishes.sha256)


def _fetch(url: str, wishes: Wishes, cache: Cache, reporter: Reporter) -> tuple[tuple[str, ...], Locked]:
    """Download *url*; return its mirror and what came."""
    mirror, _, last = url.rpartition("/")
    file = _file_name(unquote(last))
    if urlsplit(url).query or urlsplit(url).fragment or "@" in urlsplit(url).netloc or file != last:
        raise UsageError(
            "the address of a medium ends with its name, and holds no user, no ? and no #",
            resolution="download it by other means, then ./pvmlab distro.add FILE",
        )
    medium = Medium(kind=MediumKind.ISO, mirrors=(f"{mirror}/",), file=file)
    if not wishes.sha256:
        return medium.mirrors, trust_once(medium, cache, what=file, reporter=reporter)
    asset = Asset(name=file, urls=(url,), digests=(Digest(Algorithm.SHA256, wishes.sha256),), max_size=medium.max_size)
    return medium.mirrors, locked_as(obtain(asset, store=Store(cache), listener=shown_by(reporter)))


def _require_file(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise NotFoundError(
            f"there is no file {source}", resolution="an address begins with https://, a file is named by its path"
        )
    return path


def _take(source: str, wishes: Wishes, cache: Cache, reporter: Reporter) -> tuple[tuple[str, ...], Locked]:
    """Copy a file of this host into the store; return no mirror and what it is."""
    path = _require_file(source)
    file = _file_name(path.name)
    reporter.show(f"reading {file}")
    sha256 = file_digest(path)
    if wishes.sha256 and sha256 != wishes.sha256:
        raise ChecksumError(f"{file} is not what --sha256 says", details=f"its sha256 is {sha256}")
    store = Store(cache)
    if not (stored := store.place(sha256, file)).is_file():
        with publish(stored) as temporary:
            shutil.copyfile(path, temporary)
            if file_digest(temporary) != sha256:
                raise ChecksumError(
                    f"{file} changed while it was read", resolution="try again when nobody writes to it"
                )
    return (), Locked(file=file, sha256=sha256, size=stored.stat().st_size)


def _file_name(name: str) -> str:
    if not FILE.match(name):
        raise UsageError(
            f"{name!r:.80} is no name for a medium: use letters, digits and . _ + ~ -", resolution="rename the file"
        )
    return name


def _inspect(path: Path, wishes: Wishes) -> _Facts:
    """Return what a medium is.

    :raises UsageError: if nothing can be made of it. :raises UnknownMediumError: if it cannot be told what it is.
    """
    if _PACKED_DISK.search(path.name):
        raise UsageError(f"{path.name} is compressed", resolution="unpack it, then ./pvmlab distro.add FILE")
    kind = _KINDS[recognize_format(path)]
    by_name = guess_from_name(path.name)
    if kind is MediumKind.ISO:
        return _inspect_disc(path, wishes, by_name)
    use = "a root filesystem" if kind is MediumKind.ROOTFS_TARBALL else "a system"
    return _Facts(
        kind=kind, name=_joined(by_name.distribution, by_name.version), title=by_name.title, family=by_name.family,
        arch=by_name.arch, use=use,
    )  # fmt: skip


def _inspect_disc(path: Path, wishes: Wishes, by_name: NameFacts) -> _Facts:
    found = disc.inspect(path)
    try:
        facts = recognize_disc(DiscFacts(volume_id=found.volume_id, members=found.members, read=found.read))
    except UnknownMediumError:
        if not (wishes.family and wishes.name):
            raise
        return _Facts(kind=MediumKind.ISO, name=wishes.name, title=wishes.name, family=wishes.family, arch=by_name.arch,
                      use="not recognized: as --family says")  # fmt: skip
    if wishes.arch and wishes.arch != facts.arch:
        raise UsageError(f"{path.name} is for {facts.arch}, not {wishes.arch}")
    uses = [
        *(["a root filesystem"] if facts.holds_rootfs else []),
        *(["its own installer"] if facts.holds_installer else []),
    ]
    if not uses:
        raise UsageError(
            f"{path.name} is {facts.title}, and nothing pvmlab could use is on it",
            details=f"neither a system to take a root filesystem from, nor an installer that it can drive; volume "
            f"{facts.volume_id!r}",
            resolution="use the distribution's cloud image, or an archive of a root filesystem",
        )
    return _Facts(
        kind=MediumKind.ISO, name=_joined(facts.distribution, facts.version), title=facts.title, family=facts.family,
        arch=facts.arch, use=" and ".join(uses),
    )  # fmt: skip


def _new_release(facts: _Facts, wishes: Wishes, medium: Medium, locked: Locked) -> NewRelease:
    """Return the release: what the person says counts, then what was found out.

    :raises UsageError: for what is neither said nor known.
    """
    name, family = wishes.name or facts.name, wishes.family or facts.family
    arch = Arch(wishes.arch) if wishes.arch else facts.arch
    if not name or not family or arch is None:
        unknown = [option for option, value in (("--name", name), ("--family", family), ("--arch", arch)) if not value]
        raise UsageError(
            f"it cannot be told what {medium.file} is",
            details="neither its content nor its name says it",
            resolution=f"say it: {' '.join(unknown)}",
        )
    title = wishes.title or facts.title or name
    return NewRelease(name=name, title=title, family=Family(family), arch=arch, medium=medium, locked=locked)


def _is_known(new: NewRelease) -> bool:
    """Tell whether the very same medium is that of a release of that name."""
    release = registry.releases().get(new.name)
    return release is not None and release.locked.get((new.arch, new.medium.kind)) == new.locked


def _joined(distribution: str, version: str) -> str:
    return f"{distribution}-{version}" if distribution and version else ""
