"""A Debian mirror on this host that is whole for debian-installer, in front of one that is not.

Some mirrors keep regular packages only, or forget components of the installer ("udebs"). What the installer of a
release needs and the host's mirror lacks is made of the release's regular packages: kernel modules and libraries as
they are there, and empty packages for what no install of the tests uses. All else is passed through. Its ``Release``
is then signed by nobody: the installer must be told ``debian-installer/allow_unauthenticated``.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import lzma
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.run import run

_SMALL = 1 << 16
# What a component is made of, if not of the package that is called like it without "-udeb".
_SOURCES = {"e2fsprogs-udeb": ("e2fsprogs", "libext2fs2t64", "libcom-err2", "libss2")}
_WANTED_MODULES = re.compile(
    r"kernel/(fs/(ext4|jbd2|mbcache|fat|nls|efivarfs|isofs)|drivers/(nvme|md|block/loop)|crypto|lib)\b"
)

Paragraph = dict[str, str]


class Mirror:
    """Answers requests from *made*, and all others from *upstream*. :ivar made: path on the mirror to bytes."""

    def __init__(self, upstream: str, made: Mapping[str, bytes]) -> None:
        self.upstream, self.made = upstream, made

    @contextlib.contextmanager
    def serve(self) -> Iterator[int]:
        """Serve on loopback, below ``/debian``; yield the port."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(timeout=10)
            server.server_close()


def _handler(mirror: Mirror) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.removeprefix("/debian/")
            if (data := mirror.made.get(path)) is not None:
                self._begin(200, len(data))
                self._send(data)
                return
            try:
                with urllib.request.urlopen(f"{mirror.upstream}/{path}", timeout=60) as answer:  # noqa: S310
                    self._begin(200, int(answer.headers["Content-Length"]))
                    while piece := answer.read(_SMALL):
                        self._send(piece)
            except urllib.error.HTTPError as error:
                self._begin(error.code, 0)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _begin(self, status: int, size: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(size))
            self.end_headers()

        def _send(self, data: bytes) -> None:
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


def make_whole(upstream: str, suite: str, arch: str, *, kernel: str, scratch: Path) -> Mirror:
    """Return a mirror in front of *upstream* that has all that the installer with *kernel* needs.

    :param arch: Debian's name. :param kernel: the version that the installer's kernel says of itself.
    """
    index = f"main/debian-installer/binary-{arch}/Packages"
    udebs = _parse(_unpacked(upstream, suite, index))
    needed = _closure(udebs, kernel)
    with ThreadPoolExecutor(8) as pool:
        present = list(pool.map(lambda name: _exists(f"{upstream}/{udebs[name]['Filename']}"), needed))
    missing = [name for name, there in zip(needed, present, strict=True) if not there]
    if not missing:
        return Mirror(upstream, {})
    regular = _parse(_unpacked(upstream, suite, f"main/binary-{arch}/Packages"))
    made: dict[str, bytes] = {}
    # Every install fetches it, and all kernel modules that any of them needs are in it.
    with_modules = f"ext4-modules-{kernel}-di"
    if any(name.endswith(f"-{kernel}-di") for name in missing):
        missing = [*dict.fromkeys((*missing, with_modules))]
    for name in missing:
        tree = scratch / name
        tree.mkdir(parents=True)
        if name == with_modules:
            _take(
                upstream,
                regular,
                (f"linux-image-{kernel}",),
                tree,
                keep=lambda path: bool(_WANTED_MODULES.search(path)),
            )
        elif name.endswith("-udeb"):
            sources = _SOURCES.get(name, (name.removesuffix("-udeb"),))
            wanted = name in _SOURCES or (name.startswith("lib") and sources[0] in regular)
            _take(upstream, regular, sources if wanted else (), tree, keep=_is_program)
        path = udebs[name]["Filename"]
        made[path] = _pack(tree, udebs[name])
        udebs[name] |= {"Size": str(len(made[path])), "SHA256": hashlib.sha256(made[path]).hexdigest()}
    chosen = [fields for fields in udebs.values() if fields.get("Kernel-Version", kernel) == kernel]
    made |= _indexes(upstream, suite, index, chosen)
    return Mirror(upstream, made)


def _is_program(path: str) -> bool:
    return bool(re.match(r"(usr/)?(s?bin/|lib/\S+\.so)", path))


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310
        data: bytes = answer.read()
    return data


def _exists(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return False


def _unpacked(upstream: str, suite: str, index: str) -> str:
    return lzma.decompress(_fetch(f"{upstream}/dists/{suite}/{index}.xz")).decode()


def _parse(text: str) -> dict[str, Paragraph]:
    paragraphs = (
        dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        for paragraph in text.split("\n\n")
    )
    return {fields["Package"]: fields for fields in paragraphs if fields}


def _closure(udebs: Mapping[str, Paragraph], kernel: str) -> list[str]:
    """Return the components that the installer fetches, with what they depend on; more than it has not yet."""
    fitting = {name: each for name, each in udebs.items() if each.get("Kernel-Version", kernel) == kernel}
    todo = [name for name, each in fitting.items() if each.get("Priority") in {"standard", "important", "required"}]
    providers: dict[str, list[str]] = {}
    for name, each in fitting.items():
        for virtual in _names(each.get("Provides", "")):
            providers.setdefault(virtual, []).append(name)
    found: dict[str, None] = {}
    while todo:
        name = todo.pop()
        if name in fitting and name not in found:
            found[name] = None
            todo += _names(fitting[name].get("Depends", ""))
        todo += providers.pop(name, [])
    return list(found)


def _names(relations: str) -> list[str]:
    return [word.split()[0] for word in re.split(r"[,|]\s*", relations) if word.strip()]


def _take(
    upstream: str,
    regular: Mapping[str, Paragraph],
    packages: tuple[str, ...],
    tree: Path,
    *,
    keep: Callable[[str], bool],
) -> None:
    for package in packages:
        deb, whole = tree.with_suffix(".deb"), tree.with_suffix(".whole")
        deb.write_bytes(_fetch(f"{upstream}/{regular[package]['Filename']}"))
        run(["dpkg-deb", "--extract", deb, whole], timeout=300)
        for path in sorted(whole.rglob("*")):
            relative = path.relative_to(whole).as_posix()
            if not path.is_dir() and keep(relative):
                (tree / relative).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, tree / relative, follow_symlinks=False)
        shutil.rmtree(whole)


def _pack(tree: Path, fields: Paragraph) -> bytes:
    (tree / "DEBIAN").mkdir()
    control: dict[str, str] = {
        key: fields[key] for key in ("Package", "Version", "Architecture", "Depends", "Provides") if key in fields
    }
    control |= {"Maintainer": "nobody <nobody@example.org>", "Description": "made of regular packages, for a test"}
    (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in control.items()))
    output = tree.with_suffix(".udeb")
    run(["dpkg-deb", "--root-owner-group", "-Zxz", "-z1", "--build", tree, output], timeout=300)
    return output.read_bytes()


def _indexes(upstream: str, suite: str, index: str, paragraphs: list[Paragraph]) -> dict[str, bytes]:
    """Return the changed list of components and a ``Release`` that knows it."""
    text = "\n".join("".join(f"{key}: {value}\n" for key, value in fields.items()) for fields in paragraphs).encode()
    files = {f"{index}.gz": gzip.compress(text, mtime=0), f"{index}.xz": lzma.compress(text), index: text}
    lines = []
    for line in _fetch(f"{upstream}/dists/{suite}/Release").decode().splitlines():
        words = line.split()
        if len(words) == 3 and words[2] in files and len(words[0]) == 64:
            data = files[words[2]]
            lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {words[2]}")
        else:
            lines.append(line)
    return {f"dists/{suite}/{name}": data for name, data in files.items()} | {
        f"dists/{suite}/Release": ("\n".join(lines) + "\n").encode()
    }
