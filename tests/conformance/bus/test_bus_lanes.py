"""Lanes through a real broker: an urgent run passes a large one, lanes share slots, and a run can be taken out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from fusebus.bus import Bus, ConsumerSettings, Context, apart, taking_out
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, ImageAccepted, JobKind, Lane
from fusebus.contracts.outcomes import Aside, Outcome, Outgoing, done, retry
from fusebus.contracts.topology import (
    ASIDE,
    UPLOAD_SUBSCRIPTIONS,
    image_subscription,
    image_subscriptions,
    upload_subscription,
)
from fusebus.inferencer.stages import Stage
from fusebus.inferencer.urgency import urgency_of

SLOTS = 4
DETECT = image_subscriptions(JobKind.DETECT)
Image = Callable[..., ImageAccepted]
Eventually = Callable[..., Awaitable[None]]


def run_of(image: Image, count: int, lane: Lane, run: str) -> list[Outgoing]:
    return [
        Outgoing(message=msgspec.structs.replace(image(f"{run}-{number}"), lane=lane, run_id=run))
        for number in range(count)
    ]


class Worker:
    """Does images as an inferencer does: those in hand go through a stage of one place by their urgency."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.finished: list[ImageAccepted] = []
        self.in_hand: Counter[str] = Counter()
        self._stage, self._seconds = Stage("model", 1), seconds

    async def __call__(self, work: ImageAccepted, context: Context) -> Outcome:
        self.in_hand[work.run_id] += 1
        await self._stage.enter(urgency_of(work))
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self._stage.leave()
            self.in_hand[work.run_id] -= 1
        self.finished.append(work)
        return done()

    def done(self, run: str) -> list[int]:
        return [place for place, work in enumerate(self.finished) if work.run_id == run]


@pytest.fixture
def consuming_lanes(bus: Bus, quick: ConsumerSettings) -> Any:
    """Starts consuming all lanes; stops at the end of the block."""

    class Consuming:
        def __init__(self, handler: Any, topic: str = "images", names: Sequence[str] = DETECT, **more: Any) -> None:
            self._stop = asyncio.Event()
            more = {"settings": quick, "slots": SLOTS, **more}
            self._work = bus.consume_lanes(topic, names, handler, stop=self._stop, **more)

        async def __aenter__(self) -> asyncio.Task[None]:
            self._task = asyncio.create_task(self._work)
            return self._task

        async def __aexit__(self, *error: object) -> None:
            self._stop.set()
            await asyncio.wait_for(self._task, 20)

    return Consuming


async def test_a_small_urgent_run_does_not_wait_behind_a_large_one(
    bus: Bus, image: Image, consuming_lanes: Any, eventually: Eventually
) -> None:
    worker = Worker()
    await bus.publisher().publish(run_of(image, 200, Lane.NORMAL, "large"))
    async with consuming_lanes(worker):
        await eventually(lambda: len(worker.finished) > 20)
        before = len(worker.finished)
        await bus.publisher().publish(run_of(image, 10, Lane.URGENT, "urgent"))
        await eventually(lambda: len(worker.done("urgent")) == 10)
        passed = worker.done("urgent")[-1] + 1 - before - 10
        assert passed < 60, f"{passed} images of the large run were done meanwhile, of 170 that waited before it"
        await eventually(lambda: len(worker.finished) == 210)


@pytest.mark.long
async def test_a_bulk_run_gets_what_the_others_leave_and_loses_nothing(
    bus: Bus, image: Image, consuming_lanes: Any, eventually: Eventually
) -> None:
    worker = Worker(0.005)
    await bus.publisher().publish([*run_of(image, 60, Lane.BULK, "bulk"), *run_of(image, 120, Lane.NORMAL, "normal")])
    async with consuming_lanes(worker):
        await eventually(lambda: len(worker.finished) == 180)
    nearly_over = worker.done("normal")[-20]
    assert sum(place > nearly_over for place in worker.done("bulk")) > 30, "most of it came after the other run"
    assert Counter(work.run_id for work in worker.finished) == {"bulk": 60, "normal": 120}


@pytest.mark.long
async def test_a_worker_of_lanes_is_idle_when_all_of_them_are(
    bus: Bus, image: Image, quick: ConsumerSettings, eventually: Eventually
) -> None:
    worker = Worker(0.0)
    consume = bus.consume_lanes("images", DETECT, worker, stop=asyncio.Event(), idle_exit=1.0, settings=quick)
    running = asyncio.create_task(consume)
    for number in range(4):  # in one lane after the other, never idle for a second
        await asyncio.sleep(0.5)
        lane = tuple(Lane)[number % 3]
        await bus.publisher().publish(run_of(image, 1, lane, f"run-{number}"))
        assert not running.done()
    await asyncio.wait_for(running, 10)
    assert len(worker.finished) == 4


async def test_a_retry_comes_back_in_its_own_lane(
    bus: Bus, image: Image, consuming_lanes: Any, eventually: Eventually, peek: Any
) -> None:
    seen: list[int] = []

    async def second_time(work: ImageAccepted, context: Context) -> Outcome:
        seen.append(context.attempt)
        return retry("busy", "", attempt=1, first_seconds=0.1) if context.attempt == 1 else done()

    await bus.publisher().publish(run_of(image, 1, Lane.URGENT, "urgent"))
    async with consuming_lanes(second_time, names=[image_subscription(JobKind.DETECT, Lane.URGENT)]):
        await eventually(lambda: seen == [1, 2])


def event(supplier: str, name: str = "a.jpg") -> BlobCreated:
    return BlobCreated(
        id="e",
        source="/s",
        subject=f"/blobServices/default/containers/in-{supplier}/blobs/{name}",
        time=datetime(2026, 5, 4, tzinfo=UTC),
        data=BlobCreatedData(e_tag="0x1"),
    )


async def test_an_event_goes_aside_once_and_a_retry_of_it_stays_there(
    bus: Bus, consuming_lanes: Any, eventually: Eventually, peek: Any
) -> None:
    lanes: list[tuple[str | None, int]] = []

    async def aside(message: BlobCreated, context: Context) -> Outcome:
        lanes.append((context.envelope.upload_lane, context.attempt))
        if context.envelope.upload_lane != ASIDE:
            return Aside(lane=ASIDE, reason="too many")
        return done() if context.attempt == 2 else retry("busy", "", attempt=1, first_seconds=0.1)

    await bus.publisher().publish([Outgoing(message=event("acme"))])
    names = (*UPLOAD_SUBSCRIPTIONS, upload_subscription(ASIDE))
    async with consuming_lanes(aside, "uploads", names, share=apart):
        await eventually(lambda: lanes == [("0", 1), (ASIDE, 1), (ASIDE, 2)])
    assert not any(peek(f"uploads/Subscriptions/{name}") for name in names)


async def test_a_retry_of_an_event_without_a_lane_comes_back_to_where_it_was(
    broker: Any, consuming_lanes: Any, eventually: Eventually
) -> None:
    seen: list[tuple[str | None, int]] = []

    async def second_time(message: BlobCreated, context: Context) -> Outcome:
        seen.append((context.envelope.upload_lane, context.attempt))
        return retry("busy", "", attempt=1, first_seconds=0.1) if context.attempt == 1 else done()

    async with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("uploads") as sender,
        consuming_lanes(second_time, "uploads", UPLOAD_SUBSCRIPTIONS, share=apart),
    ):
        await sender.send_messages(ServiceBusMessage(msgspec.json.encode(event("acme"))))  # as Event Grid does
        await eventually(lambda: seen == [(None, 1), (None, 2)])


@pytest.mark.long
async def test_a_flood_is_sent_to_further_lanes_and_others_pass_it(
    bus: Bus, consuming_lanes: Any, eventually: Eventually
) -> None:
    order: list[tuple[str, str | None]] = []

    async def slow(message: BlobCreated, context: Context) -> Outcome:
        await asyncio.sleep(0.02)
        order.append((message.container.removeprefix("in-"), context.envelope.upload_lane))
        return done()

    flood = [event("flood", f"{number}.jpg") for number in range(300)]
    for at in range(0, len(flood), 100):
        await bus.publisher().publish([Outgoing(message=one) for one in flood[at : at + 100]])
    await bus.publisher().publish([Outgoing(message=event("few", f"{number}.jpg")) for number in range(10)])
    names = (*UPLOAD_SUBSCRIPTIONS, upload_subscription(ASIDE))
    async with consuming_lanes(slow, "uploads", names, share=apart):
        await eventually(lambda: order.count(("few", "0")) == 10)
        assert len(order) < len(flood) / 2, "ten did not wait for three hundred"
        await eventually(lambda: len(order) == len(flood) + 10)
    assert Counter(order) == Counter({("flood", "2"): 100, ("flood", "3"): 200, ("few", "0"): 10})


async def test_a_runs_messages_are_taken_out_from_between_others(
    bus: Bus, image: Image, peek: Any, consuming_lanes: Any, eventually: Eventually
) -> None:
    mixed = zip(run_of(image, 30, Lane.NORMAL, "mine"), run_of(image, 30, Lane.NORMAL, "other"), strict=True)
    await bus.publisher().publish([one for pair in mixed for one in pair])
    assert await bus.take_out("images", "detect", "mine") == (30, True)
    assert await bus.take_out("images", "detect", "mine") == (0, True), "nothing is left of it"
    worker = Worker(0.0)
    async with consuming_lanes(worker):
        await eventually(lambda: len(worker.finished) == 30)
    assert {work.run_id for work in worker.finished} == {"other"}
    assert not peek("images/Subscriptions/detect")


async def test_a_run_is_taken_out_of_a_queue_longer_than_what_is_looked_at_together(
    bus: Bus, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = zip(run_of(image, 60, Lane.NORMAL, "other"), run_of(image, 60, Lane.NORMAL, "mine"), strict=True)
    await bus.publisher().publish([one for pair in mixed for one in pair])
    monkeypatch.setattr(taking_out, "MOST_PEEKS", 1)
    monkeypatch.setattr(taking_out, "TAKE_SECONDS", -1.0)
    assert await bus.take_out("images", "detect", "mine") == (0, False), "what time does not allow is said"
    monkeypatch.undo()
    monkeypatch.setattr(taking_out, "MOST_PEEKS", 1)
    assert await bus.take_out("images", "detect", "mine") == (60, True)


@pytest.mark.long
async def test_a_run_is_moved_to_another_lane(
    bus: Bus, image: Image, consuming_lanes: Any, eventually: Eventually
) -> None:
    large, mine = run_of(image, 60, Lane.NORMAL, "large"), run_of(image, 10, Lane.NORMAL, "mine")
    await bus.publisher().publish([*large, *mine])

    def hurried(envelope: Envelope) -> Envelope:
        assert isinstance(envelope.message, ImageAccepted)
        urgent = msgspec.structs.replace(envelope.message, lane=Lane.URGENT)
        return msgspec.structs.replace(envelope, message=urgent, replay=envelope.replay + 1)

    assert await bus.take_out("images", "detect", "mine", hurried) == (10, True)
    worker = Worker()
    async with consuming_lanes(worker):
        await eventually(lambda: len(worker.finished) == 70)
    assert worker.done("mine")[-1] < 35
