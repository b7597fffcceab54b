from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts import nocloud
from contracts.report import MAX_REPORT_BYTES
from pxeboot_stack.boot_handler.app import create_app
from pxeboot_stack.boot_handler.settings import Settings
from tests.fakes.lab_files import make_machine, make_settings, write_artifacts, write_definition

MACHINE = make_machine()
REPORT = {"phase": "disk", "outcome": "running", "percent": 20, "message": "partitions"}


@pytest.fixture
def lab(tmp_path: Path) -> Settings:
    made = make_settings(tmp_path)
    write_artifacts(made)
    write_definition(made.vms, MACHINE)
    return made


class Client:
    """Requests straight into the application: no server, no socket."""

    def __init__(self, lab: Settings, *, peer: str = "127.0.0.1", headers: dict[str, str] | None = None) -> None:
        self._transport = httpx.ASGITransport(app=create_app(lab), client=(peer, 50000), raise_app_exceptions=False)
        self._headers = headers or {}

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self._transport, base_url="http://handler", headers=self._headers
            ) as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


@pytest.fixture
def client(lab: Settings) -> Client:
    return Client(lab, headers={"x-real-ip": MACHINE.ip})


TOKEN = "0" * 32
GOOD = [
    ("GET", "/boot.ipxe", 200),
    ("GET", f"/ipxe?mac={MACHINE.mac}", 200),
    ("GET", "/ipxe?mac=52:54:00:aa:bb:99", 200),  # a stranger: a menu
    ("GET", "/m/{token}/config", 200),
    *(("GET", f"/m/{{token}}/cloud-init/{kind}", 200) for kind in nocloud.DOCUMENTS),
    ("GET", "/healthz", 200),
    ("GET", "/metrics", 200),
]
BAD = [
    ("GET", "/", 404),
    ("GET", "/nothing", 404),
    ("GET", "/ipxe", 400),
    ("GET", "/ipxe?mac=", 400),
    ("GET", f"/ipxe?mac={MACHINE.mac}&mac={MACHINE.mac}", 400),
    ("POST", f"/ipxe?mac={MACHINE.mac}", 405),
    ("GET", f"/config/{MACHINE.mac}", 404),
    ("GET", "/cloud-init/web1/user-data", 404),
    ("GET", f"/m/{TOKEN}/config", 403),
    ("GET", "/m/nonsense/config", 403),
    ("GET", "/m/{token}/nothing", 404),
    ("GET", "/m/{token}/cloud-init/passwd", 404),
    ("GET", "/m/{token}/cloud-init/user-data/more", 404),
    ("DELETE", "/m/{token}/config", 405),
    ("GET", "/m/{token}/report", 404),
    ("POST", f"/m/{TOKEN}/report", 403),
    ("POST", "/m/{token}/report", 400),
]


def boot(client: Client) -> str:
    """Fetch the boot script; return the token in it."""
    found = re.search(r"/m/([0-9a-f]{32})/", client.get(f"/ipxe?mac={MACHINE.mac}").text)
    assert found
    return found[1]


@pytest.mark.parametrize(("method", "path", "status"), GOOD)
def test_what_is_there_is_200_and_never_cached(client: Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path.format(token=boot(client)))
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("method", "path", "status"), BAD)
def test_every_error_has_its_status_and_a_plain_sentence(client: Client, method: str, path: str, status: int) -> None:
    token = boot(client)
    answer = client.request(method, path.format(token=token))
    assert answer.status_code == status, answer.text
    assert token not in answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.endswith("\n")
    assert len(answer.text.splitlines()) == 1


def test_405_says_what_is_allowed(client: Client) -> None:
    assert "GET" in client.post("/healthz").headers["allow"]


def test_a_report_is_taken_up_to_its_limit_and_not_beyond(client: Client, lab: Settings) -> None:
    path, body = f"/m/{boot(client)}/report", json.dumps(REPORT).encode()
    assert client.post(path, json=REPORT).text == "web1 is installing\n"
    assert client.post(path, content=body.ljust(MAX_REPORT_BYTES)).status_code == 200
    refused = client.post(path, content=body.ljust(MAX_REPORT_BYTES + 1))
    assert (refused.status_code, refused.text) == (413, "a report is at most 65536 bytes\n")


def test_what_is_not_there_yet_says_when_to_come_again(client: Client, lab: Settings) -> None:
    (lab.initrds / "x86_64/initrd.gz").unlink()
    answer = client.get(f"/ipxe?mac={MACHINE.mac}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-real-ip": ""},
        {"x-real-ip": "nonsense"},
        {"x-real-ip": "192.168.100.12"},
        {"x-forwarded-for": MACHINE.ip},
    ],
)
def test_only_the_address_that_nginx_saw_opens_secrets(lab: Settings, client: Client, headers: dict[str, str]) -> None:
    answer = Client(lab, headers=headers).get(f"/m/{boot(client)}/cloud-init/user-data")
    assert answer.status_code == 403
    assert "THE-SECRET" not in answer.text


def test_the_header_is_believed_from_loopback_only(lab: Settings, client: Client) -> None:
    neighbour = Client(lab, peer="192.168.100.12", headers={"x-real-ip": MACHINE.ip})
    assert neighbour.get(f"/m/{boot(client)}/cloud-init/user-data").status_code == 403
    assert "reserved for it" in neighbour.get(f"/ipxe?mac={MACHINE.mac}").text


def test_two_headers_are_none(lab: Settings, client: Client) -> None:
    headers = [("x-real-ip", MACHINE.ip), ("x-real-ip", "10.0.0.1")]
    answer = Client(lab).get(f"/m/{boot(client)}/config", headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example/x", "192.168.100.1@evil", "${net0/ip}", "a b", ""])
def test_the_host_header_steers_nothing(client: Client, host: str) -> None:
    assert client.get("/boot.ipxe", headers={"host": host}).text == client.get("/boot.ipxe").text
    script = f"/ipxe?mac={MACHINE.mac}"
    plain, told = (re.sub(r"/m/[0-9a-f]{32}/", "/m/-/", client.get(script, headers=each).text)
                   for each in ({}, {"host": host}))  # fmt: skip
    assert plain == told
    token = boot(client)
    config = f"/m/{token}/config"
    assert client.get(config, headers={"host": host}).text == client.get(config).text
    assert client.get(config, headers={"host": host, "x-real-ip": "192.168.100.12"}).status_code == 403


def test_requests_are_counted_by_route_without_tokens(client: Client) -> None:
    token = boot(client)
    client.get(f"/m/{token}/config")
    client.get(f"/m/{token}/nothing")
    client.get(f"/m/{TOKEN}/config")
    text = client.get("/metrics").text
    assert 'pvmlab_http_requests_total{route="/ipxe",status="200"} 1\n' in text
    assert 'pvmlab_http_requests_total{route="/m/{token}/{document:path}",status="404"} 1\n' in text
    assert "pvmlab_denied_total 1\n" in text
    assert "pvmlab_definitions 1\n" in text
    assert token not in text


def test_health_and_readiness_are_two_things(client: Client) -> None:
    assert client.get("/healthz").json() == {"alive": True}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["dnsmasq does not run"])


def test_a_fault_of_ours_is_a_500_without_its_inside(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("THE-SECRET")

    monkeypatch.setattr("pxeboot_stack.boot_handler.scripts.render_install", fail)
    answer = client.get(f"/ipxe?mac={MACHINE.mac}")
    assert answer.status_code == 500
    assert "THE-SECRET" not in answer.text
    assert "its log in the provisioner says why" in answer.text
    assert 'status="500"} 1' in client.get("/metrics").text
