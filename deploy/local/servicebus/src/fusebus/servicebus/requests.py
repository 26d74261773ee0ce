"""Request-response nodes: a link that takes requests, links that carry the answers, and how both find each other."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.decoding import decode
from fusebus.servicebus.amqp.performatives import RECEIVER, Attach, Target, Transfer
from fusebus.servicebus.amqp.types import CodecError, Int, Symbol
from fusebus.servicebus.conditions import MESSAGE_SIZE_EXCEEDED, Refusal
from fusebus.servicebus.engine.errors import InvalidArgument
from fusebus.servicebus.engine.rights import Right
from fusebus.servicebus.link import Inbound, Outbound
from fusebus.servicebus.session import ACCEPTED

if TYPE_CHECKING:
    from fusebus.servicebus.session import Session

logger = logging.getLogger(__name__)

CLAIMS_NODE = "$cbs"
MANAGEMENT_SUFFIX = "/$management"
ANY_RIGHT = (Right.LISTEN, Right.SEND)  # each operation of a management node asks for its own
MAX_REQUEST_BYTES = 1 << 20  # unless its node takes larger ones
HEAD_BYTES = 4096  # kept of a request that is larger: what comes before its body, as far as an answer needs it
NOTHING = 204  # the status of an answer that lists nothing


@dataclass(frozen=True, slots=True)
class Request:
    """One decoded request."""

    operation: str
    properties: dict[str, Any]
    body: Any


@dataclass(frozen=True, slots=True)
class Response:
    """Application properties and body of an answer."""

    properties: dict[str, Any]
    body: Any = field(default_factory=dict)


Body = dict[str, Any]  # of a management request or answer


class Handler(Protocol):
    """Answers the requests of one node."""

    max_request_bytes: int

    def __call__(self, request: Request) -> Response:
        """What the request led to, be it an error."""

    def refuse(self, refusal: Refusal) -> Response:
        """The answer to a request that is not even looked at, as this node words it."""


class ResponseLink(Outbound):
    """Carries answers to the client; without credit they wait."""

    def __init__(self, session: Session, attach: Attach, node: str, guarded: str) -> None:
        super().__init__(session, attach)
        self.guarded = guarded
        self.rights = ANY_RIGHT if guarded else ()
        self.node = node.lower()
        self.reply_address = attach.target.address if isinstance(attach.target, Target) else None
        self._waiting: deque[bytes] = deque()
        self._tag = 0

    def respond(self, encoded: bytes) -> None:
        """Sends an encoded answer now or when there is credit."""
        self._waiting.append(encoded)
        self.session.connection.hold(len(encoded))
        self.credit_changed()

    def credit_changed(self) -> None:
        while self._waiting and self.credit > 0:
            self._tag += 1
            encoded = self._waiting.popleft()
            self.session.connection.hold(-len(encoded))
            self.transfer(self._tag.to_bytes(8, "big"), encoded, settled=True)

    def closed(self) -> None:
        self.session.connection.hold(-sum(map(len, self._waiting)))
        self._waiting.clear()


class RequestLink(Inbound):
    """Takes requests, answers each on the response link that its reply-to, or else the node, names."""

    head_bytes = HEAD_BYTES

    def __init__(self, session: Session, attach: Attach, node: str, guarded: str, handler: Handler) -> None:
        super().__init__(session, attach)
        self.guarded = guarded
        self.rights = ANY_RIGHT if guarded else ()
        self._handler = handler
        self.max_message_bytes = handler.max_request_bytes
        self._node = node.lower()

    def arrived(self, first: Transfer, payload: bytes, size: int) -> None:
        if not first.settled:
            assert first.delivery_id is not None
            self.session.send_disposition(RECEIVER, first.delivery_id, ACCEPTED)
        if size > self.max_message_bytes:
            self._refuse(payload, size)
            return
        try:
            parsed = sections.parse_message(payload)
            body = sections.body_value(payload)
        except CodecError as error:
            logger.warning("a request was malformed: %s", error)
            return
        properties = {str(key): value for key, value in parsed.application_properties.items()}
        response = self._handler(Request(str(properties.get("operation", "")), properties, body))
        self._respond(parsed.properties, response)

    def _refuse(self, head: bytes, size: int) -> None:
        """An answer, for the SDKs' callers wait for one: they are told neither of a rejection nor of a detach."""
        text = f"a request of {size} bytes; at most {self.max_message_bytes} are allowed"
        self._respond(_properties_in(head), self._handler.refuse(Refusal(MESSAGE_SIZE_EXCEEDED, text, status=403)))

    def _respond(self, asked: dict[str, Any], response: Response) -> None:
        """Sends the answer to the request with the properties `asked`."""
        link = self._response_link(asked.get("reply_to"))
        if link is None:
            logger.warning("no link for the answer to a request at %s", self._node)
            return
        # The SDK matches answers by the request's message-id; rhea's users may set a correlation-id of their own.
        correlation = asked.get("message_id") or asked.get("correlation_id")
        link.respond(sections.message([None] * 5 + [correlation], response.properties, response.body))

    def _response_link(self, reply_to: Any) -> ResponseLink | None:
        candidates = [link for link in self.session.connection.links() if isinstance(link, ResponseLink)]
        for link in candidates:
            if reply_to is not None and link.reply_address == reply_to and link.node == self._node:
                return link
        return next((link for link in candidates if link.node == self._node), None)


def _properties_in(head: bytes) -> dict[str, Any]:
    """The properties by name of a message of which only the beginning is there; none if they go on behind it."""
    try:
        for code, start, _ in sections.sections_of(head):
            if code == sections.PROPERTIES:
                fields, _ = decode(head, start)
                return dict(zip(sections.PROPERTY_NAMES, fields if isinstance(fields, list) else (), strict=False))
    except CodecError:
        logger.warning("a request that is too large does not say who asks")
    return {}


def refused(refusal: Refusal) -> Response:
    """The answer of `$management` to a request that failed."""
    return Response(
        {
            "statusCode": Int(refusal.status),
            "statusDescription": str(refusal),
            "errorCondition": Symbol(refusal.condition),
        }
    )


def ok(body: Body, status: int = 200) -> Response:
    """The answer of `$management` to a request that worked."""
    return Response({"statusCode": Int(status), "statusDescription": "OK" if status == 200 else "No content"}, body)


def item(body: Body, name: str, kind: type) -> Any:
    """A part of a request's body; raises InvalidArgument if it is missing or of another type."""
    value = body.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidArgument(f"{name} must be a {kind.__name__}")
    return value


def optional(body: Body, name: str, kind: type) -> Any:
    """The same for a part that may be null or absent."""
    return None if body.get(name) is None else item(body, name, kind)


def items(body: Body, name: str, kind: type) -> list[Any]:
    """The same for a list or array of such parts."""
    values = body.get(name)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise InvalidArgument(f"{name} must be a list of {kind.__name__}")
    return values
