"""Stopping, breaking, stalling and tracing, against the real broker."""

import asyncio
import time

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from fusebus.bus import Bus, BusSettings, ConsumerDead
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Outgoing, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret
from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread

DETECT = "images/Subscriptions/detect"
RESULTS = "results/Subscriptions/notifier"
NOBODY = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=Yg==;UseDevelopmentEmulator=true"
CLOSE = CloseRun(run_id="20260504T080000Z-acme-u1", supplier="acme", requested_by="test")


async def test_a_stop_drains_within_its_limit(bus_settings, broker, quick, recorder, image, eventually, peek):
    async def by_name(message, context):
        await asyncio.sleep(1.0 if message.upload_id == "short" else 60)
        return done(CLOSE)

    handler = recorder(by_name)
    stop = asyncio.Event()
    async with Bus(msgspec.structs.replace(bus_settings, close_seconds=5.0)) as bus:
        await bus.publisher().publish([Outgoing(message=image(name)) for name in ("short", "long")])
        consumer = bus.consumer("images", "detect", handler, stop=stop, settings=quick)
        running = asyncio.create_task(consumer.run())
        await eventually(lambda: len(handler.seen) == 2)
        stop.set()
        await bus.publisher().publish([Outgoing(message=image("late"))])
        started = time.monotonic()
        await running
        assert time.monotonic() - started < quick.drain_seconds + 3
    assert consumer.counts["completed"] == 1
    assert "late" not in [message.upload_id for message, _ in handler.seen]
    assert len(peek(RESULTS)) == 1
    # Nothing stays locked: another worker can have both at once.
    free = broker.call(lambda: broker.broker.engine.receive(DETECT, 10))
    assert sorted(one.message.message_id.split("/")[1] for one in free) == ["late", "long"]


async def test_an_idle_consumer_returns(bus, quick, recorder, image):
    handler = recorder()
    await bus.publisher().publish([Outgoing(message=image())])
    await asyncio.wait_for(
        bus.consume("images", "detect", handler, stop=asyncio.Event(), slots=2, idle_exit=0.5, settings=quick), 10
    )
    assert len(handler.seen) == 1


async def test_a_consumer_rebuilds_after_a_forced_detach(bus, broker, consuming, recorder, image, eventually):
    gate = asyncio.Event()

    async def hold_the_first(message, context):
        if message.upload_id == "before":
            await gate.wait()
        return done()

    handler = recorder(hold_the_first)
    await bus.publisher().publish([Outgoing(message=image("before"))])
    async with consuming(handler) as consumer:
        await eventually(lambda: handler.seen)
        assert broker.detach_links(DETECT) >= 1
        await eventually(lambda: consumer.counts["rebuilt"] >= 1)
        await bus.publisher().publish([Outgoing(message=image("after"))])
        await eventually(lambda: consumer.counts["completed"] == 1)
        gate.set()  # its link is gone, its lock is not: it settles over the new one
        await eventually(lambda: consumer.counts["completed"] == 2)
    assert [message.upload_id for message, _ in handler.seen] == ["before", "after"]


async def test_a_publisher_sends_again_after_a_forced_detach(bus, broker, peek):
    await bus.publisher().publish([Outgoing(message=CLOSE)])
    broker.detach_links("results")
    other = CloseRun(run_id="20260504T090000Z-acme-u2", supplier="acme", requested_by="test")
    await bus.publisher().publish([Outgoing(message=other)])
    assert len(peek(RESULTS)) == 2


async def test_a_consumer_that_receives_nothing_while_messages_wait_is_dead(
    bus, broker, quick, recorder, image, eventually
):
    await bus.publisher().publish([Outgoing(message=image())])
    # Somebody else holds the message and nothing ever comes: from here that is what a dead link looks like.
    held = broker.call(lambda: broker.broker.engine.receive(DETECT, 1))

    async def hold():
        while True:
            broker.call(lambda: broker.broker.engine.renew_lock(DETECT, held[0].lock_token))
            await asyncio.sleep(0.5)

    holding = asyncio.create_task(hold())
    settings = msgspec.structs.replace(quick, stall_seconds=1.0)
    consumer = bus.consumer("images", "detect", recorder(), stop=asyncio.Event(), settings=settings)
    with pytest.raises(ConsumerDead, match="1 messages wait"):
        await asyncio.wait_for(consumer.run(), 15)
    assert consumer.counts["rebuilt"] == 1  # a new client was tried first
    holding.cancel()


async def test_a_consumer_with_nothing_to_do_is_alive(bus, consuming, recorder):
    async with consuming(recorder(), stall_seconds=0.3) as consumer:
        await asyncio.sleep(1.2)
        assert consumer.is_alive()
        assert consumer.counts["rebuilt"] == 0


async def test_a_consumer_without_a_working_link_is_dead(quick, recorder):
    settings = BusSettings(
        connection=Secret(NOBODY),
        open_seconds=1.0,
    )
    patience = msgspec.structs.replace(quick, stall_seconds=1.0, idle_exit_seconds=0.2)  # blind is not idle
    async with Bus(settings) as bus:
        consumer = bus.consumer("images", "detect", recorder(), stop=asyncio.Event(), settings=patience)
        with pytest.raises(ConsumerDead, match="no working link"):
            await asyncio.wait_for(consumer.run(), 15)


async def test_a_depth_that_cannot_be_read_is_unknown():
    settings = BusSettings(
        connection=Secret(NOBODY),
        depth_seconds=2.0,
    )
    async with Bus(settings) as bus:
        assert await bus.depth("images", "detect") is None


async def test_the_traceparent_is_carried_through(bus, consuming, recorder, image, eventually, peek):
    seen = []

    async def look(message, context):
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return done(CLOSE)

    tracer = TracerProvider().get_tracer("test")
    handler = recorder(look)
    async with consuming(handler) as consumer:
        with tracer.start_as_current_span("upload") as span:
            trace_id = span.get_span_context().trace_id
            await bus.publisher().publish([Outgoing(message=image())])
        await eventually(lambda: consumer.counts["completed"] == 1)
    assert seen == [trace_id]
    (result,) = peek(RESULTS)
    assert f"{trace_id:032x}" in str(result.message.application_properties)
    assert f"{trace_id:032x}" in handler.seen[0][1].envelope.traceparent


async def test_a_consumer_and_a_publisher_outlive_the_brokers_restart(tmp_path, quick, recorder, image, eventually):
    def broker(port: int) -> BrokerThread:
        options = BrokerOptions(
            topology=broker_configuration(lock_seconds=2), port=port, key="a2V5", ca_directory=tmp_path
        )
        return BrokerThread(options)

    handler = recorder()
    stop = asyncio.Event()
    with broker(0) as first:
        settings = BusSettings(connection=Secret(first.connection_string), close_seconds=0.05)
        bus = Bus(settings)
        await bus.publisher().publish([Outgoing(message=image("before"))])
        consumer = bus.consumer("images", "detect", handler, stop=stop, settings=quick)
        running = asyncio.create_task(consumer.run())
        await eventually(lambda: consumer.counts["completed"] == 1)
    with broker(first.port):
        await bus.publisher().publish([Outgoing(message=image("after"))])
        await eventually(lambda: consumer.counts["completed"] == 2)
        stop.set()
        await running
    assert [message.upload_id for message, _ in handler.seen] == ["before", "after"]
    await bus.__aexit__(None, None, None)


async def test_a_stop_ends_a_consumer_that_has_no_broker(quick, recorder):
    stop = asyncio.Event()
    async with Bus(BusSettings(connection=Secret(NOBODY), open_seconds=60.0)) as bus:
        consumer = bus.consumer("images", "detect", recorder(), stop=stop, settings=quick)
        running = asyncio.create_task(consumer.run())
        await asyncio.sleep(0.5)
        stop.set()
        await asyncio.wait_for(running, 5)
