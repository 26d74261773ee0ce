"""A real broker with the real topology, a bus on it, and small helpers to wait and to make messages."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from fusebus.bus import Bus, BusSettings, Consumer, ConsumerSettings, Context
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane
from fusebus.contracts.outcomes import Outcome, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret

LOCK_SECONDS = 2.0
CLOSE_SECONDS = 0.05


@pytest.fixture
def broker(start_broker: Any) -> Any:
    """A broker with our topology and short locks."""
    return start_broker(broker_configuration(lock_seconds=LOCK_SECONDS))


@pytest.fixture
def bus_settings(broker: Any) -> BusSettings:
    """How to reach it; impatient when closing, for which the SDK takes up to a second each time."""
    return BusSettings(
        connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=CLOSE_SECONDS
    )


@pytest.fixture
async def bus(bus_settings: BusSettings) -> AsyncIterator[Bus]:
    """A bus on the broker."""
    async with Bus(bus_settings) as bus:
        yield bus


@pytest.fixture
def quick() -> ConsumerSettings:
    """Limits that suit a two-second lock."""
    return ConsumerSettings(
        slots=4, idle_wait_seconds=0.2, busy_wait_seconds=0.1, retry_seconds=0.2, drain_seconds=2, cancel_seconds=1
    )


@pytest.fixture
def eventually() -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds."""

    async def wait(condition: Callable[[], Any], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < deadline, f"did not happen within {seconds} s"
            await asyncio.sleep(0.05)

    return wait


@pytest.fixture
def image() -> Callable[..., ImageAccepted]:
    """Makes an accepted image."""

    def make(upload: str = "u1", kind: JobKind = JobKind.DETECT) -> ImageAccepted:
        now = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
        return ImageAccepted(
            upload_id=upload,
            run_id="20260504T080000Z-acme-u1",
            supplier="acme",
            image_id=f"image-{upload}",
            job_kind=kind,
            lane=Lane.NORMAL,
            deadline=now,
            blob=BlobReference(container="in-acme", name=f"{upload}.jpg", etag="0x1", sha256="0" * 64, size=1000),
            width=640,
            height=480,
            format="jpeg",
            accepted_at=now,
        )

    return make


@dataclass
class Recorder:
    """A handler that remembers what it was given and does what it is told."""

    action: Callable[[Any, Context], Awaitable[Outcome]] | None = None
    seen: list[tuple[Any, Context]] = field(default_factory=list)

    async def __call__(self, message: Any, context: Context) -> Outcome:
        self.seen.append((message, context))
        return done() if self.action is None else await self.action(message, context)


@pytest.fixture
def recorder() -> type[Recorder]:
    """The handler class."""
    return Recorder


@pytest.fixture
def consuming(bus: Bus, quick: ConsumerSettings) -> Any:
    """`async with consuming(handler, field=value ...) as consumer`: runs one, stops it at the end."""

    @asynccontextmanager
    async def consume(
        handler: Any, topic: str = "images", subscription: str = "detect", **changes: Any
    ) -> AsyncIterator[Consumer]:
        stop = asyncio.Event()
        settings = msgspec.structs.replace(quick, **changes)
        consumer = bus.consumer(topic, subscription, handler, stop=stop, settings=settings)
        running = asyncio.create_task(consumer.run())
        try:
            yield consumer
        finally:
            stop.set()
            await asyncio.wait_for(running, 20)

    return consume


@pytest.fixture
def peek(broker: Any) -> Callable[..., list[Any]]:
    """What lies in an entity now, without a client: the broker's own deliveries."""
    return lambda path, count=1000: broker.call(lambda: broker.broker.engine.peek(path, 1, count))


@pytest.fixture
async def send_raw(broker: Any) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Sends anything to the topic `images`, as a stranger could."""
    async with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("images") as sender,
    ):

        async def send(body: Any, properties: dict[Any, Any]) -> None:
            await sender.send_messages(ServiceBusMessage(body, application_properties=properties))

        yield send
