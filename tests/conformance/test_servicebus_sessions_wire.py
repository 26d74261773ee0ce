"""Session links below the SDK: what the attach answers, how long it waits, and what ends it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from amqp_client import Client, connected

from fusebus.servicebus.amqp.performatives import Attach, Close, Detach, Flow, Source, Target, Transfer
from fusebus.servicebus.amqp.types import Described, Long, Symbol, UInt
from fusebus.servicebus.broker import Broker, BrokerOptions
from fusebus.servicebus.engine import Message, QueueSettings

LOCK_SECONDS = 0.5
GRACE_SECONDS = 0.5  # before an expired session is detached: clients' clocks differ
FILTER = Symbol("com.microsoft:session-filter")
ADDRESS = "amqps://127.0.0.1:1/Work"
EPOCH_TICKS = 621_355_968_000_000_000


@pytest.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    async with Broker(BrokerOptions(ca_directory=directory, key="key")) as broker:
        broker.engine.namespace.create_queue("work", QueueSettings(requires_session=True, lock_seconds=LOCK_SECONDS))
        broker.engine.namespace.create_queue("plain")
        yield broker


def put(broker: Broker, session_id: str) -> None:
    broker.engine.send("work", [Message(raw=b"\x00\x53\x75\xa0\x01x", session_id=session_id)])


def attach(session: Any, handle: int = 0, address: str = ADDRESS, timeout_ms: int | None = None) -> Attach:
    properties = None if timeout_ms is None else {Symbol("com.microsoft:timeout"): UInt(timeout_ms)}
    source = Source(address=address, filter={FILTER: session})
    return Attach(
        name=f"s{handle}", handle=handle, role=True, source=source, target=Target("here"), properties=properties
    )


async def accepted(client: Client, session: Any, handle: int = 0) -> Attach:
    client.send(attach(session, handle))
    answer: Attach = await client.expect(Attach)
    assert answer.source is not None
    return answer


@pytest.mark.parametrize("session", ["a", "", Described(Symbol("com.microsoft:session-filter"), "a")])
async def test_the_answer_names_the_session_and_its_lock_in_ticks(broker: Broker, session: Any) -> None:
    async with connected(broker) as client:
        answer = await accepted(client, session)
        assert answer.source.address == ADDRESS
        assert (answer.source.filter, answer.initial_delivery_count) == ({FILTER: session and "a"}, 0)
        until = answer.properties[Symbol("com.microsoft:locked-until-utc")]
        assert isinstance(until, Long)
        assert abs((until - EPOCH_TICKS) / 10_000_000 - time.time() - LOCK_SECONDS) < 0.4


async def test_an_attach_for_any_session_waits_and_keeps_the_credit_it_was_given(broker: Broker) -> None:
    async with connected(broker) as client:
        client.send(attach(None))
        client.credit(5)
        await client.quiet()
        put(broker, "late")
        answer = await client.expect(Attach)
        assert answer.source.filter == {FILTER: "late"}
        transfer, _ = await client.message()
        assert isinstance(transfer, Transfer)


async def test_waiting_ends_with_a_timeout(broker: Broker) -> None:
    async with connected(broker) as client:
        client.send(attach(None, timeout_ms=200))
        assert (await client.expect(Attach)).source is None
        detach = await client.expect(Detach)
        assert (detach.closed, detach.error.condition) == (True, "com.microsoft:timeout")
        assert (await accepted(client, "a")).source is not None  # the handle is free again


async def test_a_client_that_stops_waiting_gets_no_session(broker: Broker) -> None:
    async with connected(broker) as client:
        client.send(attach(None), Detach(handle=0, closed=True))
        assert (await client.expect(Attach)).source is None
        assert (await client.expect(Detach)).error is None
        put(broker, "a")
        await client.quiet()
        await accepted(client, "a")


async def test_those_who_wait_are_served_in_the_order_of_asking(broker: Broker) -> None:
    async with connected(broker) as client:
        for handle in (3, 1, 2):
            client.send(attach(None, handle))
        await client.quiet()
        for session in ("x", "y", "z"):
            put(broker, session)
        answers = [await client.expect(Attach) for _ in range(3)]
        assert [(answer.handle, answer.source.filter[FILTER]) for answer in answers] == [(3, "x"), (1, "y"), (2, "z")]


@pytest.mark.parametrize(
    ("session", "address", "condition"),
    [
        (UInt(7), "work", "amqp:invalid-field"),
        ("a", "plain", "amqp:not-allowed"),
        (None, "plain", "amqp:not-allowed"),
        ("a", "nowhere", "amqp:not-found"),
        ("held", "work", "com.microsoft:session-cannot-be-locked"),
    ],
)
async def test_what_cannot_be_accepted_is_refused_at_once(
    broker: Broker, session: Any, address: str, condition: str
) -> None:
    async with connected(broker) as holder, connected(broker) as client:
        await accepted(holder, "held")
        client.send(attach(session, address=address))
        assert (await client.expect(Attach)).source is None
        assert (await client.expect(Detach)).error.condition == condition


async def test_a_link_without_a_filter_is_refused_by_an_entity_with_sessions(broker: Broker) -> None:
    async with connected(broker) as client:
        assert (await client.receiver("work")).source is None
        assert (await client.expect(Detach)).error.condition == "amqp:not-allowed"


async def test_a_lost_lock_detaches_its_link_and_frees_the_session(broker: Broker) -> None:
    put(broker, "a")
    async with connected(broker) as client, connected(broker) as other:
        await accepted(client, "a")
        client.credit(1)
        await client.message()
        began = time.monotonic()
        detach = await client.expect(Detach)
        assert (detach.closed, detach.error.condition) == (True, "com.microsoft:session-lock-lost")
        assert time.monotonic() - began < LOCK_SECONDS + GRACE_SECONDS + 5  # with room for a slow machine
        await accepted(other, "a")
        other.credit(1)
        _, payload = await other.message()
        assert payload.startswith(b"\x00\x53\x70\xc0\x07\x05\x40\x40\x40\x40\x52\x01")  # delivery count 1


async def test_a_connection_that_is_lost_frees_its_session_at_once(broker: Broker) -> None:
    put(broker, "a")
    async with connected(broker) as client:
        await accepted(client, "a")
        client.credit(1)
        await client.message()
        client.send(Close(), channel=0)
        await client.expect(Close)
    async with connected(broker) as other:
        await accepted(other, "a")
        other.credit(1)
        await other.message()


async def test_a_waiting_link_takes_any_flow_and_answers_none(broker: Broker) -> None:
    async with connected(broker) as client:
        client.send(attach(None, timeout_ms=300))
        client.credit(3, drain=True)
        client.send(Flow(next_incoming_id=0, incoming_window=10, handle=0, delivery_count=0, link_credit=1, echo=True))
        assert [type((await client.next())[0]) for _ in range(2)] == [Attach, Detach]
