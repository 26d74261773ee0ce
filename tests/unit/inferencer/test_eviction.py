import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from fusebus.inferencer.eviction import Event, Notices, ending, watch


@pytest.mark.parametrize(
    ("event", "name", "ends"),
    [
        (Event(event_type="Preempt", resources=["node_7"]), "node_7", True),
        (Event(event_type="Preempt", resources=["node_8"]), "node_7", False),
        (Event(event_type="Freeze", resources=["node_7"]), "node_7", False),
        (Event(event_type="Terminate", resources=["node_8"]), "", True),
    ],
)
def test_only_a_notice_for_this_node_that_ends_it_counts(event: Event, name: str, ends: bool) -> None:
    assert (ending(Notices(events=[event]), name) is event) == ends


class Metadata:
    """What a node's metadata service answers; at first nothing sensible."""

    def __init__(self) -> None:
        self.answers = [web.Response(status=503), web.Response(text="{"), web.json_response({"Events": []})]
        self.asked = 0
        self.knows_its_name = True

    async def answer(self, request: web.Request) -> web.Response:
        assert request.headers["Metadata"] == "true"
        if request.path.endswith("/name"):
            return web.Response(text="node_7") if self.knows_its_name else web.Response(status=500)
        self.asked += 1
        if self.asked <= len(self.answers):
            return self.answers[self.asked - 1]
        notice = {"EventId": "x", "EventType": "Preempt", "Resources": ["node_7"], "NotBefore": "soon"}
        return web.json_response({"DocumentIncarnation": 2, "Events": [notice]})


@pytest.fixture
async def metadata() -> AsyncIterator[tuple[Metadata, str]]:
    answers, app = Metadata(), web.Application()
    app.router.add_get("/{path:.*}", answers.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield answers, f"http://127.0.0.1:{runner.addresses[0][1]}/metadata"
    await runner.cleanup()


async def test_a_notice_of_eviction_is_a_stop_and_silence_is_not(metadata: tuple[Metadata, str]) -> None:
    answers, url = metadata
    stop = asyncio.Event()
    await asyncio.wait_for(watch(url, 0.01, stop.set), 10)
    assert stop.is_set()
    assert answers.asked == 4


async def test_a_notice_is_heard_though_the_nodes_name_cannot_be_had(metadata: tuple[Metadata, str]) -> None:
    answers, url = metadata
    answers.knows_its_name = False
    stop = asyncio.Event()
    await asyncio.wait_for(watch(url, 0.01, stop.set), 10)
    assert stop.is_set()
