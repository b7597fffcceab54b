"""A disc laid out as Ubuntu's live-server ISO, made of Debian packages that the artifacts' cache has already.

::

    rootfs:debian-12 ─┬─ without kernel, bootloader, server ──────> casper/ubuntu-server-minimal.squashfs
                      ├─ without kernel, bootloader ──difference──> casper/ubuntu-server-minimal.ubuntu-server.squashfs
                      └─ the packages that were removed ──────────> dists/, pool/, signed

Kept in ``<cache>/tests/live-server`` as the artifact it is, so that it is made once for many test sessions.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from contracts.arch import Arch
from distros.registry import require_release
from lab.journey import DEFAULT_DISTRO
from pipeline.artifact import Artifact, Making
from pipeline.debian.mmdebstrap import installed_packages
from pipeline.debian.package_set import Package, parse_package, render_manifest
from pipeline.debian.rootfs import decompress
from pipeline.recipes import distribution
from pipeline.recipes.packages import fetch, manifest_path
from pipeline.run import run
from pipeline.workspace import Cache, in_repository
from tests.fakes.discs import BIOS_IMAGE, BIOS_LOADED, EFI_IMAGE, EFI_SIZE, make_iso, noise
from tests.fakes.overlay_layer import write_layer
from tests.fakes.signer import Signer

ARCH = Arch.X86_64
SUITE = "bookworm"
ISO_NAME = "debian-12.9-live-server-amd64.iso"
INFO = 'Debian-Server 12.9 LTS "Bookworm Box" - Release amd64 (20250805.1)'
MINIMAL, SERVER = "ubuntu-server-minimal", "ubuntu-server-minimal.ubuntu-server"
META_PACKAGE = "linux-generic"  # Ubuntu's name for what Debian calls linux-image-amd64
# No layer of Ubuntu's has these; the disc has their packages.
BOOT_PACKAGES = (
    "linux-image-*", "initramfs-tools", "grub-efi-amd64-signed", "grub-efi-amd64-bin", "grub2-common", "grub-common",
    "shim-signed", "shim-signed-common", "shim-unsigned", "mokutil",
)  # fmt: skip
SERVER_PACKAGES = ("cloud-init", "openssh-server", "cloud-guest-utils", "python3", "fdisk")
# In the minimal layer, not in the server's: the first is whited out, the second removed and made anew (opaque).
GONE_PACKAGE, RENEWED_FOLDER = "less", "usr/share/renewed"
# What the layers have that an installed machine must not.
TRACES = {
    "etc/ssh/ssh_host_ed25519_key": "of all machines\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/cloud/cloud-init.disabled": "",
    "etc/cloud/cloud.cfg.d/99-installer.cfg": "datasource_list: [None]\n",
    "etc/apt/sources.list.d/cdrom.sources": "Types: deb\nURIs: file:/cdrom\nSuites: bookworm\nComponents: main\n",
    "var/lib/systemd/random-seed": "not random",
    "var/log/installer.log": "made on a host\n",
}
_TIMEOUT = 600.0
_EPOCH = 1_754_352_000  # 2025-08-05, later than the packages: what Ubuntu's discs are, too
_LAYER_TIME = {"SOURCE_DATE_EPOCH": str(_EPOCH)}
_COMPRESSION = ("-comp", "zstd", "-Xcompression-level", "1", "-quiet", "-no-progress")
_UNPACK = (
    'rm -rf "$1"/etc "$1"/var && tar --extract --file "$PVMLAB_BASE" --directory "$1" --numeric-owner '
    "--preserve-permissions --xattrs '--xattrs-include=*'"
)
_CHANGE = """\
set -eu
exec >&2
chroot "$1" apt-get purge --yes --autoremove --allow-remove-essential --option DPkg::Options::=--force-unsafe-io \\
    $PVMLAB_PURGED
rm -rf "$1"/boot/* "$1"/var/log/*.log "$1"/var/log/apt/* "$1"/var/lib/initramfs-tools "$1"/usr/lib/modules
cp -a "$PVMLAB_ADDED"/. "$1"
chown -R 0:0 "$1"/etc/cloud "$1"/etc/ssh "$1"/usr/share/keyrings "$1/usr/share/renewed"
mkdir -p "$1/etc/apt/apt.conf.d"
: > "$1/etc/apt/apt.conf.d/00mmdebstrap"
"""


@dataclasses.dataclass(frozen=True)
class LiveIso:
    """The disc and what is published beside it."""

    folder: Path

    @property
    def iso(self) -> Path:
        """The disc."""
        return self.folder / ISO_NAME

    @property
    def checksums(self) -> Path:
        """Its digest, as ``sha256sum`` writes it."""
        return self.folder / "SHA256SUMS"

    @property
    def signature(self) -> Path:
        """The detached signature of that."""
        return self.folder / "SHA256SUMS.gpg"

    @property
    def key(self) -> Path:
        """The key that signed it, armored."""
        return self.folder / "key.asc"

    @property
    def fingerprint(self) -> str:
        """That of the key: 40 hex digits, upper case."""
        return (self.folder / "fingerprint").read_text().strip()


def ensure_live_iso(cache: Cache) -> LiveIso:
    """Return the disc, made now if it is not in the cache; the artifacts of :data:`DEFAULT_DISTRO` must be there."""
    artifact = live_iso(cache)
    if artifact.reasons():
        artifact.build()
    return LiveIso(artifact.targets[0].parent)


def live_iso(cache: Cache) -> Artifact:
    """Return the task that makes the disc."""
    place = LiveIso(cache.root / "tests" / "live-server")
    release = require_release(DEFAULT_DISTRO, ARCH)
    wanted = distribution.package_set(release, ARCH)
    base, kernel, initrd = (cache.image(DEFAULT_DISTRO, ARCH, name) for name in ("rootfs.tar.zst", "vmlinuz", "initrd"))

    def make(making: Making) -> Mapping[str, Any]:
        packages, debs = fetch(wanted, cache, making)
        disc = _Disc(making, dict(zip(packages, debs, strict=True)))
        return disc.write(base, kernel=kernel, initrd=initrd, place=place)

    return Artifact(
        name="test-live-iso",
        doc="a disc for the tests, laid out as Ubuntu's live-server",
        cache=cache,
        targets=(place.iso, place.checksums, place.signature, place.key, place.folder / "fingerprint"),
        inputs=(base, kernel, initrd, manifest_path(wanted, cache)),
        sources=in_repository("tests/fakes/discs.py", "tests/fakes/live_iso.py", "tests/fakes/overlay_layer.py"),
        make=make,
    )


class _Disc:
    """The disc as it is made in a scratch folder."""

    def __init__(self, making: Making, debs: Mapping[Package, Path]) -> None:
        self._making, self._debs = making, debs
        self._scratch, self._tree = making.scratch, making.scratch / "disc"
        self._tree.mkdir()

    def write(self, base: Path, *, kernel: Path, initrd: Path, place: LiveIso) -> Mapping[str, Any]:
        signer = Signer()
        try:
            fingerprint = signer.make_key("Test CD Image <cdimage@example.org>")
            key = signer.export(fingerprint, self._scratch)
            facts = self._layers(base, key)
            self._archive(self._scratch / "server.tar", lambda text, **how: signer.sign(text, fingerprint, **how))
            self._catalog(kernel, initrd)
            outputs = self._making.outputs
            make_iso(
                self._tree, outputs[place.iso], "-rational-rock", "-joliet", "-joliet-long",
                label="Debian-Server 12.9 LTS amd64",
            )  # fmt: skip
            with outputs[place.iso].open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            checksums = f"{digest} *{ISO_NAME}\n".encode()
            outputs[place.checksums].write_bytes(checksums)
            outputs[place.signature].write_bytes(signer.sign(checksums, fingerprint))
            shutil.copyfile(key, outputs[place.key])
            outputs[place.folder / "fingerprint"].write_text(f"{fingerprint}\n")
        finally:
            signer.close()
        return facts

    def _layers(self, base: Path, key: Path) -> Mapping[str, Any]:
        plain, added = self._scratch / "base.tar", self._scratch / "added"
        decompress(base, plain)
        keyring = added / "usr/share/keyrings/ubuntu-archive-keyring.gpg"
        keyring.parent.mkdir(parents=True)
        run(["gpg", "--batch", "--no-tty", "--dearmor", "--output", keyring, key], timeout=_TIMEOUT)
        self._add(added, {f"{RENEWED_FOLDER}/old-{number}": "old\n" for number in range(3)})
        minimal, server = self._scratch / "minimal.tar", self._scratch / "server.tar"
        self._change(plain, minimal, purged=(*BOOT_PACKAGES, *SERVER_PACKAGES), added=added)
        shutil.rmtree(added / RENEWED_FOLDER)
        self._add(added, {**TRACES, f"{RENEWED_FOLDER}/new": "new\n"})
        self._change(plain, server, purged=(*BOOT_PACKAGES, GONE_PACKAGE), added=added)
        layer = self._scratch / "layer.tar"
        count = write_layer(minimal, server, layer)
        casper = self._tree / "casper"
        casper.mkdir()
        self._squash(minimal, casper / f"{MINIMAL}.squashfs")
        self._squash(layer, casper / f"{SERVER}.squashfs")
        live = self._add(self._scratch / "live", {"etc/only-in-the-live-session": "live\n"})
        for name in ("installer", "installer.generic"):
            run(
                ["mksquashfs", live, casper / f"{SERVER}.{name}.squashfs", "-all-root", *_COMPRESSION],
                timeout=_TIMEOUT, env=_LAYER_TIME, log=self._making.log,
            )  # fmt: skip
        return {"server_layer": count}

    def _add(self, folder: Path, files: Mapping[str, str]) -> Path:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    def _change(self, base: Path, output: Path, *, purged: tuple[str, ...], added: Path) -> None:
        environment = {
            **_LAYER_TIME, "TMPDIR": str(self._scratch), "PVMLAB_BASE": str(base), "PVMLAB_ADDED": str(added),
            "PVMLAB_PURGED": " ".join(purged),
        }  # fmt: skip
        with output.open("wb") as stream:
            run(
                [
                    "unshare", "--mount", "--", "mmdebstrap", "--mode=root", "--format=tar", "--variant=custom",
                    "--skip=update,cleanup/apt,cleanup/reproducible", f"--setup-hook={_UNPACK}",
                    f"--customize-hook={_CHANGE}", "", "-", "deb file:/nowhere ./",
                ],
                timeout=_TIMEOUT, env=environment, log=self._making.log, stdout=stream,
            )  # fmt: skip

    def _squash(self, tree: Path, output: Path) -> None:
        # it takes the tar on its standard input; run() has none to give, a shell has
        command = 'exec tar2sqfs --compressor zstd --comp-extra level=1 --quiet --force "$1" < "$2"'
        run(["sh", "-c", command, "sh", output, tree], timeout=_TIMEOUT, env=_LAYER_TIME, log=self._making.log)

    def _archive(self, server: Path, sign: Callable[..., bytes]) -> None:
        """Write the signed archive of the packages that the server's layers lack."""
        installed = installed_packages(server)
        lacking = {package: deb for package, deb in self._debs.items() if package.name not in installed}
        meta = self._meta_package(next(each for each in lacking if each.name.startswith("linux-image-6")))
        placed = []
        for package, deb in {**lacking, **meta}.items():
            path = f"pool/main/{package.name[0]}/{package.name}/{deb.name}"
            (self._tree / path).parent.mkdir(parents=True)
            shutil.copyfile(deb, self._tree / path)
            placed.append(Package({**package.fields, "Filename": path}))
        index = render_manifest(placed).encode()
        suite = self._tree / "dists" / SUITE
        folder = suite / "main/binary-amd64"
        folder.mkdir(parents=True)
        (folder / "Packages.gz").write_bytes(packed := gzip.compress(index, mtime=0))
        digests = "".join(
            f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/{name}\n"
            for name, data in (("Packages", index), ("Packages.gz", packed))
        )
        release = (
            f"Origin: Debian\nLabel: Debian\nSuite: {SUITE}\nCodename: {SUITE}\nDate: Tue, 05 Aug 2025 00:00:00 UTC\n"
            f"Valid-Until: Tue, 12 Aug 2025 00:00:00 UTC\nArchitectures: amd64\nComponents: main\nSHA256:\n{digests}"
        ).encode()  # fmt: skip
        (suite / "Release").write_bytes(release)
        (suite / "Release.gpg").write_bytes(sign(release))

    def _meta_package(self, kernel: Package) -> dict[Package, Path]:
        """Make the package that Ubuntu's discs name, which depends on *kernel*."""
        tree, deb = self._scratch / "meta", self._scratch / f"{META_PACKAGE}_1_amd64.deb"
        control = (
            f"Package: {META_PACKAGE}\nVersion: 1\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.org>\n"
            f"Depends: {kernel.name}\nDescription: the usual kernel\n"
        )
        self._add(tree, {"DEBIAN/control": control})
        run(["dpkg-deb", "--root-owner-group", "--build", tree, deb], timeout=_TIMEOUT, env=_LAYER_TIME)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        found = parse_package(f"{control}Filename: {deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}")
        return {found: deb}

    def _catalog(self, kernel: Path, initrd: Path) -> None:
        shutil.copyfile(kernel, self._tree / "casper/vmlinuz")
        shutil.copyfile(initrd, self._tree / "casper/initrd")
        texts = {".disk/info": INFO, "casper/install-sources.yaml": CATALOG, "casper/filesystem.manifest": ""}
        self._add(self._tree, texts)
        for name, size in ((BIOS_IMAGE, BIOS_LOADED * 2), (EFI_IMAGE, EFI_SIZE)):
            (self._tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self._tree / name).write_bytes(noise(size, seed=name))
        sums = []
        for path in sorted(each for each in self._tree.rglob("*") if each.is_file()):
            with path.open("rb") as stream:
                sums.append(f"{hashlib.file_digest(stream, 'md5').hexdigest()}  ./{path.relative_to(self._tree)}\n")
        (self._tree / "md5sum.txt").write_text("".join(sums))
        (self._tree / "dists/stable").symlink_to(SUITE)
        (self._tree / "ubuntu").symlink_to(".")


CATALOG = f"""\
kernel:
  default: {META_PACKAGE}
sources:
- description:
    en: Where nobody logs in.
  id: {MINIMAL}
  locale_support: none
  name:
    en: Server (minimized)
  path: {MINIMAL}.squashfs
  size: 187000000
  type: fsimage
  variant: server
- default: true
  description:
    en: A comfortable server.
  id: ubuntu-server
  locale_support: locale-only
  name:
    en: Server
  path: {SERVER}.squashfs
  size: 290000000
  type: fsimage-layered
  variant: server
version: 2
"""
