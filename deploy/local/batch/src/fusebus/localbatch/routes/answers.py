"""Reads requests and writes answers: JSON, lists with pages, conditions on ETags and times, refusals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

from aiohttp import web

from fusebus.localbatch import odata
from fusebus.localbatch.entities import BatchProblem
from fusebus.localbatch.request_faults import Plane

ARM_PREFIX = "/subscriptions/"


def plane_of(request: web.Request) -> Plane:
    return Plane.ARM if request.path.startswith(ARM_PREFIX) else Plane.DATA


async def body_of(request: web.Request) -> dict[str, Any]:
    text = await request.text()
    if not text.strip():
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise BatchProblem(400, "InvalidRequestBody", "The body is not JSON.") from error
    if not isinstance(body, dict):
        raise BatchProblem(400, "InvalidRequestBody", "The body is not a JSON object.")
    return body


def base_of(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def plain(status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """An answer without a body."""
    return web.Response(status=status, headers=headers)


def one(request: web.Request, view: Mapping[str, Any], etag: str | None = None) -> web.Response:
    """One thing as JSON, with what `$select` wants of it."""
    return web.json_response(
        odata.selected(dict(view), request.query.get("$select")), headers={"ETag": etag} if etag else None
    )


def listing(
    request: web.Request, found: Sequence[dict[str, Any]], key: str = "id", link: str = "odata.nextLink"
) -> web.Response:
    """A page of what fits the filter, in the order of `key`."""
    items, following = odata.page(odata.matching(found, request.query.get("$filter")), request.query, key)
    answer: dict[str, Any] = {"value": [odata.selected(item, request.query.get("$select")) for item in items]}
    if following is not None:
        answer[link] = str(request.url.update_query({"$skiptoken": following}))
    return web.json_response(answer)


def check_conditions(request: web.Request, etag: str, modified: float) -> None:
    """Raise 412, or 304 for a read, unless the headers' conditions hold; `modified` in seconds since 1970."""
    reading = request.method in ("GET", "HEAD")
    headers = request.headers
    match, none_match = headers.get("If-Match"), headers.get("If-None-Match")
    if match not in (None, "*", etag):
        raise BatchProblem(412, "ConditionNotMet", f"It has changed: its ETag is {etag}.")
    since, unmodified = _time_of(headers.get("If-Modified-Since")), _time_of(headers.get("If-Unmodified-Since"))
    if none_match in ("*", etag) or (since is not None and int(modified) <= since):
        raise BatchProblem(304 if reading else 412, "ConditionNotMet", "It has not changed.")
    if unmodified is not None and int(modified) > unmodified:
        raise BatchProblem(412, "ConditionNotMet", f"It has changed at {formatdate(modified, usegmt=True)}.")


def _time_of(header: str | None) -> float | None:
    if header is None:
        return None
    try:
        return parsedate_to_datetime(header).timestamp()
    except ValueError as error:
        raise BatchProblem(400, "InvalidHeaderValue", f"{header!r} is not a time.") from error


def error_body(problem: BatchProblem) -> dict[str, Any]:
    """An error as the data plane writes it."""
    return {"code": problem.code, "message": {"lang": "en-US", "value": problem.message}}


def refusal(request: web.Request, problem: BatchProblem, retry_after: float | None = None) -> web.Response:
    """ARM and the data plane wrap their errors differently; `retry_after` in seconds."""
    headers = {"x-ms-error-code": problem.code}
    if retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if problem.status == 304:
        return web.Response(status=304, headers=headers)
    if plane_of(request) is Plane.ARM:
        body: dict[str, Any] = {"error": {"code": problem.code, "message": problem.message}}
    else:
        body = error_body(problem)
    return web.json_response(body, status=problem.status, headers=headers)
