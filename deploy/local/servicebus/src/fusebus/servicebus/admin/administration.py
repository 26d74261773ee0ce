"""The administration API over HTTP: aiohttp's requests in, its responses out."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from fusebus.servicebus.admin.api import AdministrationApi, Answer, Authorize, Request, refusal_answer
from fusebus.servicebus.admin.reader import MAX_BODY_BYTES
from fusebus.servicebus.engine import Engine
from fusebus.servicebus.tier import Tier

HEALTH_PATH: Final = "/health"
API_VERSION: Final = "api-version"


class Administration:
    """`authorize(authorization header or None, entity path, right)` says what a request may do."""

    def __init__(self, engine: Engine, authorize: Authorize, tier: Tier = Tier.STANDARD) -> None:
        self._api = AdministrationApi(engine, authorize, tier)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; refusals are ATOM errors with status 400, 401, 404, 405, 409, 412 or 413."""
        if _asks_for_health(request):
            return web.json_response({"status": "ok"})
        asked = Request(
            request.method,
            request.raw_path,
            f"{request.scheme}://{request.host}",
            request.query,
            request.headers,
        )
        refusal = self._api.check(asked)
        if refusal is not None:
            return _response(refusal)
        body = await _body(request)
        if body is None:
            return _response(refusal_answer(413, f"The request body is larger than {MAX_BODY_BYTES} bytes."))
        return _response(self._api.answer(asked, body))


def _asks_for_health(request: web.BaseRequest) -> bool:
    """An entity may have that name: both SDKs say which version of the API they mean, a probe does not."""
    return request.path == HEALTH_PATH and request.method in ("GET", "HEAD") and API_VERSION not in request.query


async def _body(request: web.BaseRequest) -> bytes | None:
    """None if it is too large; no more than the limit is ever held."""
    parts = bytearray()
    async for part in request.content.iter_any():
        parts += part
        if len(parts) > MAX_BODY_BYTES:
            return None
    return bytes(parts)


def _response(answer: Answer) -> web.Response:
    kind = "application/atom+xml" if answer.status < 400 else "application/xml"
    if not answer.text:
        return web.Response(status=answer.status)
    response = web.Response(status=answer.status, text=answer.text, content_type=kind, charset="utf-8")
    if answer.etag is not None:
        response.headers["ETag"] = answer.etag
    return response
