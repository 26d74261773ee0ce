"""Which node a link's address means, and whether the client may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusebus.servicebus.amqp.performatives import RECEIVER, Attach, Source, Target
from fusebus.servicebus.claims import ClaimsNode
from fusebus.servicebus.conditions import INVALID_FIELD, UNAUTHORIZED, Refusal
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.link import Link
from fusebus.servicebus.management import Management
from fusebus.servicebus.receivers import EntityReceiver
from fusebus.servicebus.requests import CLAIMS_NODE, MANAGEMENT_SUFFIX, Handler, RequestLink, ResponseLink
from fusebus.servicebus.sas import entity_path
from fusebus.servicebus.senders import EntitySender
from fusebus.servicebus.session import Session
from fusebus.servicebus.session_receivers import SessionReceiver, asks_for_session

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection


def open_link(gateway: Gateway, connection: Connection, session: Session, attach: Attach) -> Link:
    """The link that an attach asks for; raises Refusal or EngineError."""
    node = _node(attach.source if attach.role == RECEIVER else attach.target)
    if node.lower() == CLAIMS_NODE:
        return _request_response(session, attach, node, "", ClaimsNode(gateway, connection))
    if node.lower().endswith(MANAGEMENT_SUFFIX):
        path = gateway.engine.resolve(node[: -len(MANAGEMENT_SUFFIX)]).path
        link = _request_response(session, attach, node, path, Management(gateway, connection, path))
    else:
        link = _entity_link(gateway, session, attach, gateway.engine.resolve(node).path)
    if not link.authorized:
        names = " or ".join(right.value for right in link.rights)
        raise Refusal(UNAUTHORIZED, f"Unauthorized access: a claim to {names} on {link.guarded} is required", 401)
    return link


def _entity_link(gateway: Gateway, session: Session, attach: Attach, path: str) -> Link:
    if attach.role != RECEIVER:
        return EntitySender(gateway, session, attach, path)
    if asks_for_session(attach):
        return SessionReceiver(gateway, session, attach, path)
    return EntityReceiver(gateway, session, attach, path)


def _request_response(session: Session, attach: Attach, node: str, guarded: str, handler: Handler) -> Link:
    if attach.role == RECEIVER:
        return ResponseLink(session, attach, node, guarded)
    return RequestLink(session, attach, node, guarded, handler)


def _node(terminus: Any) -> str:
    """The path in a terminus' address, with scheme and authority gone."""
    if not isinstance(terminus, Source | Target) or not isinstance(terminus.address, str):
        raise Refusal(INVALID_FIELD, "the link's address must be a string; dynamic nodes are not supported")
    return entity_path(terminus.address)
