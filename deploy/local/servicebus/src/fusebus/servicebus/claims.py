"""`$cbs`: takes tokens, and remembers for the connection what they allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fusebus.servicebus import sas
from fusebus.servicebus.amqp.types import Int
from fusebus.servicebus.conditions import refusal_of
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.requests import MANAGEMENT_SUFFIX, Request, Response

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

PUT_TOKEN = "put-token"  # noqa: S105 - the name of an operation
MAX_CLAIMS = 1000  # per connection


class Claims:
    """Answers put-token with 202, 400 (not a put-token), 401 (bad token) or 404 (no such entity)."""

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self._gateway = gateway
        self._connection = connection

    def __call__(self, request: Request) -> Response:
        if request.operation != PUT_TOKEN:
            return _answer(400, "only put-token is understood here")
        path = sas.entity_path(str(request.properties.get("name", "")))
        try:
            claim = self._gateway.verify(request.body if isinstance(request.body, str) else "")
        except sas.SasError as error:
            return _answer(401, f"unauthorized: {error}")
        if not claim.covers(path, self._gateway.clock()):
            return _answer(401, "unauthorized: the token is for another entity")
        return self._remember(path, claim)

    def _remember(self, path: str, claim: sas.Claim) -> Response:
        if path:
            try:
                self._gateway.engine.resolve(_without_management(path))
            except EngineError as error:
                return _answer(refusal_of(error).status, str(error))
        claims = self._connection.claims
        if path.lower() not in claims and len(claims) >= MAX_CLAIMS:
            return _answer(403, "too many claims on one connection")
        claims[path.lower()] = claim
        return _answer(202, "Accepted")


def _without_management(path: str) -> str:
    return path[: -len(MANAGEMENT_SUFFIX)] if path.lower().endswith(MANAGEMENT_SUFFIX) else path


def _answer(status: int, description: str) -> Response:
    return Response({"status-code": Int(status), "status-description": description})
