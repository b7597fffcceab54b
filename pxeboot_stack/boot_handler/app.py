"""The boot handler over HTTP: routes, limits and the shape of errors. Every decision is in :mod:`.handler`."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contracts.report import MAX_REPORT_BYTES
from pxeboot_stack.boot_handler.handler import Answer, BootHandler
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings

_LOG = logging.getLogger(__name__)
CLIENT_HEADER = "x-real-ip"
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


def create_app(settings: Settings) -> Starlette:
    """Return the boot handler's application.

    Requests are answered one at a time: the work is a few small files, and nothing has to be locked.
    """
    handler = BootHandler(settings)

    async def boot_script(request: Request) -> Response:
        return _response(handler.boot_script(_require_mac_parameter(request), client=find_client(request)))

    async def config(request: Request) -> Response:
        return _response(handler.installer_config(request.path_params["mac"], client=find_client(request)))

    async def seed(request: Request) -> Response:
        name, kind = request.path_params["name"], request.path_params["kind"]
        return _response(handler.seed_document(name, kind, client=find_client(request)))

    async def answer(request: Request) -> Response:
        name, wanted = request.path_params["name"], request.path_params["document"]
        return _response(handler.answer_document(name, wanted, client=find_client(request)))

    async def report(request: Request) -> Response:
        body = await _read_body(request)
        return _response(handler.take_report(request.path_params["mac"], body, client=find_client(request)))

    return Starlette(
        routes=[
            Route("/boot.ipxe", _plain(handler.chain_script), methods=["GET"]),
            Route("/ipxe", boot_script, methods=["GET"]),
            Route("/config/{mac}", config, methods=["GET"]),
            Route("/cloud-init/{name}/{kind}", seed, methods=["GET"]),
            Route("/answers/{name}/{document}", answer, methods=["GET"]),
            Route("/report/{mac}", report, methods=["POST"]),
            Route("/healthz", _plain(handler.health), methods=["GET"]),
        ],
        exception_handlers={Refusal: _refusal, HTTPException: _http_error, Exception: _unexpected},
    )


def find_client(request: Request) -> str | None:
    """Return the address nginx saw the request come from, or None if the request did not come through nginx."""
    values = request.headers.getlist(CLIENT_HEADER)
    if request.client is None or request.client.host not in _LOOPBACK or len(values) != 1:
        return None
    try:
        return str(ipaddress.ip_address(values[0]))
    except ValueError:
        return None


def _plain(answer: Callable[[], Answer]) -> Callable[[Request], Response]:
    async def endpoint(_: Request) -> Response:
        return _response(answer())

    return endpoint  # type: ignore[return-value]


def _response(answer: Answer) -> Response:
    # A machine that asks twice is to be told what is true now.
    return Response(
        answer.body, status_code=answer.status, media_type=answer.media_type, headers={"cache-control": "no-store"}
    )


def _require_mac_parameter(request: Request) -> str:
    values = request.query_params.getlist("mac")
    if len(values) != 1:
        raise Refusal(400, "say one MAC address, as in /ipxe?mac=52:54:00:aa:bb:cc")
    return values[0]


async def _read_body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REPORT_BYTES:
            raise Refusal(413, f"a report is at most {MAX_REPORT_BYTES} bytes")
    return bytes(body)


def _error(status: int, sentence: str) -> Response:
    headers = {"retry-after": "5"} if status == 503 else {}
    return PlainTextResponse(f"{sentence}\n", status_code=status, headers={"cache-control": "no-store", **headers})


async def _refusal(request: Request, error: Exception) -> Response:
    refusal = cast(Refusal, error)
    _LOG.info("%s %s: %d %s", request.method, request.url.path, refusal.status, refusal)
    return _error(refusal.status, refusal.sentence)


async def _http_error(request: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    sentences = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }
    response = _error(refusal.status_code, sentences.get(refusal.status_code, refusal.detail))
    response.headers.update(refusal.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed: %r", request.method, request.url.path, error)
    return _error(500, "the boot handler failed at this; its log in the provisioner says why")
