"""The publisher against the real broker."""

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.exceptions import ServiceBusError

from fusebus.bus import Bus, BusSettings, PublishFailed
from fusebus.bus.errors import LockLost
from fusebus.bus.settlement import parcels_of
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


@pytest.fixture
def sizes(monkeypatch):
    """How many messages each send to the broker had."""
    sizes, really = [], ServiceBusSender.send_messages

    async def counted(self, batch, **options):
        sizes.append(len(batch))
        return await really(self, batch, **options)

    monkeypatch.setattr(ServiceBusSender, "send_messages", counted)
    return sizes


def parcels(*messages):
    return parcels_of([Outgoing(message=one) for one in messages])


async def test_what_waits_while_a_send_is_under_way_goes_together_in_the_next(bus, image, peek, sizes):
    publisher = bus.publisher()
    await publisher.connect("images")
    await asyncio.gather(*(publisher.publish([Outgoing(message=image(f"u{n:03}"))]) for n in range(150)))
    assert sizes == [1, 100, 49]
    assert [one.message.message_id.split("/")[1] for one in peek(DETECT)] == [f"u{n:03}" for n in range(150)]


async def test_whose_lock_ended_while_it_waited_sends_nothing_and_the_others_do(bus, image, peek):
    def lost():
        raise LockLost("too late")

    first, second, third = await asyncio.gather(
        bus.publisher().send(parcels(image("u1"))),
        bus.publisher().send(parcels(image("u2")), fence=lost),
        bus.publisher().send(parcels(image("u3"))),
        return_exceptions=True,
    )
    assert (first, third) == (None, None)
    assert isinstance(second, LockLost)
    assert [one.message.message_id.split("/")[1] for one in peek(DETECT)] == ["u1", "u3"]


@pytest.mark.parametrize("cancelled", [0, 1, 2])
async def test_who_is_cancelled_takes_nothing_of_the_others_along(bus, image, peek, cancelled):
    await bus.publisher().connect("images")
    sends = [asyncio.create_task(bus.publisher().publish([Outgoing(message=image(f"u{n}"))])) for n in range(3)]
    await asyncio.sleep(0)
    sends[cancelled].cancel()
    await asyncio.gather(*sends, return_exceptions=True)
    assert [one.cancelled() or one.exception() for one in sends if one is not sends[cancelled]] == [None, None]
    sent = {one.message.message_id.split("/")[1] for one in peek(DETECT)}
    assert sent >= {f"u{n}" for n in range(3) if n != cancelled}
    await bus.publisher().publish([Outgoing(message=image("after"))])


@pytest.mark.parametrize("attempts", [1, 2, 3])
async def test_what_the_broker_does_not_take_of_one_fails_this_one_only(
    bus_settings, image, peek, monkeypatch, attempts
):
    really, refused = ServiceBusSender.send_messages, []

    async def picky(self, batch, **options):
        if any("/u1/" in message.message_id for message in batch._messages):
            refused.append(len(batch))
            raise ServiceBusError("not with this one")
        return await really(self, batch, **options)

    monkeypatch.setattr(ServiceBusSender, "send_messages", picky)
    impatient = msgspec.structs.replace(bus_settings, send_attempts=attempts, send_backoff_seconds=0.01)
    async with Bus(impatient) as bus:
        await bus.publisher().connect("images")
        sends = [bus.publisher().publish([Outgoing(message=image(f"u{n}"))]) for n in range(3)]
        first, second, third = await asyncio.gather(*sends, return_exceptions=True)
    assert (first, third) == (None, None)
    assert isinstance(second, PublishFailed) and f"{max(2, attempts)} tries" in str(second)
    assert refused == [2, *[1] * max(1, attempts - 1)], "together, then by itself"
    assert len(peek(DETECT)) == 2


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
