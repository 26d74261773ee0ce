"""HTTP requests of the administration API, answered from the engine."""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from fusebus.servicebus.admin.atom import (
    Entry,
    description,
    element,
    entry_document,
    error_document,
    feed_document,
    parse_description,
)
from fusebus.servicebus.admin.durations import format_instant
from fusebus.servicebus.admin.resources import Collection, Target, find_target
from fusebus.servicebus.engine import (
    Engine,
    EngineError,
    EntityExists,
    EntityNotFound,
    InvalidArgument,
)

HEALTH_PATH: Final = "/health"
MAX_PAGE: Final = 100  # entries, as in the service
_STATUS: Final[dict[type[EngineError], int]] = {EntityNotFound: 404, EntityExists: 409}


class Administration:
    """`authorize(authorization header or None, entity path)` says whether a request may manage that entity."""

    def __init__(self, engine: Engine, authorize: Callable[[str | None, str], bool]) -> None:
        self._engine = engine
        self._authorize = authorize
        self._created_at = engine.now

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; refusals are ATOM errors with status 400, 401, 404, 405, 409 or 412."""
        if request.path == HEALTH_PATH:
            return web.json_response({"status": "ok"})
        try:
            target = find_target(request.raw_path, self._engine.namespace)
            if not self._authorize(request.headers.get("Authorization"), target.entity):
                return _error(401, "The token is missing, invalid, expired or not for this entity.")
            return self._answer(request, target, await request.read())
        except EngineError as error:
            return _error(_STATUS.get(type(error), 400), str(error))

    def _answer(self, request: web.BaseRequest, target: Target, body: bytes) -> web.Response:
        if target.collection is None:
            return _one(request, self._namespace_entry(request.host))
        if target.name is None:
            return _page(request, target.collection) if request.method == "GET" else _error(405, "Only GET.")
        if request.method == "GET":
            return _one(request, target.collection.get(target.name))
        if request.method == "PUT":
            return _put(request, target.collection, target.name, body)
        if request.method == "DELETE":
            target.collection.delete(target.name)
            return web.Response(status=200)
        return _error(405, "Only GET, PUT and DELETE.")

    def _namespace_entry(self, host: str) -> Entry:
        name = host.partition(":")[0]
        content = description(
            "NamespaceInfo",
            element("Alias", None),
            element("CreatedTime", format_instant(self._created_at)),
            element("MessagingSKU", "Standard"),
            element("ModifiedTime", format_instant(self._created_at)),
            element("Name", name),
            element("NamespaceType", "Messaging"),
        )
        return Entry("$namespaceinfo", name, self._created_at, self._created_at, content)


def _put(request: web.BaseRequest, collection: Collection, name: str, body: bytes) -> web.Response:
    """Create, or with If-Match update: `*` whatever is there, an ETag only what it belongs to."""
    found = parse_description(body)
    expected = request.headers.get("If-Match")
    if expected is None:
        return _one(request, collection.create(name, found), status=201)
    if expected not in ("*", collection.get(name).etag):
        return _error(412, f"'{name}' was changed since.")
    return _one(request, collection.update(name, found))


def _one(request: web.BaseRequest, entry: Entry, status: int = 200) -> web.Response:
    response = _document(entry_document(entry, _base(request)), status)
    response.headers["ETag"] = entry.etag
    return response


def _page(request: web.BaseRequest, collection: Collection) -> web.Response:
    skip, top = _number(request, "$skip", 0), min(_number(request, "$top", MAX_PAGE), MAX_PAGE)
    entries = collection.entries()
    page = entries[skip : skip + top]
    address = f"{_base(request)}{request.path}"
    more = skip + len(page) < len(entries) and bool(page)
    following = f"{address}?{_range(skip + len(page), top)}" if more else None
    own = f"{address}?{_range(skip, top)}"
    return _document(feed_document(collection.title, page, _base(request), own, following))


def _range(skip: int, top: int) -> str:
    return urlencode({"$skip": skip, "$top": top}, safe="$")


def _number(request: web.BaseRequest, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f"{name} must be a number from 0, not '{text}'.")
    return int(text)


def _base(request: web.BaseRequest) -> str:
    return f"{request.scheme}://{request.host}"


def _document(text: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=text, content_type="application/atom+xml", charset="utf-8")


def _error(status: int, detail: str) -> web.Response:
    return web.Response(
        status=status, text=error_document(status, detail), content_type="application/xml", charset="utf-8"
    )
