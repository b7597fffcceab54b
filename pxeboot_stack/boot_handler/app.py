"""The boot handler over HTTP: routes, limits and the shape of errors. Every decision is in :mod:`.handler`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contracts.report import MAX_REPORT_BYTES
from pxeboot_stack.boot_handler import moment
from pxeboot_stack.boot_handler.documents import JSON, Document
from pxeboot_stack.boot_handler.handler import BootHandler
from pxeboot_stack.boot_handler.metrics import MEDIA_TYPE, Metrics
from pxeboot_stack.boot_handler.refusal import Refusal
from pxeboot_stack.boot_handler.settings import Settings
from pxeboot_stack.boot_handler.upkeep import Upkeep
from pxeboot_stack.logs import mask_tokens

_LOG = logging.getLogger(__name__)
CLIENT_HEADER = "x-real-ip"
_LOOPBACK = frozenset({"127.0.0.1", "::1"})


def create_app(settings: Settings) -> Starlette:
    """Return the boot handler's application.

    Requests are answered one at a time: the work is a few small files, and nothing has to be locked. The upkeep
    (:mod:`.upkeep`) runs from the server's start to its end, between requests.

    :raises OSError: if the folder of tokens cannot be made.
    """
    handler, metrics = BootHandler(settings), Metrics()
    upkeep = Upkeep(handler, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(upkeep.run())
        yield
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    routes = _routes_of_machines(handler) | _routes_of_people(upkeep, metrics)
    return Starlette(
        routes=[
            Route(path, _counted(path, endpoint, metrics), methods=[method])
            for path, (method, endpoint) in routes.items()
        ],
        exception_handlers={Refusal: _refusal, HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )


_Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]
_Routes = dict[str, tuple[str, _Endpoint]]  # by path: method and endpoint


def _routes_of_machines(handler: BootHandler) -> _Routes:
    async def chain(request: Request) -> Response:
        return _response(handler.chain_script(client=find_client(request)))

    async def boot_script(request: Request) -> Response:
        if moment.begin():
            asyncio.get_running_loop().call_soon(moment.end)  # after all that wait now
        return _response(handler.boot_script(_require_mac_parameter(request), client=find_client(request)))

    async def read(request: Request) -> Response:
        token, path = request.path_params["token"], request.path_params["document"]
        return _response(handler.machine_document(token, path, client=find_client(request)))

    async def report(request: Request) -> Response:
        body = await _read_body(request)
        return _response(handler.take_report(request.path_params["token"], body, client=find_client(request)))

    return {
        "/boot.ipxe": ("GET", chain),
        "/ipxe": ("GET", boot_script),
        "/m/{token}/report": ("POST", report),
        "/m/{token}/{document:path}": ("GET", read),
    }


def _routes_of_people(upkeep: Upkeep, metrics: Metrics) -> _Routes:
    async def alive(_: Request) -> Response:
        return _json({"alive": upkeep.is_alive()}, status=200 if upkeep.is_alive() else 503)

    async def ready(_: Request) -> Response:
        problems = upkeep.problems()
        return _json({"ready": not problems, "problems": problems}, status=503 if problems else 200)

    async def show_metrics(_: Request) -> Response:
        return Response(upkeep.render_metrics(metrics), media_type=MEDIA_TYPE, headers={"cache-control": "no-store"})

    return {"/healthz": ("GET", alive), "/readyz": ("GET", ready), "/metrics": ("GET", show_metrics)}


def _counted(route: str, endpoint: _Endpoint, metrics: Metrics) -> _Endpoint:
    """Return *endpoint*, with its answers counted, refusals and failures too."""

    async def counted(request: Request) -> Response:
        begun, status = time.perf_counter(), 500
        try:
            response = await endpoint(request)
            status = response.status_code
        except Refusal as refusal:
            status = refusal.status
            raise
        finally:
            metrics.count(route, status, time.perf_counter() - begun)
        return response

    return counted


def find_client(request: Request) -> str | None:
    """Return the address nginx saw the request come from, or None if the request did not come through nginx."""
    values = request.headers.getlist(CLIENT_HEADER)
    if request.client is None or request.client.host not in _LOOPBACK or len(values) != 1:
        return None
    try:
        return str(ipaddress.ip_address(values[0]))
    except ValueError:
        return None


def _response(answer: Document) -> Response:
    # A machine that asks twice is to be told what is true now.
    return Response(answer.body, media_type=answer.media_type, headers={"cache-control": "no-store"})


def _json(data: Mapping[str, object], *, status: int) -> Response:
    text = json.dumps(data, indent=2) + "\n"
    return Response(text, status_code=status, media_type=JSON, headers={"cache-control": "no-store"})


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
    _LOG.info("%s %s: %s", request.method, request.url.path, refusal, extra={"status": refusal.status})
    return _error(refusal.status, refusal.sentence)


async def _http_error(request: Request, error: Exception) -> Response:
    refusal = cast(HTTPException, error)
    sentences = {
        404: f"there is nothing at {mask_tokens(request.url.path)}",
        405: f"{request.method} is not possible at {mask_tokens(request.url.path)}",
    }
    response = _error(refusal.status_code, sentences.get(refusal.status_code, refusal.detail))
    response.headers.update(refusal.headers or {})
    return response


async def _unexpected(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed: %r", request.method, request.url.path, error)
    return _error(500, "the boot handler failed at this; its log in the provisioner says why")
