"""What a medium is: which distribution's installer a disc holds, and of what format a file is.

A disc says what it is in small files of its own. Each kind is told by the files that only it has:

- Ubuntu and Debian: ``.disk/info``, one line (``Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (...)``);
  Ubuntu's systems are squashfs files under ``casper/``, Debian's installer is in ``install.amd`` or ``install.a64``.
- Fedora and what is built like it: ``.treeinfo``, an INI file with a section ``general`` or ``release``; what that
  leaves out is in ``.discinfo`` (time, version, architecture, a line each) and in the volume id.
- openSUSE: ``media.1/products`` (YaST), or ``LiveOS/squashfs.img`` and the volume id (Agama).
- Alpine: ``.alpine-release``.

Nothing is concluded from a file's name alone, except the defaults of :func:`guess_from_name`.
"""

from __future__ import annotations

import configparser
import dataclasses
import enum
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from contracts.arch import Arch
from pipeline.errors import PvmlabError

LONGEST_NOTE = 64 << 10  # bytes; of the files that say what a disc is. A whole DVD's .treeinfo has some 3 KiB
_ARCHES = {"amd64": Arch.X86_64, "x86_64": Arch.X86_64, "arm64": Arch.AARCH64, "aarch64": Arch.AARCH64}
_DISK_INFO = re.compile(r"(?P<name>[A-Za-z][A-Za-z /-]*?)[ ](?P<version>\d+(?:\.\d+)*)(?P<rest>.*)", re.DOTALL)
_NAMES = re.compile(
    r"(?P<ubuntu>ubuntu-)|(?P<debian>debian-)|(?P<fedora>fedora-[a-z-]*?)|(?P<rocky>rocky-)|(?P<alma>almalinux-)"
    r"|(?:[a-z]+_)?(?P<alpine>alpine-[a-z-]*?)|(?P<opensuse>(?:opensuse-)?leap-)|(?P<centos>centos-[a-z-]*?)|(?P<rhel>rhel-)"
)  # fmt: skip
_TITLES = {
    "ubuntu": "Ubuntu", "debian": "Debian", "fedora": "Fedora Linux", "rocky": "Rocky Linux", "alma": "AlmaLinux OS",
    "centos": "CentOS Stream", "rhel": "Red Hat Enterprise Linux", "alpine": "Alpine Linux",
    "opensuse-leap": "openSUSE Leap",
}  # fmt: skip
_FAMILIES = {
    "ubuntu": "ubuntu", "debian": "debian", "fedora": "fedora", "rocky": "fedora", "alma": "fedora", "centos": "fedora",
    "rhel": "fedora", "alpine": "alpine", "opensuse-leap": "suse",
}  # fmt: skip
# As .treeinfo and volume ids call them, in lower case, without what follows.
_RED_HATS = {"fedora": "fedora", "rocky": "rocky", "almalinux": "alma", "centos": "centos", "red": "rhel",
             "rhel": "rhel"}  # fmt: skip


class MediumFormat(enum.StrEnum):
    """Of what format a file is, by its first bytes."""

    ISO = "ISO 9660 or UDF disc"
    QCOW2 = "qcow2 disk image"
    DISK = "raw disk image"
    TARBALL = "tar archive"


class UnknownMediumError(PvmlabError):
    """It cannot be told what a medium is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognized:
    """What a disc is.

    :ivar distribution: ``ubuntu``, ``rocky``. :ivar family: what it is built like, as definitions name it.
    :ivar version: ``24.04``, without the number of a respin. :ivar title: for people.
    :ivar holds_rootfs: whether a root filesystem can be taken from it. :ivar holds_installer: whether its own
        installer can be started from it.
    """

    distribution: str
    version: str
    title: str
    family: str
    arch: Arch
    volume_id: str
    holds_rootfs: bool
    holds_installer: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscFacts:
    """What is known of a disc before any of it is extracted.

    :ivar members: its files with their sizes. :ivar read: gives the content of a small one.
    """

    volume_id: str
    members: Mapping[str, int]
    read: Callable[[str], bytes]

    def note(self, path: str) -> str | None:
        """Return the text of a small file, or None if there is none.

        :raises UnknownMediumError: if it is too large to be what it should be.
        """
        size = self.members.get(path)
        if size is None:
            return None
        if size > LONGEST_NOTE:
            raise UnknownMediumError(f"{path} on the disc has {size} bytes, at most {LONGEST_NOTE} are read")
        return self.read(path).decode("utf-8", errors="replace")


@dataclasses.dataclass(frozen=True)
class NameFacts:
    """What a file's name says, which may be wrong; None or empty if it does not."""

    distribution: str = ""
    version: str = ""
    arch: Arch | None = None

    @property
    def family(self) -> str:
        """The family of the distribution."""
        return _FAMILIES.get(self.distribution, "")

    @property
    def title(self) -> str:
        """A title for people."""
        return f"{_TITLES[self.distribution]} {self.version}".rstrip() if self.distribution else ""


def recognize_disc(disc: DiscFacts) -> Recognized:
    """Return what *disc* is.

    :raises UnknownMediumError: if it is none of those that are known; it says what was looked for.
    """
    for recognizer in (_disk_info, _red_hat, _alpine, _suse):
        if (found := recognizer(disc)) is not None:
            return found
    top = sorted({path.split("/", 1)[0] for path in disc.members})
    raise UnknownMediumError(
        f"it cannot be told what the disc {disc.volume_id!r} holds",
        details="none of these says it: .disk/info (Ubuntu, Debian), .treeinfo or .discinfo (Fedora, Rocky, Alma, "
        "RHEL), .alpine-release, media.1/products or LiveOS (openSUSE)\n"
        f"there is: {', '.join(top[:20]) or 'nothing'}{' ...' if len(top) > 20 else ''}",
        resolution="an installer disc of those distributions can be used; of others their cloud image",
    )


def recognize_format(path: Path) -> MediumFormat:
    """Return of what format the file *path* is, by its content.

    :raises UnknownMediumError: if it is none that can be used.
    """
    with path.open("rb") as stream:
        head = stream.read(64 << 10)
    # ISO first: discs that can be written to a USB stick have a partition table, too
    if any(head[2048 * sector + 1 :].startswith((b"CD001", b"BEA01")) for sector in range(16, 20)):
        return MediumFormat.ISO
    if head.startswith(b"QFI\xfb"):  # docs/interop/qcow2.rst of QEMU
        return MediumFormat.QCOW2
    if head.startswith((b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh")) or head[257:262] == b"ustar":
        return MediumFormat.TARBALL
    if head[510:512] == b"\x55\xaa" or head[512:520] == b"EFI PART" or head[1080:1082] == b"\x53\xef":
        return MediumFormat.DISK
    raise UnknownMediumError(
        f"it cannot be told what {path.name} is",
        details=f"it is no ISO, qcow2, disk image or tar; it begins with {head[:24]!r}",
        resolution="an installer ISO, a cloud image (qcow2 or raw) or a tar archive of a root filesystem can be used",
    )


def guess_from_name(name: str) -> NameFacts:
    """Return what the name of a cloud image or an archive says, as far as it follows the distribution's habit."""
    text = name.lower()
    arch = next((arch for word, arch in _ARCHES.items() if re.search(rf"(?<![a-z0-9]){word}(?![a-z0-9])", text)), None)
    match = _NAMES.match(text)
    if match is None:
        return NameFacts(arch=arch)
    distribution = {"opensuse": "opensuse-leap"}.get(str(match.lastgroup), str(match.lastgroup))
    version = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)(?!\d)", text[match.end() :])
    return NameFacts(distribution, _version(distribution, version[1]) if version else "", arch)


def _disk_info(disc: DiscFacts) -> Recognized | None:
    """Recognize Ubuntu and Debian."""
    text = disc.note(".disk/info")
    match = _DISK_INFO.match(text.strip()) if text is not None else None
    if match is None:
        return None
    distribution = next((word for word in ("ubuntu", "debian") if match["name"].lower().startswith(word)), "")
    arch = _arch_in(match["rest"])
    if not distribution or arch is None:
        return None
    layered = any(path.startswith("casper/") and path.endswith(".squashfs") for path in disc.members)
    folder = {Arch.X86_64: "install.amd", Arch.AARCH64: "install.a64"}[arch]
    is_lts = distribution == "ubuntu" and " LTS" in match["rest"]
    return _recognized(
        disc,
        distribution,
        match["version"],
        arch,
        title=f"Ubuntu {_version('ubuntu', match['version'])} LTS" if is_lts else "",
        rootfs=layered,
        installer=not disc.members.keys().isdisjoint({"casper/vmlinuz", f"{folder}/vmlinuz"}),
    )


def _red_hat(disc: DiscFacts) -> Recognized | None:
    """Recognize Fedora and what is built like it."""
    treeinfo, discinfo = disc.note(".treeinfo"), disc.note(".discinfo")
    name, version, word = _read_treeinfo(treeinfo) if treeinfo is not None else ("", "", "")
    lines = [line.strip() for line in (discinfo or "").splitlines()]
    if len(lines) >= 3:
        name, version, word = name or disc.volume_id, version or lines[1], word or lines[2]
    distribution = _RED_HATS.get(re.split(r"[\W_]", name.lower(), maxsplit=1)[0], "")
    arch = _arch_in(word)
    if not distribution or arch is None or not re.match(r"\d", version):
        return None
    installer = {"images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"} <= disc.members.keys()
    return _recognized(disc, distribution, version, arch, installer=installer)


def _read_treeinfo(text: str) -> tuple[str, str, str]:
    """Return name, version and architecture in a ``.treeinfo``, empty ones if it is broken."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return "", "", ""
    sections = ("general", "family", "version", "arch"), ("release", "name", "version", "")  # of formats 0 and 1
    for section, *keys in sections:
        if parser.has_section(section):
            name, version, arch = (parser.get(section, key, fallback="") for key in keys)
            return name, version, arch or parser.get("tree", "arch", fallback="")
    return "", "", ""


def _alpine(disc: DiscFacts) -> Recognized | None:
    text = disc.note(".alpine-release")
    match = re.match(r"alpine-\w+[- ](\d+\.\d+)", text.strip()) if text is not None else None
    arch = next(
        (arch for word, arch in _ARCHES.items() if any(p.startswith(f"apks/{word}/") for p in disc.members)), None
    )
    return _recognized(disc, "alpine", match[1], arch) if match is not None and arch is not None else None


def _suse(disc: DiscFacts) -> Recognized | None:
    """Recognize openSUSE Leap. Its installers are not driven, nor is a root filesystem taken from them."""
    products = disc.note("media.1/products") or ""
    if not products and "LiveOS/squashfs.img" not in disc.members:
        return None
    text = f"{products} {disc.volume_id}"
    match = re.search(r"leap[ _-](?:[a-z-]*)(\d+\.\d+)", text, re.IGNORECASE)
    arch = _arch_in(text) or next(
        (arch for word, arch in _ARCHES.items() if f"boot/{word}/loader/linux" in disc.members), None
    )
    return _recognized(disc, "opensuse-leap", match[1], arch) if match is not None and arch is not None else None


def _recognized(
    disc: DiscFacts, distribution: str, version: str, arch: Arch, *, title: str = "", rootfs: bool = False,
    installer: bool = False,
) -> Recognized:  # fmt: skip
    version = _version(distribution, version)
    return Recognized(
        distribution=distribution,
        version=version,
        title=title or f"{_TITLES[distribution]} {version}",
        family="ubuntu" if rootfs else _FAMILIES[distribution],  # whatever it is called, it is laid out like Ubuntu
        arch=arch,
        volume_id=disc.volume_id,
        holds_rootfs=rootfs,
        holds_installer=installer,
    )


def _version(distribution: str, text: str) -> str:
    """Return what a release is known by: 24.04 of 24.04.3, 9 of 9.8, 12 of 12.5.0, 3.24 of 3.24.2."""
    kept = 2 if distribution in {"ubuntu", "alpine", "opensuse-leap"} else 1
    return ".".join(text.split(".")[:kept])


def _arch_in(text: str) -> Arch | None:
    return next((_ARCHES[word] for word in re.findall(r"[a-z0-9_]+", text.lower()) if word in _ARCHES), None)
