"""Cloud images as distributions publish them, small: partitions, file systems with real drivers, a tree to compare.

::

    tree() ──tar──┐
    mkfs.* ───────┴─ appliance, job make-images ──> raw disks ──qemu-img──> qcow2, compressed

The file systems are made empty on the host and filled by a guest, so nobody needs to be root, and what fills them is
the kernel's own driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline import cpio
from pipeline.appliance.boot import Appliance, Disk, Job, run_job
from pipeline.elf import find_libraries, read_dynamic
from pipeline.media.member import Member, MemberKind
from pipeline.media.tar_writer import TarWriter
from pipeline.run import require_program, run
from pipeline.state import State
from tests.fakes.kernels import COMPRESS, make_module, make_vmlinuz

KVER = "6.8.0-31-generic"
TIME = 1_714_000_000
_MIB = 1 << 20
_TIMEOUT = 120.0
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, version 2
_ACL = bytes.fromhex("0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff"
                     "20000000ffffffff")  # user::rw-, user:1000:r--, group::r--, mask::rw-, other::---  # fmt: skip
_LABEL = b"system_u:object_r:etc_t:s0\0"
LONG = "n" * 255
DEEP = "/".join(["usr/share"] + ["deep-folder-name-of-forty-characters-0123"] * 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A partition with a file system. :ivar kind: sfdisk's word for its type. :ivar place: where fstab mounts it."""

    kind: str
    mib: int
    type: str
    place: str
    uuid: str
    options: str = "defaults"
    spec: str = ""  # what fstab calls it, by its UUID unless given

    @property
    def fstab(self) -> str:
        """Its line in fstab."""
        return f"{self.spec or f'UUID={self.uuid}'} {self.place} {self.type} {self.options} 0 1\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How a distribution's image is divided. :ivar fstab: more lines. :ivar subvolumes: of btrfs, name to place."""

    name: str
    parts: Sequence[Part]
    fstab: str = ""
    subvolumes: Sequence[tuple[str, str]] = ()

    @property
    def text(self) -> str:
        """The whole fstab."""
        return "# made for a test\n" + "".join(part.fstab for part in self.parts) + self.fstab


_MAKING = {"vfat": "quiet,iocharset=utf8"}  # quiet: owners and modes that FAT has no place for are no errors
_BTRFS = "11111111-aaaa-4bbb-8ccc-000000000003"

DEBIAN = Layout(
    name="ext4",
    parts=(
        Part(kind="linux", mib=60, type="ext4", place="/", uuid="11111111-aaaa-4bbb-8ccc-000000000001"),
        Part(kind="uefi", mib=34, type="vfat", place="/boot/efi", uuid="AB12-CD34", options="umask=0077"),
    ),
    fstab="/dev/vdz /mnt auto defaults,nofail 0 2\ntmpfs /tmp tmpfs defaults 0 0\n/swapfile none swap sw 0 0\n",
)
ROCKY = Layout(
    name="xfs",
    parts=(
        Part(kind="uefi", mib=34, type="vfat", place="/boot/efi", uuid="0000-0001", spec=r"PARTLABEL=EFI\040System",
             options="umask=0077,shortname=winnt"),
        Part(kind="linux", mib=310, type="xfs", place="/boot", uuid="11111111-aaaa-4bbb-8ccc-000000000011"),
        Part(kind="linux", mib=320, type="xfs", place="/", uuid="11111111-aaaa-4bbb-8ccc-000000000002"),
    ),
)  # fmt: skip
FEDORA = Layout(
    name="btrfs",
    parts=(
        Part(kind="linux", mib=40, type="ext4", place="/boot", uuid="11111111-aaaa-4bbb-8ccc-000000000012"),
        Part(kind="linux", mib=130, type="btrfs", place="/", uuid=_BTRFS, options="subvol=root,compress=zstd:1"),
    ),
    fstab=f"UUID={_BTRFS} /home btrfs subvol=home,compress=zstd:1 0 0\nUUID={_BTRFS} /var btrfs subvol=var 0 0\n",
    subvolumes=(("root", "/"), ("home", "/home"), ("var", "/var")),
)  # fmt: skip
LAYOUTS = (DEBIAN, ROCKY, FEDORA)

_MAKE = r"""
n=0
modprobe -a crc32c_generic ext4 xfs xxhash_generic blake2b_generic btrfs nls_cp437 nls_ascii nls_iso8859_1 vfat
echo 1 > /proc/sys/kernel/printk
for disk in vdb vdc vdd; do
	. "/jobs/plan-$disk"
done
report done 1
"""


_FILL = r"""
/usr/bin/tar -x -p -f /dev/vda --numeric-owner --xattrs '--xattrs-include=*' -C /root/w 2> /run/errors \
	|| fail make "$(head -n 3 /run/errors)"
mkfifo -m 600 /root/w/var/pipe
cat > /root/w/etc/fstab <<'END'
FSTABEND
touch -d @1714000000 /root/w/etc/fstab /root/w/etc /root/w/var
for place in $(mount | awk '$3 ~ "^/root/w" { print $3 }' | sort -r); do
	umount "$place" || fail make "cannot unmount $place"
done
"""


def tree(fstab: str) -> list[Member]:
    """Return the files of a system, with all that a file system can say of one."""
    folder = f"usr/lib/modules/{KVER}"
    modules = {
        f"{folder}/kernel/fs/ext4/ext4.ko.zst": COMPRESS[".zst"](make_module(KVER, depends="jbd2")),
        f"{folder}/kernel/fs/jbd2/jbd2.ko.xz": COMPRESS[".xz"](make_module(KVER)),
        f"{folder}/kernel/drivers/block/virtio_blk.ko": make_module(KVER),
        f"{folder}/modules.builtin": b"kernel/fs/nls/nls_cp437.ko\n",
    }
    files = {
        "etc/fstab": fstab.encode(),
        "usr/lib/os-release": b'ID=test\nVERSION_ID="1.0"\nPRETTY_NAME="A test 1.0"\n',
        "etc/machine-id": b"0123456789abcdef0123456789abcdef\n",
        "etc/ssh/ssh_host_rsa_key": b"secret",
        "var/lib/cloud/instances/i-1/user-data.txt": b"secret",
        "var/lib/dpkg/status": b"Package: one\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: amd64\n\n",
        f"boot/vmlinuz-{KVER}": make_vmlinuz(KVER),
        f"boot/initrd.img-{KVER}": b"initrd" * 5000,
        "boot/efi/EFI/BOOT/BOOTX64.EFI": b"MZ" + b"efi" * 9000,
        "usr/share/gr\xfc\xdfe/\u65e5\u672c\u8a9e.txt": b"Inhalt",
        "usr/share/with space, 'quote' and $dollar": b"x",
        f"usr/share/{LONG}": b"long name",
        f"{DEEP}/file": b"deep",
        "usr/share/empty": b"",
        "usr/share/large": bytes(range(256)) * 8192,
        **modules,
    }
    return list(_with_parents([*_special(), *(_file(path, data) for path, data in files.items())]))


def _special() -> Iterator[Member]:
    yield _file("usr/bin/busybox", b"program", mode=0o755)
    yield _file("usr/bin/su", b"setuid", mode=0o4755)
    yield _file("usr/bin/ping", b"capable", mode=0o755, xattrs={"security.capability": _CAPABILITY})
    yield _file("etc/shadow", b"root:*:1::::::\n", mode=0o640, gid=42, xattrs={"security.selinux": _LABEL})
    yield _file("etc/acl", b"acl", mode=0o660, xattrs={"system.posix_acl_access": _ACL})
    yield _file("usr/share/user", b"u", uid=200_000, gid=4_000_000_000, mtime=1, xattrs={"user.note": b"a=\n\0\xff"})
    yield _file("home/me/sparse", bytes(4 * _MIB) + b"end" + bytes(_MIB), uid=1000, gid=1000, mode=0o600)
    yield Member(path="home/me", kind=MemberKind.DIRECTORY, mode=0o700, uid=1000, gid=1000, mtime=TIME)
    yield Member(path="var/spool/mail", kind=MemberKind.DIRECTORY, mode=0o3777, gid=8, mtime=TIME + 5)
    yield Member(path="usr/bin/zz-hard", kind=MemberKind.HARDLINK, mode=0o755, target="usr/bin/busybox", mtime=TIME)
    for path, target in {
        "bin": "usr/bin", "etc/os-release": "../usr/lib/os-release", "etc/dangling": "/nowhere/at/all",
        "usr/lib/long": "/".join(["../" + "t" * 100] * 8), "boot-link": f"boot/vmlinuz-{KVER}",
    }.items():  # fmt: skip
        yield Member(path=path, kind=MemberKind.SYMLINK, mode=0o777, target=target, mtime=TIME)
    yield Member(path="var/pipe", kind=MemberKind.FIFO, mode=0o600, mtime=TIME)
    yield from (
        Member(path=path, kind=MemberKind.DIRECTORY, mode=0o755, mtime=TIME)
        for path in ("proc", "sys", "dev", "run", "mnt")
    )
    yield Member(path="tmp", kind=MemberKind.DIRECTORY, mode=0o1777, mtime=TIME)


def _file(
    path: str, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime: int = TIME,
    xattrs: dict[str, bytes] | None = None,
) -> Member:  # fmt: skip
    return Member(
        path=path, kind=MemberKind.FILE, mode=mode, uid=uid, gid=gid, mtime=mtime, size=len(data), xattrs=xattrs or {},
        content=(data,),
    )  # fmt: skip


def _with_parents(members: Sequence[Member]) -> Iterator[Member]:
    described = {member.path for member in members}
    missing = {
        "/".join(parts[:depth])
        for parts in (member.path.split("/") for member in members)
        for depth in range(1, len(parts))
    } - described
    folders = [Member(path=path, kind=MemberKind.DIRECTORY, mode=0o755, mtime=TIME) for path in missing]
    yield from sorted([*members, *folders], key=lambda member: member.path.split("/"))


def write_tar(members: Sequence[Member], output: Path) -> None:
    """Write *members* as a tar."""
    with output.open("wb") as stream:
        writer = TarWriter(stream)
        for member in members:
            writer.member(member)  # no pipe: that is made by the plan
        writer.finish()


def make_images(
    appliance: Appliance,
    folder: Path,
    state: State,
    *,
    layouts: Sequence[Layout] = LAYOUTS,
    content: Path | None = None,
) -> dict[str, Path]:
    """Make an image of each of three *layouts*; return them by name. One boot of the appliance, some 10 s.

    :param folder: an empty one. :param content: a tar with what to put into each; None for :func:`tree`.
    """
    if content is None:
        write_tar(tree("later\n"), folder / "tree.tar")
    else:
        (folder / "tree.tar").symlink_to(content)
    raws, plans = [], {}
    for device, layout in zip(("vdb", "vdc", "vdd"), layouts, strict=True):
        raw = folder / f"{layout.name}.raw"
        _make_empty(layout, raw)
        raws.append(raw)
        plans[f"jobs/plan-{device}"] = _plan(layout, device)
    tools = _subvolume_tool()
    initrd = with_jobs(appliance, {"jobs/make-images": _MAKE, **plans}, folder / "initrd.gz", tools)
    disks = (
        Disk(path=folder / "tree.tar", format="raw", is_kept=False),
        *(Disk(path=raw, format="raw", is_kept=True) for raw in raws),
    )
    work = folder / "work"
    work.mkdir()
    job = Job(name="make-images", disks=disks, folder=work, log=folder / "log")
    run_job(dataclasses.replace(appliance, initrd=initrd), job, state=state)
    return {layout.name: to_qcow2(raw) for layout, raw in zip(layouts, raws, strict=True)}


def with_jobs(appliance: Appliance, jobs: dict[str, str], output: Path, tools: Sequence[cpio.Entry] = ()) -> Path:
    """Write the appliance's initrd with more files; the kernel takes several archives, one after the other."""
    more = output.with_suffix(".more")
    cpio.write_gzip(more, [*tools, *(cpio.regular(path, text.encode()) for path, text in jobs.items())])
    with output.open("wb") as stream:
        for part in (appliance.initrd, more):
            stream.write(part.read_bytes())
    return output


def _subvolume_tool() -> list[cpio.Entry]:
    """Return the host's btrfs program and its libraries, apart from the appliance's, and a word to call it by."""
    program = Path(require_program("btrfs"))
    libraries = find_libraries(Path("/"), [program])
    linker = Path(str(read_dynamic(program).interpreter)).name
    folders = sorted({f"/tools/{place}".rpartition("/")[0] for place in libraries})
    (runs,) = [f"/tools/{place}" for place in libraries if place.endswith(f"/{linker}")]
    text = f'#!/bin/sh\n{runs} --library-path {":".join(folders)} /tools/btrfs subvolume create "$1"\n'
    return [
        cpio.regular("tools/btrfs", program.read_bytes(), mode=0o755),
        *(cpio.regular(f"tools/{place}", path.read_bytes(), mode=0o755) for place, path in libraries.items()),
        cpio.regular("usr/bin/make-subvolume", text.encode(), mode=0o755),
        cpio.symlink("usr/bin/sh", "busybox"),
    ]


def to_qcow2(raw: Path) -> Path:
    """Return the compressed qcow2 image of a raw disk, beside it."""
    qcow2 = raw.with_suffix(".qcow2")
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2], timeout=_TIMEOUT)
    return qcow2


def _make_empty(layout: Layout, raw: Path) -> None:
    """Write a disk with partitions and empty file systems. As sfdisk does it, each begins where the last one ends."""
    lines = ["label: gpt"]
    lines += [f'size={part.mib}MiB, type={part.kind}, name="{_name(part)}"' for part in layout.parts]
    with raw.open("wb") as stream:
        stream.truncate((sum(part.mib for part in layout.parts) + 2) * _MIB)
    run(["sfdisk", "--quiet", raw], input="\n".join(lines), timeout=_TIMEOUT)
    start = _MIB
    for part in layout.parts:
        empty = raw.with_suffix(".part")
        with empty.open("wb") as stream:
            stream.truncate(part.mib * _MIB)
        run(_mkfs(part, empty), timeout=_TIMEOUT)
        run(["dd", f"if={empty}", f"of={raw}", "bs=1M", f"seek={start // _MIB}", "conv=notrunc,sparse", "status=none"],
            timeout=_TIMEOUT)  # fmt: skip
        empty.unlink()
        start += part.mib * _MIB


def _name(part: Part) -> str:
    return "EFI System" if part.type == "vfat" else part.place


def _mkfs(part: Part, path: Path) -> list[str | Path]:
    programs: dict[str, list[str | Path]] = {
        "ext4": ["mke2fs", "-q", "-t", "ext4", "-U", part.uuid, path],
        "xfs": ["mkfs.xfs", "-q", "-m", f"uuid={part.uuid}", path],
        "btrfs": ["mkfs.btrfs", "--quiet", "--uuid", part.uuid, path],
        "vfat": ["mkfs.vfat", "-F", "32", "-i", part.uuid.replace("-", ""), path],
    }
    return programs[part.type]


def _plan(layout: Layout, device: str) -> str:
    """Return shell text for the guest: mount all of an image's file systems in place, unpack the tree, unmount."""
    numbers = {part.place: number for number, part in enumerate(layout.parts, start=1)}
    root = f"/dev/{device}{numbers['/']}"
    lines = ["mkdir -p /root/w"]
    if layout.subvolumes:
        lines.append(f"mount -t btrfs {root} /root/w")
        lines += [f"make-subvolume /root/w/{name}" for name, _ in layout.subvolumes]
        lines.append("umount /root/w")
        for name, place in layout.subvolumes:
            lines.append(f"mkdir -p /root/w{place}")
            lines.append(f"mount -t btrfs -o subvol={name},compress=zstd:1 {root} /root/w{place}")
    else:
        lines.append(f"mount {root} /root/w")
    for part in sorted(layout.parts, key=lambda part: part.place):
        if part.place != "/":
            options = f"-t {part.type} -o {_MAKING.get(part.type, 'rw')}"
            lines.append(f"mkdir -p /root/w{part.place}")
            lines.append(f"mount {options} /dev/{device}{numbers[part.place]} /root/w{part.place}")
    return "\n".join(lines) + _FILL.replace("FSTAB", layout.text)


def with_room(layout: Layout, mib: int) -> Layout:
    """Return *layout* with a root of *mib* MiB."""
    return dataclasses.replace(
        layout,
        parts=[dataclasses.replace(part, mib=mib) if part.place == "/" else part for part in layout.parts],
    )
