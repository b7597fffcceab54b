"""Installs by the distributions' own installers: which one, with whose answers, in how much memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from contracts.answers import IN_MEMORY, MAX_OWN_BYTES, MEMORY_BESIDES_MIB
from contracts.arch import Arch
from contracts.machine import AnswerFile, Installer, VmDefinition
from contracts.mirror import find_mirror
from distros.release import MediumKind, Release
from pipeline.errors import NotFoundError, PrerequisiteError, UsageError
from pipeline.workspace import Cache

TEMPLATE_SUFFIX = ".j2"
_REPORTS = "report"  # what an answer file that tells how it goes has in it somewhere


@dataclasses.dataclass(frozen=True)
class OwnAnswers:
    """An answer file that a person wrote. :ivar kind: verbatim or template."""

    text: str
    kind: AnswerFile

    @property
    def tells_its_end(self) -> bool:
        """Whether it seems to report; what cannot be extended from outside (autoinstall) must do that itself."""
        return _REPORTS in self.text


def read_answers(path: Path) -> OwnAnswers:
    """Return the answer file *path*: a Jinja2 template if its name ends in ``.j2``.

    :raises NotFoundError: if it cannot be read. :raises UsageError: if it cannot be an answer file.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_OWN_BYTES + 1)
    except OSError as error:
        raise NotFoundError(
            f"the answer file {path} cannot be read",
            details=error.strerror or str(error),
            resolution="name a file that is there; docs/reference/answer-files.md says what it holds",
        ) from None
    if len(data) > MAX_OWN_BYTES:
        raise UsageError(
            f"the answer file {path.name} is longer than {MAX_OWN_BYTES // 1024} KiB",
            resolution="have it fetch what is large when it runs",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"the answer file {path.name} is not UTF-8: {error.reason} at byte {error.start}") from None
    if "\0" in text or not text.strip():
        raise UsageError(f"the answer file {path.name} is {'no text' if text.strip() else 'empty'}")
    if path.suffix != TEMPLATE_SUFFIX:
        return OwnAnswers(text, AnswerFile.VERBATIM)
    _require_syntax(text, path)
    return OwnAnswers(text, AnswerFile.TEMPLATE)


def _require_syntax(text: str, path: Path) -> None:
    """Refuse what is no template at all; what its values are, only the boot handler knows."""
    from jinja2 import TemplateSyntaxError  # noqa: PLC0415 (few need it)
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    try:
        ImmutableSandboxedEnvironment(autoescape=False).parse(text)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"the answer file {path.name} is no Jinja2 template: line {error.lineno}: {error.message}",
            resolution=f"without {TEMPLATE_SUFFIX} at the end of its name it is taken as it is",
        ) from None


def native_installer(release: Release, arch: Arch) -> Installer:
    """Return which installer is the own one of *release*.

    :raises UsageError: if it has none that pvmlab can drive, or does not say where that comes from.
    """
    native, sources = release.family.native, release.sources[arch]
    if native is None or not (sources.installer_package or MediumKind.ISO in sources.media):
        raise UsageError(
            f"{release.name} has no installer of its own for {arch} that pvmlab can drive",
            resolution="leave out --installer and --answer-file: pvmlab's installer does it",
        )
    return native.kind


def find_repository(release: Release, arch: Arch) -> str:
    """Return the base URL of the release's packages, for its own installer; empty if it names none."""
    return release.repository.replace("{arch}", str(arch))


def require_sources(definition: VmDefinition) -> None:
    """Check that the lab's own answer file for *definition* can say where packages come from.

    :raises PrerequisiteError: if it cannot.
    """
    if definition.answer_file is not AnswerFile.LAB:
        return
    if definition.installer is Installer.PRESEED and find_mirror(definition.package_sources) is None:
        raise PrerequisiteError(
            "debian-installer needs a Debian mirror that is reached by HTTP, and this host knows none",
            resolution="see docs/how-to/choose-the-mirror.md, or leave out --installer",
        )
    if definition.installer is Installer.KICKSTART and not definition.repository:
        raise PrerequisiteError(
            f"the definition of {definition.distro} names no repository of packages for its installer",
            resolution="write `repository:` into it, or bring your own file with --answer-file",
        )


def require_memory(definition: VmDefinition, cache: Cache, release: Release) -> None:
    """Check that the machine has room for what its installer keeps in memory, as far as that size is known.

    :raises UsageError: if it has not.
    """
    kept = _bytes_kept(definition, cache, release)
    needed = -(-kept // (1 << 20)) + MEMORY_BESIDES_MIB
    if kept and definition.memory_mib < needed:
        name = definition.name
        raise UsageError(
            f"{name} has {definition.memory_mib} MiB of memory, and the installer of {release.name} needs {needed} MiB",
            details=f"it keeps {IN_MEMORY[definition.installer]} in memory and works in {MEMORY_BESIDES_MIB} MiB "
            "beside it",
            resolution=f"--memory={-(-needed // 1024)}G: of vm.create, or of vm.set if {name} is there already",
        )


def _bytes_kept(definition: VmDefinition, cache: Cache, release: Release) -> int:
    """Return the size of what the installer keeps in memory: of the file, or as the lock says; 0 if unknown."""
    kept = IN_MEMORY.get(definition.installer)
    if kept is None:
        return 0
    path = cache.image(release.name, definition.arch, f"native/{kept}")
    if path.exists():
        return path.stat().st_size
    locked = release.locked.get((definition.arch, MediumKind.ISO))
    return locked.size if locked is not None and release.family.native and release.family.native.wants_iso else 0
