"""Puts the routes together; around each request: who may ask, injected faults, and the state machine's next step."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web

from fusebus.localbatch.entities import BatchProblem
from fusebus.localbatch.request_faults import Effect, Rule
from fusebus.localbatch.routes import answers, arm, files, jobs, local, metadata, nodes, pools, tasks
from fusebus.localbatch.routes.front import Front

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
MAX_BODY_BYTES = 4 * 1024 * 1024
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")

__all__ = ["Front", "application"]


def application(front: Front) -> web.Application:
    """All routes. `front.step` runs before and after each request."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await _answer(front, request, handler)
        response.headers["request-id"] = str(uuid.uuid4())
        if request.headers.get("return-client-request-id", "").lower() == "true":
            response.headers["client-request-id"] = request.headers.get("client-request-id", "")
        return response

    app = web.Application(middlewares=[around], client_max_size=MAX_BODY_BYTES)
    for part in (arm, pools, nodes, jobs, tasks, files, local, metadata):
        app.add_routes(part.routes(front))
    return app


async def _answer(front: Front, request: web.Request, handler: Handler) -> web.StreamResponse:
    if _is_foreign(request, front.host):
        return answers.refusal(request, BatchProblem(403, "AuthenticationFailed", "Not for web pages."))
    rule = None
    if not request.path.startswith("/local/"):
        plane = answers.plane_of(request)
        rule = front.request_faults.of(plane, request.method, request.path, front.state.clock())
    if rule is not None and rule.effect in (Effect.THROTTLE, Effect.ERROR):
        return _refused(request, rule)
    if rule is not None and rule.effect is Effect.DELAY:
        await asyncio.sleep(rule.seconds)
    response = await _carry_out(front, request, handler)
    if rule is not None and rule.effect is Effect.LOSE and request.transport is not None:
        request.transport.abort()
    return response


async def _carry_out(front: Front, request: web.Request, handler: Handler) -> web.StreamResponse:
    front.step()  # what is due by now comes before the request
    try:
        return await handler(request)
    except BatchProblem as problem:
        return answers.refusal(request, problem)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        what = f"{request.method} {request.path} is not among the calls that the local Batch answers."
        return answers.refusal(request, BatchProblem(501, "NotImplemented", what))
    except web.HTTPRequestEntityTooLarge:
        return answers.refusal(request, BatchProblem(413, "RequestBodyTooLarge", "The body is too large."))
    finally:
        front.step()


def _refused(request: web.Request, rule: Rule) -> web.Response:
    if rule.effect is Effect.THROTTLE:
        problem = BatchProblem(429, "TooManyRequests", "The server is receiving too many requests. Retry later.")
        return answers.refusal(request, problem, rule.retry_after)
    problem = BatchProblem(rule.status, rule.code, "Injected: the request was not carried out.")
    return answers.refusal(request, problem, rule.retry_after if rule.status in (429, 503) else None)


def _is_foreign(request: web.Request, own_host: str) -> bool:
    """Whether a web page, or a name that is made to point here, asks: it could run commands on this machine."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    return "Origin" in request.headers or host not in (*LOCAL_HOSTS, own_host)
