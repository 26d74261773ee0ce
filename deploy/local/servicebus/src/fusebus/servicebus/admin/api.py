"""Requests of the administration API, answered from the engine; nothing here knows the network."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import urlencode

from fusebus.servicebus.admin.atom import (
    Entry,
    description,
    element,
    entry_document,
    error_document,
    feed_document,
    parse_description,
    text_of,
)
from fusebus.servicebus.admin.descriptions import Site
from fusebus.servicebus.admin.durations import format_instant
from fusebus.servicebus.admin.fields import path_of
from fusebus.servicebus.admin.resources import Collection, Target, find_target
from fusebus.servicebus.engine import Engine, EngineError, EntityExists, EntityNotFound, InvalidArgument, Right
from fusebus.servicebus.tier import Tier

MAX_PAGE: Final = 100  # entries, as in the service
AUTHORIZATION: Final = "Authorization"
IF_MATCH: Final = "If-Match"
_MAX_DIGITS: Final = 9
SUPPLEMENTS: Final = {
    "ForwardTo": "ServiceBusSupplementaryAuthorization",
    "ForwardDeadLetteredMessagesTo": "ServiceBusDlqSupplementaryAuthorization",
}
"""Where a request says who may send to the entities that it forwards to."""
_STATUS: Final[dict[type[EngineError], int]] = {EntityNotFound: 404, EntityExists: 409}


class Authorize(Protocol):
    """Whether an authorization header, or its absence, gives a right to the entity at `path` ("": the namespace)."""

    def __call__(self, authorization: str | None, path: str, right: Right) -> bool: ...


@dataclass(frozen=True, slots=True)
class Request:
    """`raw_path` is still percent-encoded; `base` is the namespace's address, such as `https://localhost:5672`."""

    method: str
    raw_path: str
    base: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Looked up by the names that are written here: a front gives a mapping that knows no upper and lower case."""

    @property
    def host(self) -> str:
        return self.base.partition("://")[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """An XML document; a feed or an entry if `status` is below 400."""

    status: int
    text: str = ""
    etag: str | None = None


class Refused(Exception):
    """An answer other than the engine's own refusals."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class AdministrationApi:
    """Answers every request; refusals are ATOM errors with status 400, 401, 404, 405, 409 or 412."""

    def __init__(self, engine: Engine, authorize: Authorize, tier: Tier = Tier.STANDARD) -> None:
        self._engine = engine
        self._authorize = authorize
        self._tier = tier
        self._created_at = engine.now

    def check(self, request: Request) -> Answer | None:
        """The refusal of a sender who may not manage what he addresses; the body need not be read for it."""
        try:
            target = self._target(request)
        except EngineError as refusal:
            return refused(refusal)
        authorization = request.headers.get(AUTHORIZATION)
        if not any(self._authorize(authorization, path, Right.MANAGE) for path in (target.entity, target.address)):
            return refusal_answer(401, "The token is missing, invalid, expired or gives no right to manage this.")
        return None

    def answer(self, request: Request, body: bytes) -> Answer:
        """The answer to a request that was checked."""
        try:
            return self._answer(request, self._target(request), body)
        except Refused as refusal:
            return refusal_answer(refusal.status, str(refusal))
        except EngineError as refusal:
            return refused(refusal)

    def _target(self, request: Request) -> Target:
        site = Site(request.host, self._tier, self._engine.now)
        return find_target(request.raw_path, self._engine.namespace, site)

    def _answer(self, request: Request, target: Target, body: bytes) -> Answer:
        if target.collection is None:
            _expect_method(request, "GET")
            return _one(request, self._namespace_entry(request.host))
        if target.name is None:
            _expect_method(request, "GET")
            return _page(request, target.collection)
        _expect_method(request, "GET", "PUT", "DELETE")
        if request.method == "PUT":
            return self._put(request, target.collection, target.name, body)
        if request.method == "DELETE":
            _check_unchanged(request, target.collection, target.name)
            target.collection.delete(target.name)
            return Answer(200)
        return _one(request, target.collection.get(target.name))

    def _put(self, request: Request, collection: Collection, name: str, body: bytes) -> Answer:
        """Create, or with If-Match update."""
        found = parse_description(body)
        for setting, header in SUPPLEMENTS.items():
            self._check_forwarding(request, setting, header, text_of(found, setting))
        if request.headers.get(IF_MATCH) is None:
            return _one(request, collection.create(name, found), status=201)
        _check_unchanged(request, collection, name)
        return _one(request, collection.update(name, found))

    def _check_forwarding(self, request: Request, setting: str, header: str, address: str | None) -> None:
        """Raises Refused unless the supplementary token, or else the request's own, lets it send to the target."""
        if address is None:
            return
        authorization = request.headers.get(header) or request.headers.get(AUTHORIZATION)
        if not self._authorize(authorization, path_of(address), Right.SEND):
            raise Refused(401, f"{setting}: the token gives no right to send to '{path_of(address)}'.")

    def _namespace_entry(self, host: str) -> Entry:
        name = host.rpartition(":")[0] or host
        content = description(
            "NamespaceInfo",
            element("CreatedTime", format_instant(self._created_at)),
            element("MessagingSKU", self._tier.value),
            element("MessagingUnits", 1 if self._tier is Tier.PREMIUM else None),
            element("ModifiedTime", format_instant(self._created_at)),
            element("Name", name),
            element("NamespaceType", "Messaging"),
        )
        return Entry("$namespaceinfo", name, self._created_at, self._created_at, content)


def refused(error: EngineError) -> Answer:
    return refusal_answer(_STATUS.get(type(error), 400), str(error))


def refusal_answer(status: int, detail: str) -> Answer:
    return Answer(status, error_document(status, detail))


def _expect_method(request: Request, *allowed: str) -> None:
    if request.method not in allowed:
        raise Refused(405, f"{request.method} is not possible here, only {', '.join(allowed)}.")


def _check_unchanged(request: Request, collection: Collection, name: str) -> None:
    """Raises Refused unless If-Match is absent, `*` (whatever is there) or the ETag of what is there."""
    expected = request.headers.get(IF_MATCH)
    if expected not in (None, "*") and expected != collection.get(name).etag:
        raise Refused(412, f"'{name}' was changed since.")


def _one(request: Request, entry: Entry, status: int = 200) -> Answer:
    return Answer(status, entry_document(entry, request.base), entry.etag)


def _page(request: Request, collection: Collection) -> Answer:
    skip, top = _number(request, "$skip", 0), min(_number(request, "$top", MAX_PAGE), MAX_PAGE)
    page = collection.page(skip, top)
    address = f"{request.base}{request.raw_path.partition('?')[0]}"
    following = f"{address}?{_range(skip + top, top)}" if page.more and top else None
    own = f"{address}?{_range(skip, top)}"
    return Answer(200, feed_document(collection.title, page.entries, request.base, own, following))


def _range(skip: int, top: int) -> str:
    return urlencode({"$skip": skip, "$top": top}, safe="$")


def _number(request: Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise InvalidArgument(f"{name}: must be a number from 0, not '{text[:40]}'.")
    return int(text)
