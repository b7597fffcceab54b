"""Services that hang are noticed and started again, with real ones in the place of the container's."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.run import spawn
from pipeline.workspace import REPOSITORY
from pxeboot_stack import health
from tests.fakes.web_client import end, find_free_port, wait_for

PROGRAM = """
import http.server, logging, pathlib, sys
from pxeboot_stack import health, supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s")
health.INTERVAL, health.PATIENCE = 0.1, 0.5
port, record, healthy = int(sys.argv[1]), *map(pathlib.Path, sys.argv[2:])
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(204); self.end_headers()
def serve(): http.server.HTTPServer(("127.0.0.1", port), Answer).serve_forever()
asks = {"web": lambda: health.ask_http("127.0.0.1", port, "/alive")}
looker = health.Health(asks, record=record, healthy=healthy)
# The worker of a server with two processes: the supervisor does not see what becomes of it.
web = ["sh", "-c", f"{sys.executable} -m http.server --bind 127.0.0.1 {port} & echo worker $!; wait"]
supervisor.Supervisor({"web": web, "health": lambda: health.run(looker)}, record=record).run()
"""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Path]:
    """A web server and what looks after it; the folder of its files."""
    argv = [sys.executable, "-c", PROGRAM, str(find_free_port()), str(tmp_path / "record"), str(tmp_path / "healthy")]
    with (tmp_path / "log").open("ab") as log:
        process = spawn(argv, env={"PYTHONPATH": str(REPOSITORY)}, stdout=log, stderr=log)
    try:
        wait_for("all is well", (tmp_path / "healthy").exists)
        yield tmp_path
    finally:
        end(process)


def test_a_worker_that_hangs_is_ended_and_started_again(web: Path) -> None:
    before = json.loads((web / "record").read_text())["web"]
    worker = int((web / "log").read_text().split("worker ")[1].split()[0])
    os.kill(worker, signal.SIGSTOP)
    wait_for("it is started again", lambda: json.loads((web / "record").read_text())["web"]["restarts"] == 1)
    said = json.loads((web / "record").read_text())["web"]
    assert said["pid"] != before["pid"]
    assert said["last"] == "ended with status -9"
    wait_for("the old one is gone", lambda: not Path(f"/proc/{worker}").exists())
    (web / "healthy").unlink()
    wait_for("all is well again", (web / "healthy").exists)
    assert "web has not answered 3 times: ended" in (web / "log").read_text()


def test_a_name_server_that_answers_anything_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def answer() -> None:
            query, client = server.recvfrom(512)
            assert query.endswith(b"\x0bprovisioner\x06pvmlab\x05local\0\0\1\0\1")
            server.sendto(b"\0\0 of somebody else", client)
            server.sendto(query[:2] + b"\x81\x85", client)

        thread = threading.Thread(target=answer)
        thread.start()
        health.ask_dns("127.0.0.1", "provisioner.pvmlab.local", server.getsockname()[1])
        thread.join()


def test_a_name_server_that_is_away_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(TimeoutError):
            health.ask_dns("127.0.0.1", "x", silent.getsockname()[1])
        port = silent.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        health.ask_dns("127.0.0.1", "x", port)


def test_what_speaks_no_http_is_not_well() -> None:
    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"220 mail\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConnectionError):
            health.ask_http("127.0.0.1", server.getsockname()[1], "/")
        thread.join()
