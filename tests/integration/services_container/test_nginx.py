"""The web server with our configuration: a real nginx, in front of a boot handler that says what it was asked."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import http.server
import json
import os
import queue
import re
import resource
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import CommandError
from pipeline.run import Popen, run, spawn
from pxeboot_stack import services
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.web_client import Reply, end, find_free_port, request, wait_for

TOKEN = "0123456789abcdef0123456789abcdef"
SECRET = "THE-SECRET"
BIG = 48 << 20  # bytes; more than the kernel keeps for a client that does not read
USER = "root" if os.geteuid() == 0 else "www-data"  # the temporary directory is ours only


class _Echo(http.server.BaseHTTPRequestHandler):
    """Answers every request with its headers and path, as JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    connections: list[str]

    def setup(self) -> None:
        super().setup()
        self.connections.append("one more")

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"path": self.path, "headers": list(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@dataclasses.dataclass(frozen=True)
class Nginx:
    """nginx on loopback. :ivar connections: one entry for each connection the boot handler got."""

    address: str
    shares: HostShares
    log: Path
    lines: queue.SimpleQueue[str]
    connections: list[str]

    def ask(self, path: str, **more: Any) -> Reply:
        return request(self.address, path, **more)

    def access_lines(self, count: int) -> list[dict[str, Any]]:
        """Return the next *count* lines of the access log, as the boot handler gets them."""
        texts = [self.lines.get(timeout=10) for _ in range(count)]
        assert all(re.match(r"<190>\w{3} [ \d]\d \d\d:\d\d:\d\d nginx: \{", text) for text in texts), texts
        return [json.loads(text.split("nginx: ", 1)[1]) for text in texts]

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])


@contextlib.contextmanager
def collecting(path: Path) -> Iterator[queue.SimpleQueue[str]]:
    """Take what is sent to the socket *path*. At once: the kernel keeps a few datagrams only."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        path.chmod(0o666)

        def collect() -> None:
            while data := receiver.recv(65536):
                lines.put(data.decode(errors="replace"))

        thread = threading.Thread(target=collect)
        thread.start()
        try:
            yield lines
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"", str(path))
            thread.join(timeout=10)


@contextlib.contextmanager
def serving(change: Callable[[str], str] = str) -> Iterator[Nginx]:
    """Run nginx, its configuration changed by *change*."""
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pvmlab-nginx-")))
        shares, files = HostShares(root / "host"), RunFiles(root / "run")
        for folder in (shares.images / "debian-12/x86_64", shares.initrds / "x86_64", files.nginx, files.tftp):
            folder.mkdir(parents=True)
        (shares.images / "debian-12/x86_64/vmlinuz").write_bytes(b"0123456789")
        (files.tftp / "ipxe-x86_64.efi").write_bytes(b"MZ" + bytes(5000))
        (files.tftp / "autoexec.ipxe").write_bytes(b"#!ipxe\n")
        lines = stack.enter_context(collecting(files.access_log))
        connections: list[str] = []
        handler = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Echo", (_Echo,), {"connections": connections})
        )
        stack.callback(handler.server_close)
        threading.Thread(target=handler.serve_forever, args=(0.05,), daemon=True).start()
        stack.callback(handler.shutdown)
        address, behind = f"127.0.0.1:{find_free_port()}", f"127.0.0.1:{handler.server_address[1]}"
        text = services.render_nginx(shares, files, listen=address, handler=behind, user=USER)
        files.nginx_conf.write_text(change(text))
        log = stack.enter_context((root / "nginx.log").open("ab"))
        process: Popen[bytes] = spawn(services.nginx_command(files), stdout=log, stderr=log)
        stack.callback(end, process)
        wait_for("nginx answers", lambda: request(address, VMLINUZ).status == 200)
        yield Nginx(address, shares, root / "nginx.log", lines, connections)


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    """One nginx for all tests that leave it as it was."""
    with serving() as made:
        yield made


@pytest.fixture
def fresh_log(nginx: Nginx) -> Nginx:
    """The same, with nothing waiting in its access log."""
    with contextlib.suppress(queue.Empty):
        while True:
            nginx.lines.get(timeout=0.2)
    return nginx


def big_file(nginx: Nginx) -> str:
    """Make a big file; return its path on the server."""
    path = nginx.shares.images / "debian-12/x86_64/rootfs.tar.zst"
    if not path.exists():
        with path.open("wb") as stream:
            stream.truncate(BIG)
    return "/images/debian-12/x86_64/rootfs.tar.zst"


VMLINUZ = "/images/debian-12/x86_64/vmlinuz"


@pytest.mark.parametrize(
    ("wanted", "status", "text", "content_range"),
    [
        ("bytes=0-3", 206, "0123", "bytes 0-3/10"),
        ("bytes=7-", 206, "789", "bytes 7-9/10"),
        ("bytes=-2", 206, "89", "bytes 8-9/10"),
        ("bytes=5-99", 206, "56789", "bytes 5-9/10"),
        ("bytes=10-", 416, "the file ends before that range begins\n", "bytes */10"),
        ("bytes=99-100", 416, "the file ends before that range begins\n", "bytes */10"),
        ("lines=0-3", 200, "0123456789", None),
    ],
)
def test_a_range_is_what_was_asked_for(
    nginx: Nginx, wanted: str, status: int, text: str, content_range: str | None
) -> None:
    answer = nginx.ask(VMLINUZ, headers={"Range": wanted})
    assert (answer.status, answer.text, answer.headers.get("content-range")) == (status, text, content_range)


def test_a_range_of_a_file_that_changed_is_the_whole_file(nginx: Nginx) -> None:
    etag = nginx.ask(VMLINUZ).headers["etag"]
    assert nginx.ask(VMLINUZ, headers={"Range": "bytes=7-", "If-Range": etag}).status == 206
    changed = nginx.ask(VMLINUZ, headers={"Range": "bytes=7-", "If-Range": '"another"'})
    assert (changed.status, changed.text) == (200, "0123456789")


def test_several_ranges_come_as_parts(nginx: Nginx) -> None:
    answer = nginx.ask(VMLINUZ, headers={"Range": "bytes=0-1,8-9"})
    assert answer.status == 206
    assert answer.headers["content-type"].startswith("multipart/byteranges")
    parts = re.findall(r"Content-Range: (.*)\r\n\r\n(..)", answer.text)
    assert parts == [("bytes 0-1/10", "01"), ("bytes 8-9/10", "89")]


@pytest.mark.parametrize(
    ("path", "size", "kind"),
    [("/ipxe/ipxe-x86_64.efi", 5002, "application/efi"), ("/ipxe/autoexec.ipxe", 7, "text/plain"),
     (VMLINUZ, 10, "application/octet-stream")],
)  # fmt: skip
def test_firmware_learns_the_size_before_it_fetches(nginx: Nginx, path: str, size: int, kind: str) -> None:
    head = nginx.ask(path, method="HEAD")
    assert (head.status, head.headers["content-length"], head.text) == (200, str(size), "")
    assert head.headers["content-type"] == kind
    assert len(nginx.ask(path).text) == size


def test_no_folder_is_listed_nor_admitted(nginx: Nginx) -> None:
    folders = [nginx.shares.images, *(path for path in nginx.shares.images.rglob("*") if path.is_dir())]
    names = [f"/images/{path.relative_to(nginx.shares.images)}".removesuffix("/.") for path in folders]
    for name in [*names, "/initrds", "/initrds/x86_64", "/ipxe/"]:
        for path in (name, f"{name}/"):
            if path in {"/images", "/initrds"}:  # the boot handler's answer
                continue
            answer = nginx.ask(path)
            assert (answer.status, answer.text) == (404, "there is no such file\n"), path
            assert "location" not in answer.headers


@pytest.fixture(scope="module")
def escapes(nginx: Nginx) -> Path:
    """Things in and beside the images that nobody may read."""
    outside, images = nginx.shares.root / "vms", nginx.shares.images
    outside.mkdir()
    (outside / "web1.json").write_text(SECRET)
    (images / "provisioner/x86_64").mkdir(parents=True)
    for name in (".hidden", "debian-12/.rootfs.tar.zst.1.partial", "provisioner/x86_64/disk.qcow2"):
        (images / name).write_text(SECRET)
    (images / "file").symlink_to(outside / "web1.json")
    (images / "relative").symlink_to("../vms/web1.json")
    (images / "folder").symlink_to(outside)
    (images / "debian-12/chain").symlink_to("../folder")
    (images / "root").symlink_to("/")
    (images / "inside").symlink_to("debian-12/x86_64/vmlinuz")  # not even these: none of our artifacts is one
    (nginx.shares.initrds / "x86_64/initrd.gz").symlink_to("../../vms/web1.json")
    return outside


def hostile_paths() -> Iterator[str]:
    """Yield ways to ask for what is outside, in many spellings."""
    dots = ["..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..%00", "%c0%ae%c0%ae", "..;", "....", "\\..", "%5c.."]
    slashes = ["/", "//", "%2f", "%252f", "\\", "%5c", "/./", "/.//"]
    for dot in dots:
        for slash in slashes:
            yield f"/images{slash}{dot}{slash}vms{slash}web1.json"
            yield f"/images/debian-12{slash}{dot}{slash}{dot}{slash}vms/web1.json"
    yield from ("/images../vms/web1.json", "/initrds../vms/web1.json", "/ipxe../nginx.conf", "/ipxe/../nginx.conf",
                "/ipxe/%2e%2e/nginx.conf", "/ipxe/..%2fnginx.conf", "/vms/web1.json", "/../vms/web1.json",
                "/images/.hidden", "/images/%2ehidden", "/images/x/../.hidden",
                "/images/debian-12/.rootfs.tar.zst.1.partial",
                "/images/provisioner/x86_64/disk.qcow2", "/images//provisioner/x86_64/disk.qcow2",
                "/images/%70rovisioner/x86_64/disk.qcow2", "/images/x/../provisioner/x86_64/disk.qcow2",
                "/images/./provisioner/x86_64/disk.qcow2")  # fmt: skip
    yield from ("/images/file", "/images/relative", "/images/folder/web1.json", "/images/debian-12/chain/web1.json",
                "/images/root/etc/passwd", "/images/inside", "/initrds/x86_64/initrd.gz", "/images/file/",
                "/images/folder", "/images/folder/")  # fmt: skip


@pytest.mark.usefixtures("escapes")
def test_nothing_outside_is_ever_served(nginx: Nginx) -> None:
    paths = list(hostile_paths())
    assert len(paths) > 200
    for path in paths:
        for target in (path, f"http://{nginx.address}{path}"):  # the second form is a proxy's
            status, body = send_raw(nginx, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            # What does not lead into our folders is the boot handler's to refuse: here it says what it was asked.
            assert status in {400, 404} or body.startswith('{"path"'), path
            assert SECRET not in body, path
            assert "root:" not in body, path


def send_raw(nginx: Nginx, text: str) -> tuple[int, str]:
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as connection:
        connection.sendall(text.encode("latin-1"))
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode("latin-1")


@pytest.mark.parametrize(
    "forged",
    [{}, {"X-Real-IP": "10.0.0.1"}, {"x-real-ip": "10.0.0.1"}, {"X_Real_IP": "10.0.0.1"},
     {"X-Forwarded-For": "10.0.0.1"}, {"Forwarded": "for=10.0.0.1"}, {"Connection": "X-Real-IP"},
     {"Connection": "close, x-real-ip"}],
)  # fmt: skip
def test_the_boot_handler_is_told_the_true_address(nginx: Nginx, forged: dict[str, str]) -> None:
    said = json.loads(nginx.ask("/ipxe?mac=1", source="127.0.0.9", headers=forged).text)
    assert [text for name, text in said["headers"] if name.lower().replace("_", "-") == "x-real-ip"] == ["127.0.0.9"]


def test_two_headers_of_a_name_do_not_add_one(nginx: Nginx) -> None:
    _, body = send_raw(
        nginx, "GET /m/x HTTP/1.1\r\nHost: x\r\nX-Real-IP: 10.0.0.1\r\nX-Real-IP: 10.0.0.2\r\nConnection: close\r\n\r\n"
    )
    assert "10.0.0" not in body


def test_connections_to_the_boot_handler_are_kept(nginx: Nginx) -> None:
    before = len(nginx.connections)
    for _ in range(100):
        assert nginx.ask("/boot.ipxe").status == 200
    assert len(nginx.connections) - before <= 2


TOKEN_PATHS = (  # spellings of one place
    f"/m/{TOKEN}/config", f"//m/{TOKEN}/config", f"/m//{TOKEN}/config", f"/%6d/{TOKEN}/config",
    f"/x/../m/{TOKEN}/config", f"/m%2f{TOKEN}/config", f"/m/{TOKEN}", f"/m/{TOKEN}/", f"/m/{TOKEN}?a=b",
    f"/m/{TOKEN.upper()}/config", f"/images/../m/{TOKEN}/config", f"/m/{TOKEN}/.hidden",
    f"/images/debian-12/../../m/{TOKEN}/config", f"/m/{TOKEN}/" + "a" * 3000,
)  # fmt: skip


def test_an_access_line_says_who_fetched_what(fresh_log: Nginx) -> None:
    fresh_log.ask(VMLINUZ, source="127.0.0.7", headers={"Range": "bytes=2-5", "User-Agent": 'iPXE "1.21"'})
    fresh_log.ask(f"/m/{TOKEN}/report", method="POST", body=b"x", source="127.0.0.8")
    first, second = fresh_log.access_lines(2)
    seconds = first.pop("seconds")
    assert isinstance(seconds, float)
    assert first.pop("sent") > 4
    assert first == {"client": "127.0.0.7", "method": "GET", "path": VMLINUZ, "status": 206, "length": 4,
                     "range": "bytes=2-5", "agent": 'iPXE "1.21"'}  # fmt: skip
    assert (second["method"], second["path"], second["status"]) == ("POST", "/m/***/report", 200)
    assert '"path":"/m/***/report"' in fresh_log.log.read_text(errors="replace")


@pytest.mark.parametrize("works", [True, False])
def test_no_log_has_a_token(works: bool) -> None:
    def change(text: str) -> str:
        return text if works else re.sub(r"server 127\.0\.0\.1:\d+ max", "server 127.0.0.1:1 max", text)

    with serving(change) as nginx:
        nginx.access_lines(1)
        for path in TOKEN_PATHS:
            status, _ = send_raw(nginx, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert status in ({200, 404} if works else {404, 502})
            with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as connection:
                connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n".encode())
                connection.recv(65536)
        said = json.dumps(nginx.access_lines(2 * len(TOKEN_PATHS))) + nginx.log.read_text(errors="replace")
    assert "/m/***/config" in said
    assert TOKEN not in said.lower()


def test_it_serves_while_nobody_takes_the_log(tmp_path: Path) -> None:
    away, stuck = tmp_path / "away", tmp_path / "stuck"
    for path in (away, stuck):
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
            serving(
                lambda text, path=path: re.sub(r"unix:[^,]*", f"unix:{path}", text)  # type: ignore[misc]
            ) as nginx,
        ):
            if path == stuck:
                receiver.bind(str(path))
            for _ in range(1000):  # more than the kernel keeps
                assert nginx.ask(VMLINUZ).status == 200
            assert len(nginx.log.read_text()) < 1_000_000


def test_what_machines_do_is_told_to_the_provisioner_only(nginx: Nginx) -> None:
    assert nginx.ask("/metrics", source="127.0.0.1").status == 200
    for path in ("/metrics", "//metrics", "/%6detrics", "/x/../metrics"):
        assert nginx.ask(path, source="127.0.0.2").status == 404


def test_too_much_is_refused(nginx: Nginx) -> None:
    head = "GET /ipxe HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    assert send_raw(nginx, f"GET /ipxe?{'a' * 9000} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")[0] == 414
    assert send_raw(nginx, f"{head}X-Long: {'a' * 9000}\r\n\r\n")[0] == 400
    assert send_raw(nginx, head + "".join(f"X-{n}: {'a' * 900}\r\n" for n in range(20)) + "\r\n")[0] == 400
    for path, size, status in (
        ("/ipxe", 5000, 413), (f"/m/{TOKEN}/report", 100_000, 200), (f"/m/{TOKEN}/report", 140_000, 413)
    ):  # fmt: skip
        assert nginx.ask(path, method="POST", body=b"x" * size).status == status
    assert nginx.ask(VMLINUZ, method="PUT", body=b"x").status == 405


def test_one_address_gets_no_more_than_its_share(nginx: Nginx) -> None:
    path = big_file(nginx)
    greedy = [open_request(nginx, path, source="127.0.1.1") for _ in range(64)]
    try:
        refused = nginx.ask(VMLINUZ, source="127.0.1.1")
        assert (refused.status, refused.text) == (503, "these are too many requests at once from one address\n")
        assert nginx.ask(VMLINUZ, source="127.0.1.2").status == 200
    finally:
        for connection in greedy:
            connection.close()


def open_request(nginx: Nginx, path: str, *, source: str) -> socket.socket:
    """Ask for *path* and read no more than the first byte of the answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.bind((source, 0))
    connection.settimeout(10)
    connection.connect(("127.0.0.1", nginx.port))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert connection.recv(1) == b"H"
    return connection


def open_slow_header(nginx: Nginx, number: int) -> socket.socket:
    """Begin a request and do not end it."""
    connection = socket.create_connection(
        ("127.0.0.1", nginx.port), timeout=10, source_address=(nth_address(number), 0)
    )
    connection.sendall(b"GET /ipxe HTTP/1.1\r\nX-Slow: ")
    return connection


def nth_address(number: int) -> str:
    return f"127.0.{10 + number // 200}.{1 + number % 200}"


def test_slow_clients_do_not_keep_a_good_one_from_a_big_file(nginx: Nginx) -> None:
    path = big_file(nginx)
    with contextlib.ExitStack() as stack:
        for number in range(300):
            stack.callback(open_slow_header(nginx, number).close)
            stack.callback(open_request(nginx, path, source=nth_address(number)).close)
        connection = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            total = 0
            while chunk := answer.read(1 << 20):
                total += len(chunk)
        assert (answer.status, total) == (200, BIG)


def test_who_dawdles_is_cut_off() -> None:
    """The limits are shortened here: nobody wants to wait for the true ones."""
    shorter = {"client_header_timeout 10s": "client_header_timeout 1s",
               "client_body_timeout 10s": "client_body_timeout 1s",
               "send_timeout 60s": "send_timeout 1s"}  # fmt: skip

    def change(text: str) -> str:
        for old, new in shorter.items():
            assert f"{old};" in text
            text = text.replace(old, new)
        return text

    with serving(change) as nginx, contextlib.ExitStack() as stack:
        header = stack.enter_context(open_slow_header(nginx, 1))
        body = stack.enter_context(socket.create_connection(("127.0.0.1", nginx.port), timeout=10))
        body.sendall(f"POST /m/{TOKEN}/report HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12".encode())
        reader = stack.enter_context(open_request(nginx, big_file(nginx), source="127.0.0.3"))
        wait_for("nginx ended all three", lambda: established(nginx.port) == 0)
        for connection in (header, body, reader):  # reset, not closed: nothing stays in the kernel's buffers
            with pytest.raises(ConnectionResetError):
                drain(connection)


def drain(connection: socket.socket) -> None:
    while connection.recv(1 << 20):
        pass


def established(port: int) -> int:
    """Return how many connections to *port* the server's side still has."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] in {"01", "08"} for line in lines)


def test_a_thousand_clients_fetch_a_small_file_at_once(nginx: Nginx) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 4096:
        pytest.skip(f"a process may have {limits[1]} files open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], 4096), limits[1]))
    try:
        answers = asyncio.run(fetch_all(nginx, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(answers) == 1000
    assert {(answer.split(b" ", 2)[1], answer[-10:]) for answer in answers} == {(b"200", b"0123456789")}


async def fetch_all(nginx: Nginx, count: int) -> list[bytes]:
    """Open *count* connections, then ask on all of them, then read all answers."""
    connections = await asyncio.gather(*(
        asyncio.open_connection("127.0.0.1", nginx.port, local_addr=(nth_address(number), 0)) for number in range(count)
    ))  # fmt: skip
    for _, writer in connections:
        writer.write(f"GET {VMLINUZ} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
    for _, writer in connections:
        writer.close()
    return answers


@pytest.mark.parametrize(
    ("root", "listen", "more", "user"),
    [("plain", "127.0.0.1:8099", [], "www-data"), ("a lab; {1} #2 'x'", "127.9.0.1:8098", ["[::1]:8098"], "root"),
     ("größer", "127.8.0.1:8097", ["[::1]:8097", "127.7.0.1:8097"], "www-data")],
)  # fmt: skip
def test_nginx_accepts_every_configuration(tmp_path: Path, root: str, listen: str, more: list[str], user: str) -> None:
    shares, files = HostShares(tmp_path / root), RunFiles(tmp_path / root / "run")
    files.nginx.mkdir(parents=True)
    text = services.render_nginx(shares, files, listen=listen, handler="127.0.0.1:8080", user=user, more_listens=more)
    argv = ["nginx", "-t", "-e", "/dev/stderr", "-c", str(files.nginx_conf)]
    files.nginx_conf.write_text(text)
    assert "test is successful" in run(argv, timeout=20).stderr
    files.nginx_conf.write_text(text.replace("sendfile on;", "sendfile perhaps;"))
    with pytest.raises(CommandError):  # and it would have noticed
        run(argv, timeout=20)
