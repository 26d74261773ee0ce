"""The instance metadata service of each node: its name, and Scheduled Events in the format of version 2020-07-01."""

from __future__ import annotations

from aiohttp import web

from fusebus.localbatch import views
from fusebus.localbatch.entities import BatchProblem, Node
from fusebus.localbatch.routes import answers
from fusebus.localbatch.routes.front import Front

ROOT = "/local/metadata/{pool}/{node}"
"""Stands for http://169.254.169.254/metadata as seen by this node."""


class _Metadata:
    def __init__(self, front: Front) -> None:
        self._front, self._state = front, front.state

    def _node(self, request: web.Request) -> Node:
        """The node that asks; the header and the version are demanded as by the real service."""
        if request.headers.get("Metadata", "").lower() != "true" or "X-Forwarded-For" in request.headers:
            raise BatchProblem(400, "BadRequest", "Required metadata header not specified")
        if not request.query.get("api-version"):
            raise BatchProblem(400, "BadRequest", "api-version was not specified in the request")
        node = self._state.node(request.match_info["pool"], request.match_info["node"])
        if not node.has_machine:
            raise BatchProblem(404, "NodeNotFound", f"The node {node.id} has no machine.")
        return node

    async def events(self, request: web.Request) -> web.Response:
        return web.json_response(views.scheduled_events(self._node(request)))

    async def start(self, request: web.Request) -> web.Response:
        """The node says that it is ready: the event happens now."""
        node, body = self._node(request), await answers.body_of(request)
        for event in body.get("StartRequests") or []:
            self._state.acknowledge(request.match_info["pool"], node.id, str(event.get("EventId")))
        return answers.plain(200)

    async def name(self, request: web.Request) -> web.Response:
        return web.Response(text=self._node(request).id)

    async def instance(self, request: web.Request) -> web.Response:
        node, pool = self._node(request), self._state.pool(request.match_info["pool"])
        priority = "Regular" if node.dedicated else "Spot"
        facts = {"name": node.id, "vmSize": pool.size, "location": self._front.location, "priority": priority}
        return web.json_response({"compute": facts})


def routes(front: Front) -> list[web.RouteDef]:
    metadata = _Metadata(front)
    return [
        web.get(f"{ROOT}/scheduledevents", metadata.events),
        web.post(f"{ROOT}/scheduledevents", metadata.start),
        web.get(f"{ROOT}/instance/compute/name", metadata.name),
        web.get(f"{ROOT}/instance", metadata.instance),
    ]
