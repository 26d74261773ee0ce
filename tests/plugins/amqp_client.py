"""An AMQP client below the SDK: sends any frame, and reads the answers in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.fields import Composite
from fusebus.servicebus.amqp.frames import AMQP_HEADER, SASL_FRAME, SASL_HEADER, FrameReader, build_frame
from fusebus.servicebus.amqp.performatives import (
    Attach,
    Begin,
    Flow,
    Open,
    SaslInit,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from fusebus.servicebus.broker import KEY_NAME, Broker

ANSWER_SECONDS = 20.0
QUIET_SECONDS = 0.1


class Client:
    """Just enough AMQP to send any frame and to read the answers in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.frames = FrameReader(limit=1 << 20)

    def raw(self, data: bytes) -> None:
        self.writer.write(data)

    def send(self, *performatives: Composite, payload: bytes = b"", channel: int = 1) -> None:
        for performative in performatives:
            self.raw(build_frame(channel, performative.encoded(), payload))

    async def next(self) -> tuple[Composite | None, bytes]:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (frame := self.frames.next_frame()) is None:
                data = await self.reader.read(65536)
                if not data:
                    raise EOFError
                self.frames.feed(data)
        return frame.performative, frame.payload

    async def expect(self, kind: type) -> Any:
        performative, _ = await self.next()
        assert isinstance(performative, kind), performative
        return performative

    async def message(self) -> tuple[Transfer, bytes]:
        """A whole message: its first transfer and its payload."""
        first, payload = await self.next()
        assert isinstance(first, Transfer), first
        more = first.more
        while more:
            transfer, piece = await self.next()
            assert isinstance(transfer, Transfer)
            payload, more = payload + piece, transfer.more
        return first, payload

    async def quiet(self) -> None:
        """Nothing comes."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(QUIET_SECONDS):
                await self.next()

    async def handshake(self, user: str | None, password: str = "", **opened: Any) -> int:
        self.raw(SASL_HEADER)
        init = SaslInit(mechanism="ANONYMOUS")
        if user is not None:
            init = SaslInit(mechanism="PLAIN", initial_response=f"\0{user}\0{password}".encode())
        self.raw(build_frame(0, init.encoded(), kind=SASL_FRAME))
        assert await self.reader.readexactly(8) == SASL_HEADER
        await self.next()
        outcome = await self.expect(SaslOutcome)
        if outcome.code:
            return int(outcome.code)
        self.raw(AMQP_HEADER)
        assert await self.reader.readexactly(8) == AMQP_HEADER
        self.send(Open(container_id="test", **opened), channel=0)
        self.send(Begin(next_outgoing_id=0, incoming_window=opened.get("window", 1000), outgoing_window=1000))
        await self.expect(Open)
        await self.expect(Begin)
        return 0

    async def receiver(self, address: str, handle: int = 0, settled: bool = False) -> Attach:
        attach = Attach(
            name=f"r{handle}",
            handle=handle,
            role=True,
            snd_settle_mode=1 if settled else 0,
            source=Source(address=address),
            target=Target(address="here"),
        )
        self.send(attach)
        answer: Attach = await self.expect(Attach)
        return answer

    async def sender(self, address: str, handle: int = 0) -> Attach:
        self.send(Attach(name=f"s{handle}", handle=handle, target=Target(address=address), initial_delivery_count=0))
        answer: Attach = await self.expect(Attach)
        if answer.target is not None:
            await self.expect(Flow)
        return answer

    def credit(self, credit: int, delivery_count: int = 0, **more: Any) -> None:
        self.send(
            Flow(
                next_incoming_id=more.pop("next_incoming_id", 0),
                incoming_window=more.pop("window", 1000),
                handle=more.pop("handle", 0),
                delivery_count=delivery_count,
                link_credit=credit,
                **more,
            )
        )


@asynccontextmanager
async def dialled(broker: Broker, **options: Any) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port, **options)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@asynccontextmanager
async def connected(broker: Broker, **opened: Any) -> AsyncIterator[Client]:
    async with dialled(broker) as client:
        assert await client.handshake(KEY_NAME, "key", **opened) == 0
        yield client


async def put_token(client: Client, name: str, token: str) -> dict[str, Any]:
    """The application properties of `$cbs`'s answer; its links must be attached with the handles 0 and 1."""
    request = sections.message(
        ["id-1"], {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": name}, token
    )
    client.send(Transfer(handle=1, delivery_id=0, delivery_tag=b"1", settled=True), payload=request)
    _, payload = await client.message()
    answer = sections.parse_message(payload)
    assert answer.properties["correlation_id"] == "id-1"
    return answer.application_properties
