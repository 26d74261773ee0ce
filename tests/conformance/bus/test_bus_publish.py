"""The publisher against the real broker."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from fusebus.bus import Bus, BusSettings, PublishFailed
from fusebus.contracts.messages import CloseRun, RunCheck
from fusebus.contracts.outcomes import Outgoing
from fusebus.host import Secret

DETECT = "images/Subscriptions/detect"
RESULTS = "results/Subscriptions/notifier"
RUN = "20260504T080000Z-acme-u1"


async def test_many_messages_go_in_few_batches_and_keep_their_order(bus, image, peek):
    await bus.publisher().publish([Outgoing(message=image(f"u{n:03}")) for n in range(250)])
    assert [one.message.message_id.split("/")[1] for one in peek(DETECT)] == [f"u{n:03}" for n in range(250)]


async def test_publishing_the_same_again_changes_nothing(bus, image, peek):
    for _ in range(2):
        await bus.publisher().publish([Outgoing(message=image()), Outgoing(message=image("u2"))])
    assert len(peek(DETECT)) == 2


async def test_many_coroutines_share_one_publisher(bus, image, peek):
    await asyncio.gather(*(bus.publisher().publish([Outgoing(message=image(f"u{n}"))]) for n in range(30)))
    assert len(peek(DETECT)) == 30


async def test_a_scheduled_message_appears_at_its_time(bus, eventually, peek):
    check = RunCheck(run_id=RUN, supplier="acme")
    at = datetime.now(UTC) + timedelta(seconds=1)
    await bus.publisher().publish([Outgoing(message=check, enqueue_at=at)])
    depth = await bus.depth("results", "notifier")
    assert depth is not None
    assert (depth.active, depth.scheduled) == (0, 1)
    await eventually(lambda: peek(RESULTS), 5)
    assert datetime.now(UTC) >= at - timedelta(milliseconds=1)  # AMQP knows no parts of milliseconds


async def test_a_message_that_is_too_large_leaves_nothing_half_published(bus, peek):
    good = CloseRun(run_id=RUN, supplier="acme", requested_by="test")
    bad = CloseRun(run_id=RUN, supplier="acme", requested_by="x" * 70_000)
    with pytest.raises(ValueError, match="65536"):
        await bus.publisher().publish([Outgoing(message=good), Outgoing(message=bad)])
    assert peek(RESULTS) == []


async def test_publishing_fails_where_nobody_listens():
    settings = BusSettings(
        connection=Secret(
            "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=Yg==;UseDevelopmentEmulator=true"
        ),
        send_attempts=2,
        send_backoff_seconds=0.1,
        open_seconds=1.0,
    )
    async with Bus(settings) as bus:
        with pytest.raises(PublishFailed, match="results"):
            await bus.publisher().publish(
                [Outgoing(message=CloseRun(run_id=RUN, supplier="acme", requested_by="test"))]
            )
