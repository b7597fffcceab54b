"""apt's solver on a snapshot of our own, and packages from a mirror of our own: what fails, and how it is told."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from contracts.arch import Arch
from pipeline.artifact import Making
from pipeline.debian.apt_sources import Mirror
from pipeline.debian.deb_file import unpack_debs
from pipeline.debian.deb_store import Origin, PackageGoneError, ensure_debs
from pipeline.debian.package_set import Package, PackageSet, parse_package
from pipeline.debian.package_solver import resolve
from pipeline.errors import ChecksumError, CommandError, PrerequisiteError
from pipeline.progress import Progress
from pipeline.run import run
from pipeline.tree_tar import TreeTar
from pipeline.workspace import Cache

MAIN = """\
Package: base
Version: 1
Architecture: amd64
Essential: yes
Filename: pool/base_1_amd64.deb
Size: 1
SHA256: {0:064x}

Package: needed
Version: 1
Architecture: amd64
Priority: required
Filename: pool/needed_1_amd64.deb
Size: 1
SHA256: {1:064x}

Package: tool
Version: 1:2+x~1
Architecture: amd64
Depends: library
Recommends: manual
Filename: pool/tool_2+x~1_amd64.deb
Size: 1
SHA256: {2:064x}

Package: library
Version: 1
Architecture: amd64
Filename: pool/library_1_amd64.deb
Size: 1
SHA256: {3:064x}

Package: manual
Version: 1
Architecture: all
Filename: pool/manual_1_all.deb
Size: 1
SHA256: {4:064x}
"""
SECURITY = """\
Package: library
Version: 1+deb13u1
Architecture: amd64
Filename: pool/library_1+deb13u1_amd64.deb
Size: 1
SHA256: {5:064x}
"""
RELEASE = "Origin: Debian\nSuite: {0}\nCodename: {0}\nArchitectures: amd64\nComponents: main\n"


@pytest.fixture
def making(tmp_path: Path) -> Making:
    (tmp_path / "scratch").mkdir()
    return Making({}, tmp_path / "scratch", tmp_path / "log")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    with TreeTar(tmp_path / "tar") as tree:
        for name, packages in (("trixie", MAIN), ("trixie-security", SECURITY)):
            tree.file(f"{name}/InRelease", RELEASE.format(name).encode())
            tree.file(f"{name}/Packages", packages.format(*range(6)).encode())
    (tmp_path / "snapshot").write_bytes(zstandard.compress((tmp_path / "tar").read_bytes()))
    return tmp_path / "snapshot"


def package_set(*packages: str, base: bool = False) -> PackageSet:
    return PackageSet(name="x", suite="trixie", arch=Arch.X86_64, packages=packages, base=base)


def test_dependencies_come_along_in_their_newest_version(snapshot: Path, making: Making) -> None:
    found = resolve(package_set("tool"), snapshot, making=making)
    assert [(package.name, package.fields["Version"]) for package in found] == [
        ("library", "1+deb13u1"), ("tool", "1:2+x~1"),
    ]  # fmt: skip
    assert [package.is_security_update for package in found] == [True, False]


def test_a_system_is_more_than_what_is_asked_for(snapshot: Path, making: Making) -> None:
    found = resolve(package_set("manual", base=True), snapshot, making=making)
    assert [package.name for package in found] == ["base", "manual", "needed"]


def test_an_unknown_package_is_named(snapshot: Path, making: Making) -> None:
    with pytest.raises(CommandError) as caught:
        resolve(package_set("no-such-package"), snapshot, making=making)
    assert "Unable to locate package no-such-package" in caught.value.details


class Server:
    """A mirror: serves a folder, remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                asked.append(self.path)

        handler = functools.partial(Handler, directory=str(folder))
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.mirror = Mirror(f"http://127.0.0.1:{self.http.server_port}/main", None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    served = Server(tmp_path / "mirror")
    thread = threading.Thread(target=served.http.serve_forever, daemon=True)
    thread.start()
    yield served
    served.http.shutdown()
    served.http.server_close()
    thread.join()


def put(server: Server, name: str, data: bytes, *, archive: str = "main") -> Package:
    path = server.folder / archive / "pool" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    text = f"Package: {name}\nVersion: 1\nFilename: pool/{name}\nSize: {len(data)}\nSHA256: {digest}"
    return parse_package(text, archive=archive)


def origin(mirror: Mirror) -> Origin:
    return Origin(wanted=package_set("x"), date="2026-11-19", mirror=lambda: mirror)


def no_mirror() -> Mirror:
    pytest.fail("the network is not needed")


def partial_files(cache: Cache) -> list[Path]:
    return [path for path in cache.root.rglob("*") if path.is_file()]


def test_packages_are_fetched_once_and_then_used_offline(tmp_path: Path, server: Server, making: Making) -> None:
    cache, told = Cache(tmp_path / "cache"), list[Progress]()
    packages = [put(server, name, name.encode()) for name in ("a_1+b~2_all.deb", "z_1_amd64.deb")]
    telling = Making({}, making.scratch, making.log, told.append)
    files = ensure_debs(packages, origin(server.mirror), cache=cache, making=telling)
    assert [path.read_text() for path in files] == ["a_1+b~2_all.deb", "z_1_amd64.deb"]
    assert [path.relative_to(cache.root).parts[:2] for path in files] == [
        ("downloads", each.sha256) for each in packages
    ]
    assert len(server.asked) == 2
    assert {each.total for each in told} == {28}
    assert [told[0].done, told[-1].done] == [0, 28]
    offline = Origin(wanted=package_set("x"), date="2026-11-19", mirror=no_mirror)
    assert ensure_debs(packages, offline, cache=cache, making=making) == files


def test_the_store_heals(tmp_path: Path, server: Server, making: Making) -> None:
    cache, package = Cache(tmp_path / "cache"), put(server, "a.deb", b"whole")
    (path,) = ensure_debs([package], origin(server.mirror), cache=cache, making=making)
    path.write_bytes(b"whale")
    assert ensure_debs([package], origin(server.mirror), cache=cache, making=making) == [path]
    assert path.read_bytes() == b"whole"


def test_one_that_is_gone_is_named_and_the_others_are_kept(tmp_path: Path, server: Server, making: Making) -> None:
    cache, packages = Cache(tmp_path / "cache"), [put(server, f"{name}_1_all.deb", name.encode()) for name in "abc"]
    (server.folder / "main/pool/b_1_all.deb").unlink()
    with pytest.raises(PackageGoneError, match=r"the mirror no longer has b_1_all\.deb"):
        ensure_debs(packages, origin(server.mirror), cache=cache, making=making)
    assert sorted(path.name for path in partial_files(cache)) == ["a_1_all.deb", "c_1_all.deb"]


def test_other_bytes_than_the_archive_signed_are_not_kept(tmp_path: Path, server: Server, making: Making) -> None:
    cache, package = Cache(tmp_path / "cache"), put(server, "a.deb", b"right")
    (server.folder / "main/pool/a.deb").write_bytes(b"wrong")
    with pytest.raises(ChecksumError, match=r"the mirror sent a damaged a\.deb") as caught:
        ensure_debs([package], origin(server.mirror), cache=cache, making=making)
    assert package.sha256 in caught.value.details
    assert partial_files(cache) == []


def test_a_mirror_that_does_not_answer(tmp_path: Path, server: Server, making: Making) -> None:
    package = put(server, "a.deb", b"x")
    closed = Mirror("http://127.0.0.1:9/main", None, ('Acquire::Retries "0"',))
    with pytest.raises(CommandError, match="apt-helper failed") as caught:
        ensure_debs([package], origin(closed), cache=Cache(tmp_path / "cache"), making=making)
    assert "Could not connect" in caught.value.details


def test_a_mirror_may_be_a_folder(tmp_path: Path, server: Server, making: Making) -> None:
    package = put(server, "a_1+b~2.deb", b"x")
    folder = Mirror(f"file:{server.folder}/main", None)
    (path,) = ensure_debs([package], origin(folder), cache=Cache(tmp_path / "cache"), making=making)
    assert path.is_file()
    assert not path.is_symlink()
    (server.folder / "main/pool/a_1+b~2.deb").unlink()
    with pytest.raises(PackageGoneError):
        ensure_debs([package], origin(folder), cache=Cache(tmp_path / "other"), making=making)


def test_security_updates_come_from_their_own_archive(tmp_path: Path, server: Server, making: Making) -> None:
    cache, package = Cache(tmp_path / "cache"), put(server, "a.deb", b"x", archive="security")
    with pytest.raises(PrerequisiteError, match="security updates"):
        ensure_debs([package], origin(server.mirror), cache=cache, making=making)
    both = Mirror(server.mirror.archive, server.mirror.archive.replace("main", "security"))
    assert ensure_debs([package], origin(both), cache=cache, making=making)[0].read_bytes() == b"x"


def test_the_files_of_packages_are_unpacked(tmp_path: Path, making: Making) -> None:
    (tmp_path / "x/DEBIAN").mkdir(parents=True)
    (tmp_path / "x/DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.invalid>\nDescription: x\n"
    )
    (tmp_path / "x/usr").mkdir()
    (tmp_path / "x/usr/file").write_text("x")
    run(["dpkg-deb", "--build", "--root-owner-group", tmp_path / "x", tmp_path / "x.deb"], timeout=30)
    unpack_debs([tmp_path / "x.deb"], tmp_path / "tree", making=making)
    assert [path.name for path in (tmp_path / "tree").rglob("*")] == ["usr", "file"]
    (tmp_path / "x.deb").write_bytes((tmp_path / "x.deb").read_bytes()[:-20])
    with pytest.raises(CommandError, match="dpkg-deb failed"):
        unpack_debs([tmp_path / "x.deb"], tmp_path / "again", making=making)
