"""The broker's protocol below the SDK: limits, refusals, windows, and clients that misbehave."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from amqp_client import ANSWER_SECONDS, QUIET_SECONDS, connected, dialled, put_token

from fusebus.servicebus import sas
from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.codec import encode
from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.frames import SASL_HEADER, build_frame
from fusebus.servicebus.amqp.performatives import (
    Accepted,
    Attach,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Modified,
    Rejected,
    Released,
    Source,
    Target,
    Transfer,
)
from fusebus.servicebus.amqp.types import Array, Int, Symbol, Timestamp, UInt
from fusebus.servicebus.broker import KEY_NAME, Broker, BrokerOptions
from fusebus.servicebus.engine import Message

TOPOLOGY = {
    "queues": [{"name": "work"}, {"name": "sessions", "requires_session": True}],
    "topics": [{"name": "images", "subscriptions": [{"name": "detect"}]}],
}
BODY = b"\x00\x53\x75"
ANY, ONE = ({Symbol("com.microsoft:session-filter"): session} for session in (None, "a"))
LISTING = sections.message(
    ["id"],
    {"operation": "com.microsoft:get-message-sessions"},
    {"last-updated-time": Timestamp(253402300800000), "skip": Int(0), "top": Int(9)},
)


@pytest.fixture
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    directory: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    async with Broker(BrokerOptions(topology=TOPOLOGY, ca_directory=directory, key="key")) as broker:
        yield broker


def fill(broker: Broker, count: int, size: int = 1) -> None:
    for number in range(count):
        body = BODY + b"\xb0" + size.to_bytes(4, "big") + bytes([number % 256]) * size
        broker.engine.send("work", [Message(raw=body)])


@pytest.mark.parametrize(("password", "code"), [("key", 0), ("wrong", 1), ("", 1)])
async def test_plain_authentication_takes_the_key_and_nothing_else(broker: Broker, password: str, code: int) -> None:
    async with dialled(broker) as client:
        assert await client.handshake(KEY_NAME, password) == code


async def test_amqp_is_spoken_inside_tls_on_the_same_port(broker: Broker) -> None:
    context = ssl.create_default_context(cafile=str(broker.ca_path))
    async with dialled(broker, ssl=context, server_hostname="localhost") as client:
        assert await client.handshake(KEY_NAME, "key") == 0
        assert (await client.receiver("work")).source is not None


@pytest.mark.parametrize("start", [b"AMQP\x00\x01\x00\x00", b"AMQP\x02\x01\x00\x00", b"Axxxxxxxxxx"])
async def test_another_protocol_header_is_answered_with_ours_and_closed(broker: Broker, start: bytes) -> None:
    async with dialled(broker) as client:
        client.raw(start)
        assert await client.reader.read() == SASL_HEADER


async def test_a_link_without_a_claim_is_refused_as_unauthorized(broker: Broker) -> None:
    async with dialled(broker) as client:
        await client.handshake(None)
        assert (await client.receiver("work")).source is None
        detach = await client.expect(Detach)
        assert (detach.closed, detach.error.condition) == (True, "amqp:unauthorized-access")
        assert (await client.sender("work", handle=1)).target is None


@pytest.mark.parametrize(
    ("address", "condition"),
    [("nowhere", "amqp:not-found"), ("images", "amqp:not-allowed"), ("nowhere/$management", "amqp:not-found")],
)
async def test_a_refused_receiver_gets_a_null_source_and_a_reason(broker: Broker, address: str, condition: str) -> None:
    async with connected(broker) as client:
        assert (await client.receiver(address)).source is None
        detach = await client.expect(Detach)
        assert (detach.closed, detach.error.condition, detach.error.info) == (True, condition, {})


async def test_claims_are_judged_with_the_status_codes_that_clients_know(broker: Broker) -> None:
    def token(path: str, key: str = "key", expires_at: int = 2**33) -> str:
        return sas.make_token(f"sb://x/{path}", KEY_NAME, key, expires_at)

    async with dialled(broker) as client:
        await client.handshake(None)
        await client.receiver("$cbs")
        await client.sender("$cbs", handle=1)
        client.credit(100)
        for name, value, status in (
            ("sb://x/work", "nonsense", 401),
            ("sb://x/work", token("work", key="other"), 401),
            ("sb://x/work", token("work", expires_at=1), 401),
            ("sb://x/work", token("images"), 401),
            ("sb://x/nowhere", token("nowhere"), 404),
            ("sb://x/work/$management", token("work"), 202),
        ):
            answer = await put_token(client, name, value)
            assert (answer["status-code"], type(answer["status-code"])) == (status, Int), answer
        assert (await client.receiver("WORK", handle=2)).source is not None


async def test_credit_is_never_exceeded(broker: Broker) -> None:
    fill(broker, 5)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(2)
        assert [(await client.message())[0].delivery_id for _ in range(2)] == [0, 1]
        await client.quiet()
        client.credit(1, delivery_count=1)  # already used up by the second message
        await client.quiet()
        client.credit(10, delivery_count=2)
        assert [(await client.message())[0].delivery_id for _ in range(3)] == [2, 3, 4]


async def test_drain_delivers_what_is_there_and_returns_the_credit(broker: Broker) -> None:
    fill(broker, 3)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(10, drain=True)
        for _ in range(3):
            await client.message()
        flow = await client.expect(Flow)
        assert (flow.drain, flow.link_credit, flow.delivery_count) == (True, 0, 10)
        fill(broker, 1)
        await client.quiet()


async def test_a_large_drain_is_complete_before_it_is_confirmed(broker: Broker) -> None:
    fill(broker, 1000)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(5000, drain=True, window=5000)
        for _ in range(1000):
            await client.message()
        assert (await client.expect(Flow)).delivery_count == 5000


async def test_a_large_credit_is_served_in_bursts_and_completely(broker: Broker) -> None:
    fill(broker, 1000)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(5000, window=5000)
        assert [(await client.message())[0].delivery_id for _ in range(1000)] == list(range(1000))


async def test_transfers_wait_for_the_clients_window(broker: Broker) -> None:
    fill(broker, 5)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(5, window=2)
        for _ in range(2):
            await client.message()
        await client.quiet()
        client.send(Flow(next_incoming_id=2, incoming_window=10))
        for _ in range(3):
            await client.message()


async def test_messages_are_cut_to_the_clients_frame_size(broker: Broker) -> None:
    fill(broker, 1, size=10_000)
    async with connected(broker, max_frame_size=512) as client:
        client.frames.limit = 512
        await client.receiver("work")
        client.credit(1)
        _, payload = await client.message()
        assert payload.endswith(bytes(10_000))


async def test_a_message_in_many_transfers_is_put_together_and_an_aborted_one_is_not(broker: Broker) -> None:
    async with connected(broker) as client:
        await client.sender("work")
        message = BODY + b"\xa0\x06abcdef"
        for index in range(len(message)):
            more = index + 1 < len(message)
            client.send(Transfer(handle=0, delivery_id=7, delivery_tag=b"t", more=more), payload=message[index:][:1])
        answer = await client.expect(Disposition)
        assert (answer.role, answer.first, answer.settled, answer.state) == (True, 7, True, Accepted())
        client.send(Transfer(handle=0, delivery_id=8, delivery_tag=b"u", more=True), payload=message[:4])
        client.send(Transfer(handle=0, delivery_id=8, delivery_tag=b"u", aborted=True))
        await client.quiet()
        assert broker.engine.counts("work").active == 1


# Annotation values in encodings that ours would not choose: a long in eight bytes, a string with a long length, a
# described list, an array of symbols.
ANNOTATIONS = {
    "x-wide": b"\x81" + bytes(7) + b"\x05",
    "x-long-string": b"\xb1\x00\x00\x00\x01s",
    "x-described": b"\x00\xa3\x03a:b\xc0\x03\x01\x54\x07",
    "x-array": b"\xe0\x06\x02\xa3\x01a\x01b",
}
BODIES = {
    "data": b"\x00\x53\x75\xb0\x00\x00\x00\x02\x00\xff",
    "several data sections": b"\x00\x53\x75\xa0\x01a" * 3,
    "value": b"\x00\x53\x77\xd1\x00\x00\x00\x10\x00\x00\x00\x02\xa1\x01k\x81" + bytes(8),
    "null": b"\x00\x53\x77\x40",
    "sequence": b"\x00\x53\x76\xc0\x05\x02\x54\x01\xa1\x00",
    "sequences and a footer": b"\x00\x53\x76\x45" * 2 + b"\x00\x53\x78\xc1\x05\x02\xa3\x01f\x41",
}


@pytest.mark.parametrize("kind", BODIES)
async def test_bodies_and_annotations_are_passed_on_byte_for_byte(broker: Broker, kind: str) -> None:
    entries = b"".join(encode(Symbol(key)) + value for key, value in ANNOTATIONS.items())
    annotations = b"\x00\x53\x72\xc1" + bytes((len(entries) + 1, len(ANNOTATIONS) * 2)) + entries
    head = b"\x00\x53\x73\xc0\x05\x01\xa1\x02id\x00\x53\x74\xc1\x09\x02\xa1\x01n\x71\x00\x00\x00\x01"
    bare = head + BODIES[kind]
    async with connected(broker) as client:
        await client.sender("work", handle=1)
        await client.receiver("work")
        client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"t"), payload=annotations + bare)
        assert (await client.expect(Disposition)).state == Accepted()
        client.credit(1)
        _, payload = await client.message()
    assert payload.endswith(bare)
    found = sections.parse_message(payload).annotations
    assert {key: bytes(found[key]) for key in ANNOTATIONS} == ANNOTATIONS


async def test_a_refused_message_is_rejected_with_three_fields(broker: Broker) -> None:
    async with connected(broker) as client:
        await client.sender("work")
        client.send(Transfer(handle=0, delivery_id=0, delivery_tag=b"t"), payload=b"\x00\x53\x99\x40")
        answer = await client.expect(Disposition)
        assert isinstance(answer.state, Rejected)
        assert answer.state.error is not None
        assert (answer.state.error.condition, answer.state.error.info) == ("com.microsoft:argument-error", {})


@pytest.mark.parametrize(
    ("state", "confirmed", "count"),
    [
        (Accepted(), Accepted(), None),
        (Released(), Released(), 0),
        (Modified(delivery_failed=True), Modified(undeliverable_here=False), 1),
        (Modified(undeliverable_here=True), Modified(undeliverable_here=True), None),
        (Rejected(), Rejected(), None),
    ],
)
async def test_each_settlement_is_confirmed_as_the_service_does(
    broker: Broker, state: Composite, confirmed: Composite, count: int | None
) -> None:
    fill(broker, 1)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(1)
        first, _ = await client.message()
        assert first.delivery_tag is not None
        UUID(bytes_le=first.delivery_tag)
        client.send(Disposition(role=True, first=0, last=0, state=state))
        answer = await client.expect(Disposition)
        assert (answer.role, answer.first, answer.last, answer.settled) == (False, 0, 0, True)
        assert answer.state == confirmed
        ready = broker.engine.receive("work", 1)
        assert [delivery.delivery_count for delivery in ready] == ([] if count is None else [count])


async def test_a_disposition_over_a_range_is_answered_one_by_one(broker: Broker) -> None:
    fill(broker, 3)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(3)
        for _ in range(3):
            await client.message()
        client.send(Disposition(role=True, first=0, last=2**32 - 1, state=Accepted()))
        assert [(await client.expect(Disposition)).first for _ in range(3)] == [0, 1, 2]
        assert broker.engine.counts("work").active == 0


async def test_frames_for_what_has_ended_are_ignored(broker: Broker) -> None:
    async with connected(broker) as client:
        client.send(Transfer(handle=9, delivery_id=0), Detach(handle=9), Flow(handle=9), channel=1)
        client.send(Transfer(handle=9, delivery_id=0), Detach(handle=9), End(), channel=77)
        client.send(Disposition(role=True, first=5, last=9, state=Accepted()))
        client.send(End())
        await client.expect(End)
        client.send(Detach(handle=0), Close(), channel=1)
        await client.expect(Close)


async def test_an_unknown_management_operation_is_not_implemented(broker: Broker) -> None:
    async with connected(broker) as client:
        await client.receiver("work/$management")
        await client.sender("work/$management", handle=1)
        client.credit(10)
        for body in ({}, None, {"lock-tokens": Array([UInt(1)])}):
            for operation in ("com.microsoft:explode", "com.microsoft:renew-lock", "com.microsoft:peek-message"):
                request = sections.message([UUID(int=1)], {"operation": operation}, body)
                client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
                _, payload = await client.message()
                answer = sections.parse_message(payload)
                assert answer.properties["correlation_id"] == UUID(int=1)
                assert answer.application_properties["statusCode"] in (400, 501)
                assert isinstance(answer.application_properties["errorCondition"], Symbol)


async def test_a_frame_that_is_too_large_ends_the_connection_with_a_reason(broker: Broker) -> None:
    async with connected(broker) as client:
        client.raw(b"\x7f\xff\xff\xff\x02\x00\x00\x01")
        closed = await client.expect(Close)
        assert closed.error.condition == "amqp:decode-error"
        assert await client.reader.read() == b""


async def test_a_client_that_vanishes_leaves_nothing_but_its_locks(broker: Broker) -> None:
    fill(broker, 2)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(1)
        await client.message()
        client.raw(b"\x00\x00\x01")
    async with asyncio.timeout(ANSWER_SECONDS):
        while broker.gateway.connections:
            await asyncio.sleep(0.01)
    assert broker.engine.counts("work").active == 2
    assert len(broker.engine.receive("work", 5)) == 1


async def test_random_frames_harm_only_their_own_connection(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    """Valid frames with a few bytes changed, from a fixed seed; the broker serves a decent client afterwards."""
    fill(broker, 20)
    broker.engine.send("sessions", [Message(raw=BODY + b"\xa0\x01x", session_id="a")])
    chance = random.Random(2026)
    valid = [
        build_frame(1, Attach(name="a", handle=2, role=True, source=Source("work"), target=Target("h")).encoded()),
        build_frame(1, Attach(name="b", handle=3, target=Target("work")).encoded()),
        build_frame(1, Attach(name="c", handle=4, role=True, source=Source("sessions", filter=ANY)).encoded()),
        build_frame(1, Attach(name="d", handle=5, role=True, source=Source("sessions", filter=ONE)).encoded()),
        build_frame(1, Flow(next_incoming_id=0, incoming_window=9, handle=4, link_credit=3, drain=True).encoded()),
        build_frame(1, Attach(name="e", handle=6, target=Target("sessions/$management")).encoded()),
        build_frame(1, Attach(name="f", handle=7, role=True, source=Source("sessions/$management")).encoded()),
        build_frame(1, Transfer(handle=6, delivery_id=1, delivery_tag=b"x").encoded(), LISTING),
        build_frame(
            1, Flow(next_incoming_id=0, incoming_window=9, handle=2, delivery_count=0, link_credit=3).encoded()
        ),
        build_frame(1, Transfer(handle=3, delivery_id=1, delivery_tag=b"x").encoded(), BODY + b"\xa0\x01x"),
        build_frame(1, Disposition(role=True, first=0, last=3, state=Rejected()).encoded()),
        build_frame(1, Detach(handle=2, closed=True).encoded()),
    ]
    for _ in range(150):
        async with connected(broker) as client:
            stream = bytearray(b"".join(chance.choices(valid, k=8)))
            for _ in range(chance.randint(0, 6)):
                stream[chance.randrange(len(stream))] = chance.randrange(256)
            client.raw(bytes(stream))
            client.writer.write_eof()
            async with asyncio.timeout(ANSWER_SECONDS):
                await client.reader.read()
    async with connected(broker) as client:
        assert (await client.receiver("work")).source is not None
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_does_not_read_does_not_fill_the_brokers_memory(broker: Broker) -> None:
    fill(broker, 400, size=200_000)
    async with connected(broker) as client:
        await client.receiver("work")
        client.credit(5000, window=50_000)
        await asyncio.sleep(QUIET_SECONDS)
        (connection,) = broker.gateway.connections
        assert connection.output_bytes < 10_000_000
        for _ in range(400):
            _, payload = await client.message()
            assert len(payload) > 200_000
