"""What the port answers to HTTP: the administration API and, if opened, orders for failures."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from aiohttp import web

from fusebus.servicebus import websocket
from fusebus.servicebus.admin import Administration
from fusebus.servicebus.connection import Connection
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.fault_orders import carry_out
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
        try:
            async with asyncio.timeout(self._broker.gateway.bounds.handshake_seconds):
                return await self._answer(request)
        except TimeoutError:
            self._broker.gateway.tallies.late.add()
            answer = web.Response(status=408, text="the request's body took too long")
            answer.force_close()
            return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == FAULTS_PATH and self._broker.options.faults:
            return await self._order(request)
        answer = await self._administration.handle(request)
        if not self._broker.committed():
            return web.Response(status=503, text="the broker cannot write to its disk; what was asked may be lost")
        return answer

    async def _order(self, request: web.BaseRequest) -> web.Response:
        """POST {"action": ...}: answers {"count": how many things it concerns}; see fault_orders.py."""
        try:
            order = json.loads(await request.text())
            if request.method != "POST" or not isinstance(order, dict):
                raise ValueError("POST one JSON object")
            return web.json_response({"count": carry_out(self._broker, order)})
        except (ValueError, KeyError, TypeError, EngineError) as error:
            return web.json_response({"error": str(error) or type(error).__name__}, status=400)
