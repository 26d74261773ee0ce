"""`$cbs`: takes tokens; and what a connection may do by them, until they expire."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING

from fusebus.servicebus import sas
from fusebus.servicebus.amqp.performatives import Error
from fusebus.servicebus.amqp.types import Int
from fusebus.servicebus.conditions import UNAUTHORIZED, Refusal, refusal_of
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.rights import Right
from fusebus.servicebus.gateway import Gateway
from fusebus.servicebus.requests import MANAGEMENT_SUFFIX, MAX_REQUEST_BYTES, Request, Response

if TYPE_CHECKING:
    from fusebus.servicebus.connection import Connection

PUT_TOKEN = "put-token"  # noqa: S105 - the name of an operation
MAX_CLAIMS = 5000  # per connection: one for each link of a JavaScript client
MAX_TIMER_SECONDS = 3600.0  # an expiry that lies further ahead is looked at again then


class Claims:
    """One connection's verified tokens, by the address each was put for; links without one left are detached."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection = weakref.proxy(connection)  # which has this: both shall go at once
        self._clock = connection.gateway.clock
        self._by_address: dict[str, sas.Claim] = {}
        self._timer: asyncio.TimerHandle | None = None

    def allow(self, path: str, right: Right) -> bool:
        """Whether any of them gives that right to the entity at `path`, now."""
        now = self._clock()
        own = self._by_address.get(path.lower())  # where it nearly always is
        if own is not None and own.allows(path, right, now):
            return True
        return any(claim.allows(path, right, now) for claim in self._by_address.values())

    def add(self, address: str, claim: sas.Claim) -> bool:
        """Takes a new one, or one that replaces an earlier one; False if there are too many."""
        if address not in self._by_address and len(self._by_address) >= MAX_CLAIMS:
            return False
        self._by_address[address] = claim
        self._wait()
        return True

    def close(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self.close()
        earliest = min((claim.expires_at for claim in self._by_address.values()), default=float("inf"))
        if earliest < float("inf"):
            delay = min(max(0.0, earliest - self._clock()), MAX_TIMER_SECONDS)
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now = self._clock()
        expired = [address for address, claim in self._by_address.items() if claim.expires_at <= now]
        for address in expired:
            del self._by_address[address]
        if expired:
            self._detach()
        self._wait()

    def _detach(self) -> None:
        for link in self._connection.links():
            if not link.authorized:
                text = f"ExpiredToken: the token for {link.guarded} has expired, and no new one was put"
                link.detach(Error(condition=UNAUTHORIZED, description=text))


class ClaimsNode:
    """Answers put-token with 202, 400 (not a put-token), 401 (bad token) or 404 (no such entity)."""

    max_request_bytes = MAX_REQUEST_BYTES

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

    def refuse(self, refusal: Refusal) -> Response:
        return _answer(refusal.status, str(refusal))

    def _remember(self, path: str, claim: sas.Claim) -> Response:
        if path:
            try:
                self._gateway.engine.resolve(_without_management(path))
            except EngineError as error:
                return _answer(refusal_of(error).status, str(error))
        # The JavaScript SDK signs for the management node, the Python SDK for its entity.
        claim = replace(claim, path=_without_management(claim.path))
        if not self._connection.claims.add(path.lower(), claim):
            return _answer(403, "too many claims on one connection")
        return _answer(202, "Accepted")


def _without_management(path: str) -> str:
    return path[: -len(MANAGEMENT_SUFFIX)] if path.lower().endswith(MANAGEMENT_SUFFIX) else path


def _answer(status: int, description: str) -> Response:
    return Response({"status-code": Int(status), "status-description": description})
