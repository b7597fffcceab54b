"""Fetching documents from a real server, well and badly behaved."""

from __future__ import annotations

import socket

import pytest

from installer import client, seed
from installer.client import HttpError, UnreachableError
from installer.errors import InstallError
from tests.integration.installer.conftest import Server


def test_a_document_is_fetched(server: Server) -> None:
    server.bodies["/config/x"] = b"content"
    assert client.fetch(f"{server.url}/config/x", limit=7, within=5) == b"content"


def test_a_refusal_is_final_and_its_sentence_told(server: Server) -> None:
    with pytest.raises(HttpError, match="/config/x answered 404: unknown machine"):
        client.fetch(f"{server.url}/config/x", limit=100, within=5)
    assert len(server.requests) == 1


def test_a_server_that_starts_late_is_waited_for(server: Server) -> None:
    server.bodies["/config/x"] = b"content"
    server.failures = 2
    assert client.fetch(f"{server.url}/config/x", limit=100, within=10) == b"content"
    assert len(server.requests) == 3


def test_a_server_that_never_starts_is_given_up(server: Server) -> None:
    server.failures = 1000
    with pytest.raises(HttpError, match="answered 503: the boot handler is starting"):
        client.fetch(f"{server.url}/config/x", limit=100, within=0.6)


def test_a_document_that_is_too_long_is_refused(server: Server) -> None:
    server.bodies["/config/x"] = bytes(101)
    with pytest.raises(InstallError, match="longer than the 100 bytes"):
        client.fetch(f"{server.url}/config/x", limit=100, within=5)


def test_a_host_that_does_not_answer_is_an_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"no answer from .* within 0\.5 s, last: Connection refused"):
        client.fetch(f"http://127.0.0.1:{port}/", limit=100, within=0.5)


def test_a_seed_is_fetched_whole(server: Server) -> None:
    documents = {
        "meta-data": b"instance-id: x\n",
        "user-data": b"#cloud-config\n",
        "network-config": b"{}",
        "vendor-data": b"",
    }
    server.bodies = {f"/cloud-init/web1/{name}": data for name, data in documents.items()}
    assert seed.load(f"{server.url}/cloud-init/web1/") == documents


def test_a_seed_with_a_missing_document_is_refused(server: Server) -> None:
    server.bodies = {"/cloud-init/web1/meta-data": b"instance-id: x\n"}
    with pytest.raises(HttpError, match="user-data answered 404"):
        seed.load(f"{server.url}/cloud-init/web1/")
