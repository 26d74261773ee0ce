"""A subscription with sessions through a real broker: who waits for whom, and what becomes of each message."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from fusebus.bus import Bus, BusSettings, ConsumerDead, ConsumerSettings, Context, SessionSettings
from fusebus.bus.received import Received
from fusebus.bus.session_link import SessionLink
from fusebus.contracts.messages import BlobCreated, BlobCreatedData
from fusebus.contracts.outcomes import Outcome, Reject, done, retry
from fusebus.contracts.topology import UPLOAD_SESSIONS
from fusebus.host import Secret

PATH = f"uploads/Subscriptions/{UPLOAD_SESSIONS}"
NOBODY = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=Yg==;UseDevelopmentEmulator=true"

Eventually = Callable[..., Awaitable[None]]
Send = Callable[[Sequence[tuple[str, str]]], Awaitable[None]]


@pytest.fixture
async def send(broker: Any) -> AsyncIterator[Send]:
    """Sends events of (supplier, name) as Event Grid does where a supplier has an event subscription of its own."""
    async with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("uploads") as sender,
    ):

        def message(supplier: str, name: str) -> ServiceBusMessage:
            event = BlobCreated(
                id="e",
                source="/s",
                subject=f"/blobServices/default/containers/in-{supplier}/blobs/{name}",
                time=datetime(2026, 5, 4, tzinfo=UTC),
                data=BlobCreatedData(e_tag="0x1"),
            )
            return ServiceBusMessage(msgspec.json.encode(event), session_id=supplier)

        async def send(events: Sequence[tuple[str, str]]) -> None:
            await sender.send_messages([message(*event) for event in events])

        yield send


@pytest.fixture
def serving(bus: Bus, quick: ConsumerSettings) -> Any:
    """`async with serving(handler, field=value …)`: the settings of sessions by name; stopped at the end."""

    @asynccontextmanager
    async def serve(handler: Any, **changes: Any) -> AsyncIterator[None]:
        stop = asyncio.Event()
        sessions = SessionSettings(**{"most": 4, "accepting": 2, "empty_seconds": 0.2, "hold_seconds": 0.5} | changes)
        served = bus.consume_sessions("uploads", UPLOAD_SESSIONS, handler, stop=stop, settings=quick, sessions=sessions)
        running = asyncio.create_task(served)
        try:
            yield
            assert bus.is_alive()
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)

    return serve


class Slow:
    """Remembers whose it did, in what order, each after a moment."""

    def __init__(self, seconds: float) -> None:
        self.order: list[str] = []
        self._seconds = seconds

    async def __call__(self, message: BlobCreated, context: Context) -> Outcome:
        await asyncio.sleep(self._seconds)
        self.order.append(context.envelope.session or "")
        return done()


def of(supplier: str, count: int) -> list[tuple[str, str]]:
    return [(supplier, f"{number}.jpg") for number in range(count)]


async def test_ten_of_one_session_do_not_wait_for_hundreds_of_another(
    serving: Any, send: Send, eventually: Eventually, peek: Any
) -> None:
    await send(of("flood", 300))
    await send(of("few", 10))
    handler = Slow(0.02)
    async with serving(handler, hold_seconds=60.0):  # the places suffice
        await eventually(lambda: handler.order.count("few") == 10)
        assert len(handler.order) < 200
        await eventually(lambda: len(handler.order) == 310)
    assert Counter(handler.order) == {"flood": 300, "few": 10}, "each once"
    assert not peek(PATH)


async def test_where_all_places_are_taken_sessions_take_turns(serving: Any, send: Send, eventually: Eventually) -> None:
    await send(of("a-flood", 300))
    await send(of("few", 10))
    handler = Slow(0.02)
    async with serving(handler, most=1, accepting=1):
        await eventually(lambda: len(handler.order) == 310)
    first = handler.order.index("few") if handler.order[0] == "a-flood" else handler.order.index("a-flood")
    assert first < 200, "the first session was let go before it was empty"
    assert Counter(handler.order) == {"a-flood": 300, "few": 10}


async def test_work_that_takes_longer_than_a_session_is_held_is_not_given_back(
    serving: Any, send: Send, eventually: Eventually, peek: Any
) -> None:
    await send(of("one", 4))
    await send(of("two", 4))
    begun: list[int] = []

    async def slow(message: BlobCreated, context: Context) -> Outcome:
        begun.append(context.delivery_count)
        await asyncio.sleep(4.0)  # longer than held and drained together
        return done()

    async with serving(slow, most=1, accepting=1):
        await eventually(lambda: len(begun) == 8)
        await eventually(lambda: not peek(PATH))
    assert len(begun) == 8, "each was begun once"


async def test_a_session_whose_first_message_comes_late_is_not_taken_for_empty(
    serving: Any, send: Send, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, receive = 4, SessionLink.receive

    async def slowly(link: SessionLink, count: int, seconds: float) -> list[Received]:
        nonlocal late
        late -= 1
        if late >= 0:
            await asyncio.sleep(seconds)
            return []
        return await receive(link, count, seconds)

    monkeypatch.setattr(SessionLink, "receive", slowly)
    await send(of("acme", 1))
    handler = Slow(0.0)
    async with serving(handler, most=1, accepting=1):
        await eventually(lambda: handler.order == ["acme"], 15)


async def test_where_sessions_deliver_nothing_it_is_dead_after_a_while(
    bus: Bus, quick: ConsumerSettings, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(link: SessionLink, count: int, seconds: float) -> list[Received]:
        await asyncio.sleep(seconds)
        return []

    monkeypatch.setattr(SessionLink, "receive", nothing)
    await send(of("acme", 1))
    settings = msgspec.structs.replace(quick, stall_seconds=1.0, rebuild_backoff_most_seconds=0.3)
    sessions = SessionSettings(most=1, accepting=1, first_seconds=0.3)
    served = bus.consume_sessions(
        "uploads", UPLOAD_SESSIONS, Slow(0.0), stop=asyncio.Event(), settings=settings, sessions=sessions
    )
    with pytest.raises(ConsumerDead, match="delivered nothing"):
        await asyncio.wait_for(served, 20)


async def test_a_session_alone_is_not_let_go_for_nobody(
    serving: Any, send: Send, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    await send(of("flood", 60))
    handler = Slow(0.1)
    with caplog.at_level(logging.DEBUG, "fusebus.bus.worker"):
        async with serving(handler, empty_seconds=2.0):  # 1.5 s with four slots, three turns
            await eventually(lambda: len(handler.order) == 60)
    assert [one.levelname for one in caplog.records if one.message.startswith("consuming")] == ["DEBUG"]


async def test_a_retry_comes_back_in_its_session_and_a_dead_letter_does_when_it_is_put_back(
    bus: Bus, serving: Any, send: Send, eventually: Eventually, peek: Any
) -> None:
    seen: list[tuple[str | None, int, int]] = []

    async def third_time(message: BlobCreated, context: Context) -> Outcome:
        envelope = context.envelope
        seen.append((envelope.session, context.attempt, envelope.replay))
        if envelope.replay:
            return done()
        return (
            retry("busy", "", attempt=1, first_seconds=0.1)
            if context.attempt == 1
            else Reject(reason="no", description="")
        )

    await send(of("acme", 1))
    async with serving(third_time):
        await eventually(lambda: peek(f"{PATH}/$DeadLetterQueue"))
        assert (await bus.deal_with_dead_letters("uploads", UPLOAD_SESSIONS, put_back=True)).done == 1
        await eventually(lambda: len(seen) == 3)
    assert seen == [("acme", 1, 0), ("acme", 2, 0), ("acme", 1, 1)]
    assert not peek(PATH)


async def test_what_comes_back_in_its_next_session_after_its_completion_was_confirmed_is_noticed(
    serving: Any, send: Send, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    complete, forgotten = ServiceBusReceiver.complete_message, list[Any]()

    async def confirmed_and_forgotten(receiver: ServiceBusReceiver, message: Any) -> None:
        """As from a broker that confirms, and delivers again to who has the session next."""
        if forgotten:
            await complete(receiver, message)
        forgotten.append(message)

    async def handle(message: BlobCreated, context: Context) -> Outcome:
        return done()

    monkeypatch.setattr(ServiceBusReceiver, "complete_message", confirmed_and_forgotten)
    async with serving(handle):
        await send([("slow", "a.jpg")])
        await eventually(lambda: len(forgotten) == 2)
    assert caplog.text.count("came back after its completion was confirmed") == 1


async def test_the_lock_of_a_session_is_kept_for_work_that_takes_longer(
    serving: Any, send: Send, eventually: Eventually, peek: Any, broker: Any
) -> None:
    broker.fail_renewals(1, PATH)  # busy: an answer, so the session is kept and asked for again
    await send(of("acme", 4))
    handler = Slow(5.0)  # two and a half locks
    async with serving(handler):
        await eventually(lambda: len(handler.order) == 4)
    assert not peek(PATH), "all were settled"


async def test_what_a_lost_session_held_is_cancelled_and_comes_back(
    serving: Any, send: Send, eventually: Eventually, broker: Any, peek: Any
) -> None:
    begun: list[int] = []
    lost: list[bool] = []

    async def first_one_hangs(message: BlobCreated, context: Context) -> Outcome:
        begun.append(context.delivery_count)
        try:
            await asyncio.sleep(60 if len(begun) == 1 else 0)
        except asyncio.CancelledError:
            lost.append(context.lock_lost.is_set())
            raise
        return done()

    await send(of("acme", 1))
    async with serving(first_one_hangs):
        await eventually(lambda: begun)
        assert broker.detach_links(PATH, "com.microsoft:session-lock-lost") >= 1
        await eventually(lambda: len(begun) == 2)
        await eventually(lambda: not peek(PATH))
    assert lost == [True], "nothing of it may be published any more"


async def test_a_stop_finishes_what_is_in_hand_and_gives_the_rest_back(
    bus: Bus, quick: ConsumerSettings, send: Send, eventually: Eventually, peek: Any, broker: Any
) -> None:
    begun: list[str] = []

    async def by_name(message: BlobCreated, context: Context) -> Outcome:
        begun.append(message.subject[-5:])
        await asyncio.sleep(60 if message.subject.endswith("0.jpg") else 0.5)
        return done()

    stop = asyncio.Event()
    await send(of("acme", 2))
    running = asyncio.create_task(bus.consume_sessions("uploads", UPLOAD_SESSIONS, by_name, stop=stop, settings=quick))
    await eventually(lambda: len(begun) == 2)
    stop.set()
    await asyncio.wait_for(running, quick.drain_seconds + 8)

    assert len(peek(PATH)) == 1, "the long one"
    await eventually(lambda: not broker.detach_links(PATH), 10)  # nobody waits for a session any more


async def test_a_poison_message_is_dead_lettered_and_its_session_goes_on(
    serving: Any, send: Send, eventually: Eventually, peek: Any, broker: Any
) -> None:
    async with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("uploads") as sender,
    ):
        await sender.send_messages(ServiceBusMessage(b"{", session_id="acme"))
    await send(of("acme", 1))
    handler = Slow(0.0)
    async with serving(handler):
        await eventually(lambda: handler.order == ["acme"] and len(peek(f"{PATH}/$DeadLetterQueue")) == 1)


async def test_without_a_broker_it_is_dead_after_a_while_and_ends_at_a_stop(quick: ConsumerSettings) -> None:
    settings = msgspec.structs.replace(quick, stall_seconds=1.0, rebuild_backoff_most_seconds=0.3)
    async with Bus(BusSettings(connection=Secret(NOBODY), open_seconds=1.0)) as bus:
        with pytest.raises(ConsumerDead, match="no session for"):
            served = bus.consume_sessions(
                "uploads", UPLOAD_SESSIONS, Slow(0.0), stop=asyncio.Event(), settings=settings
            )
            await asyncio.wait_for(served, 15)
        stop = asyncio.Event()
        patient = bus.consume_sessions("uploads", UPLOAD_SESSIONS, Slow(0.0), stop=stop, settings=quick)
        running = asyncio.create_task(patient)
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.wait_for(running, 5)
