"""What the port answers to HTTP: the administration API and, if opened, orders for failures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from fusebus.servicebus import websocket
from fusebus.servicebus.admin import Administration
from fusebus.servicebus.conditions import DETACH_FORCED, SERVER_BUSY
from fusebus.servicebus.connection import Connection
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.websocket import WEBSOCKET_PATH

if TYPE_CHECKING:
    from fusebus.servicebus.broker import Broker

FAULTS_PATH = "/$faults"


class HttpFront:
    """Dispatches requests; everything but `/$faults` is administration."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._administration = Administration(broker.engine, broker.gateway.authorizes, broker.gateway.tier)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request."""
        self._broker.gateway.lobby.request_arrived(request.transport)
        if request.path == WEBSOCKET_PATH:
            return await websocket.serve(request, lambda: Connection(self._broker.gateway))
        if request.path == FAULTS_PATH and self._broker.options.faults:
            return await self._order(request)
        answer = await self._administration.handle(request)
        if not self._broker.committed():
            return web.Response(status=503, text="the broker cannot write to its disk; what was asked may be lost")
        return answer

    async def _order(self, request: web.BaseRequest) -> web.Response:
        """POST {"action": ...}: answers {"count": how many links, locks or renewals it concerns}."""
        try:
            order = json.loads(await request.text())
            if request.method != "POST" or not isinstance(order, dict):
                raise ValueError("POST one JSON object")
            return web.json_response({"count": self._carry_out(order)})
        except (ValueError, KeyError, TypeError, EngineError) as error:
            return web.json_response({"error": str(error) or type(error).__name__}, status=400)

    def _carry_out(self, order: dict[str, Any]) -> int:
        action = order.get("action")
        if action == "detach":
            return self._broker.detach_links(order["entity"], order.get("condition", DETACH_FORCED))
        if action == "lose-locks":
            return self._broker.lose_locks(order["entity"])
        if action == "fail-renewals":
            count = int(order.get("count", 1))
            self._broker.faults.fail_renewals(count, order.get("entity"), order.get("condition", SERVER_BUSY))
            return count
        raise ValueError("action must be detach, lose-locks or fail-renewals")
