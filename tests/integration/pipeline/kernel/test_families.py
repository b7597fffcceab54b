"""Root filesystems laid out as each family's, with the modules of a real kernel, read by kmod's tools and busybox's."""

from __future__ import annotations

import dataclasses
import gzip
import io
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from contracts.arch import Arch
from pipeline import cpio
from pipeline.documents import cpio_reader
from pipeline.kernel.boot_files import extract_boot_files
from pipeline.kernel.installer_modules import INSTALLER_MODULES, INSTALLER_MODULES_OPTIONAL
from pipeline.kernel.module_file import module_name
from pipeline.kernel.modules import ModuleTree, pack_all_modules, pack_modules, read_modules, resolve
from pipeline.run import find_program, run
from pipeline.workspace import Cache
from tests.fakes.kernels import COMPRESS, make_rootfs

pytestmark = [
    pytest.mark.artifacts,
    pytest.mark.skipif(find_program("depmod") is None, reason="kmod is not installed"),
]
BINARY = ("dep", "alias", "symbols", "builtin", "builtin.alias")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a family lays out a kernel. ``{}`` is its version."""

    modules: str
    suffix: str
    vmlinuz: str
    initrd: str
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)
    has_depmod_run: bool = True


FAMILIES = {
    "debian-12": Layout("./lib/modules/{}", "", "./boot/vmlinuz-{}", "./boot/initrd.img-{}"),
    "debian-13": Layout(
        "./usr/lib/modules/{}", ".xz", "./boot/vmlinuz-{}", "./boot/initrd.img-{}", {"./lib": "usr/lib"}
    ),
    "ubuntu": Layout(
        "usr/lib/modules/{}", ".zst", "boot/vmlinuz-{}", "boot/initrd.img-{}", {"boot/vmlinuz": "vmlinuz-{}"}
    ),
    "fedora": Layout("lib/modules/{}", ".xz", "lib/modules/{}/vmlinuz", "boot/initramfs-{}.img"),
    "suse": Layout(
        "usr/lib/modules/{}", ".zst", "usr/lib/modules/{}/vmlinuz", "boot/initrd-{}",
        {"boot/vmlinuz-{}": "../usr/lib/modules/{}/vmlinuz"},
    ),
    "alpine": Layout("lib/modules/{}", ".gz", "boot/vmlinuz-virt", "boot/initramfs-virt"),
    "packages unpacked and no more": Layout(
        "usr/lib/modules/{}", ".zst", "boot/vmlinuz-{}", "boot/initrd.img-{}", has_depmod_run=False
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def kernel(artifacts: Cache) -> bytes:
    """The kernel of the usual distribution."""
    return artifacts.image("debian-12", Arch.X86_64, "vmlinuz").read_bytes()


@pytest.fixture(scope="module")
def modules(artifacts: Cache) -> ModuleTree:
    """Its modules: those an installer needs, and some more."""
    tree = read_modules(artifacts.image("debian-12", Arch.X86_64, "rootfs.tar.zst"))
    chosen = {*resolve(tree, INSTALLER_MODULES, optional=INSTALLER_MODULES_OPTIONAL)}
    chosen |= {*resolve(tree, sorted(tree.paths)[:60])}
    return ModuleTree(tree.kver, {path: data for path, data in tree.files.items() if path in chosen or "/" not in path})


@pytest.fixture(scope="module")
def wanted(modules: ModuleTree) -> list[str]:
    """What an installer must have, but for what is built into this kernel."""
    return sorted(map(module_name, resolve(modules, INSTALLER_MODULES)))


@pytest.fixture(scope="module")
def busybox(artifacts: Cache) -> bytes:
    """The busybox of the installer's initrd."""
    with gzip.open(artifacts.installer_initrd(Arch.X86_64)) as stream:
        for member in cpio_reader.read(stream):
            if member.path == "usr/bin/busybox":
                return b"".join(member.content)
    raise AssertionError("the initrd has no busybox")


def depmod(tree: Path, kver: str) -> Path:
    """Run depmod on the modules below *tree*; return where they are."""
    run(["depmod", "--basedir", tree, kver], timeout=60)
    return tree / "lib/modules" / kver


def lay_out(layout: Layout, modules: ModuleTree, kernel: bytes, scratch: Path) -> Path:
    """Make the root filesystem of a family, its modules compressed and indexed as they are there."""
    folder = scratch / "made/lib/modules" / modules.kver
    by_depmod = "" if layout.suffix == ".gz" else layout.suffix  # Debian's depmod reads no gzip
    for path, data in modules.files.items():
        place = folder / (f"{path}{by_depmod}" if ".ko" in path else path)
        if ".ko" in path or path in {"modules.order", "modules.builtin", "modules.builtin.modinfo"}:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(COMPRESS[by_depmod](data) if ".ko" in path else data)
    if layout.has_depmod_run:
        depmod(scratch / "made", modules.kver)
    made = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    if layout.suffix != by_depmod:
        made = {
            f"{path}.gz" if ".ko" in path else path: data for path, data in made.items() if path != "modules.dep.bin"
        }
        made |= {path: COMPRESS[".gz"](data) for path, data in made.items() if ".ko" in path}
        made["modules.dep"] = made["modules.dep"].replace(b".ko", b".ko.gz")
    files: dict[str, bytes | str] = {f"{layout.modules.format(modules.kver)}/{path}": made[path] for path in made}
    links = {path.format(modules.kver): target.format(modules.kver) for path, target in layout.links.items()}
    boot: dict[str, bytes | str] = {
        layout.vmlinuz.format(modules.kver): kernel, layout.initrd.format(modules.kver): b"initrd",
    }  # fmt: skip
    return make_rootfs(scratch / "rootfs.tar.zst", {**links, **boot, **files})


def unpack(entries: list[cpio.Entry], into: Path) -> Path:
    """Unpack what was packed with cpio(1); ``lib`` is a link to ``usr/lib``, as in the initrd."""
    raw = io.BytesIO()
    cpio.write(raw, entries)
    into.mkdir()
    archive = into.with_suffix(".cpio")
    archive.write_bytes(raw.getvalue())
    run(["cpio", "--extract", "--quiet", "--make-directories", "--file", archive], cwd=into, timeout=60)
    (into / "lib").symlink_to("usr/lib")
    return into


def shown_by_kmod(tree: Path, kver: str, name: str) -> list[str]:
    """Return the files modprobe would load for *name*, in order."""
    argv = ["modprobe", "--dirname", str(tree), "--set-version", kver, "--show-depends", name]
    lines = run(argv, timeout=30).stdout.splitlines()
    return [line.split()[1] for line in lines if line.startswith("insmod")]


def shown_by_busybox(tree: Path, busybox: bytes, kver: str, *words: str) -> list[str]:
    """Run an applet of busybox with *tree* as its root, on a kernel that claims to be *kver*; return its lines."""
    program = tree / "busybox"
    program.write_bytes(busybox)
    program.chmod(0o755)
    host = tree / "usr/lib/modules" / platform.release()
    if not host.exists():
        host.symlink_to(kver)
    argv = ["unshare", "--map-root-user", "chroot", str(tree), "/busybox", *words]
    done = run(argv, timeout=30, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def assert_as_depmod_says(tree: Path, kver: str, modinfo: bytes, scratch: Path) -> None:
    """Compare the index files with those that depmod makes of the same modules."""
    ours = tree / "usr/lib/modules" / kver
    copy = scratch / "copy/lib/modules" / kver
    shutil.copytree(ours, copy)
    (copy / "modules.builtin.modinfo").write_bytes(modinfo)
    theirs = depmod(scratch / "copy", kver)
    for name in ("dep", "alias", "symbols", "softdep"):
        wanted, found = ((folder / f"modules.{name}").read_text().splitlines() for folder in (theirs, ours))
        assert found == [line for line in wanted if not line.startswith("#")], name
    for name in BINARY:
        assert (ours / f"modules.{name}.bin").read_bytes() == (theirs / f"modules.{name}.bin").read_bytes(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_modules_of_every_family_load(
    tmp_path: Path, modules: ModuleTree, kernel: bytes, busybox: bytes, wanted: list[str], family: str
) -> None:
    layout, kver = FAMILIES[family], modules.kver
    rootfs = lay_out(layout, modules, kernel, tmp_path)
    assert extract_boot_files(rootfs, vmlinuz=tmp_path / "vmlinuz", initrd=tmp_path / "initrd").kver == kver
    assert ((tmp_path / "vmlinuz").read_bytes(), (tmp_path / "initrd").read_bytes()) == (kernel, b"initrd")
    found = read_modules(rootfs)
    tree = unpack(pack_modules(found, INSTALLER_MODULES, optional=INSTALLER_MODULES_OPTIONAL), tmp_path / "tree")
    if layout.has_depmod_run:
        assert_as_depmod_says(tree, kver, modules.files["modules.builtin.modinfo"], tmp_path)
    folder = tree / "usr/lib/modules" / kver
    for name in wanted:
        files = shown_by_kmod(tree, kver, name)
        assert module_name(files[-1]) == name
        for path in files:
            assert Path(path).read_bytes() == modules.files[str(Path(path).relative_to(tree / "lib/modules" / kver))]
    lines = shown_by_busybox(tree, busybox, kver, "modprobe", "-D", "-a", *wanted)
    assert {module_name(line.split()[1]) for line in lines} >= set(wanted)
    assert {module_name(path.name) for path in folder.rglob("*.ko")} >= set(wanted)


@pytest.mark.parametrize("family", ["debian-12", "debian-13", "ubuntu", "alpine"])
def test_all_modules_load_however_they_are_stored(
    tmp_path: Path, modules: ModuleTree, kernel: bytes, busybox: bytes, wanted: list[str], family: str
) -> None:
    layout, kver = FAMILIES[family], modules.kver
    tree = unpack(pack_all_modules(read_modules(lay_out(layout, modules, kernel, tmp_path))), tmp_path / "tree")
    folder = tree / "usr/lib/modules" / kver
    stored = [path for path in folder.rglob("*.ko*") if path.is_file()]
    assert {path.suffix for path in stored} == {".ko" if layout.suffix == ".zst" else layout.suffix or ".ko"}
    assert len(stored) == sum(".ko" in path for path in modules.files)
    lines = shown_by_busybox(tree, busybox, kver, "modprobe", "-D", "-a", *wanted)
    paths = [line.split()[1] for line in lines]
    assert {module_name(path) for path in paths} >= set(wanted)
    # modinfo reads a module by the same means as insmod: through its compression
    assert {
        shown_by_busybox(tree, busybox, kver, "modinfo", "-F", "vermagic", path)[0].split()[0] for path in paths
    } == {kver}
    if layout.suffix != ".gz":  # Debian's kmod reads no gzip
        assert {module_name(shown_by_kmod(tree, kver, name)[-1]) for name in wanted} == set(wanted)
