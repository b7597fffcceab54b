"""The screens of machines that get no boot script, run by a real iPXE: the one in QEMU's card."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.lan import Lan
from pipeline.run import spawn
from pxeboot_stack.boot_handler import menu
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.paths import HostShares, RunFiles
from tests.fakes.lab_files import make_machine
from tests.fakes.web_client import end

pytestmark = [pytest.mark.vm, pytest.mark.nightly]
MACHINE = make_machine()
SETTINGS = Settings.of_shares(HostShares(), Lan(), RunFiles())
PATIENCE = 120.0  # seconds, emulated
SCREENS: dict[str, Callable[[], str]] = {
    "unknown": lambda: menu.render_unknown(MACHINE.mac, "10.0.2.15", SETTINGS),
    "foreign": lambda: menu.render_foreign(MACHINE, MACHINE.mac, "10.0.2.15", SETTINGS),
}


@contextlib.contextmanager
def answers(texts: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Answer each request with the next text, the last one for ever; yield the port and the paths that were asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = texts[min(len(asked), len(texts)) - 1].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("screen", list(SCREENS))
def test_a_machine_goes_on_by_itself_when_it_may(tmp_path: Path, screen: str) -> None:
    texts = [SCREENS[screen]()] * 2 + ["#!ipxe\necho it goes on\nsleep 1000\n"]
    with answers(texts) as (port, asked):
        for number, text in enumerate(texts):
            texts[number] = text.replace(SETTINGS.lan.base_url, f"http://10.0.2.2:{port}")
        (tmp_path / "start.ipxe").write_text(texts[0])
        console = tmp_path / "console"
        argv = ["qemu-system-x86_64", "-machine", "q35,graphics=off", "-accel", "tcg", "-m", "256", "-nodefaults",
                "-display", "none", "-serial", f"file:{console}",
                "-netdev", f"user,id=lan,tftp={tmp_path},bootfile=start.ipxe",
                "-device", f"virtio-net-pci,netdev=lan,mac={MACHINE.mac},bootindex=0"]  # fmt: skip
        qemu = spawn(argv)
        try:
            deadline = time.monotonic() + PATIENCE
            while "it goes on" not in (said := console.read_text(errors="replace") if console.exists() else ""):
                assert time.monotonic() < deadline, said[-2000:]
                assert qemu.poll() is None, said[-2000:]
                time.sleep(0.2)
        finally:
            end(qemu)
    assert len(asked) == 3
    assert "command not found" not in said
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", said)
    wanted = f"./pvmlab vm.adopt {MACHINE.mac}" if screen == "unknown" else "reserved for it is 192.168.100.11"
    assert wanted in plain
