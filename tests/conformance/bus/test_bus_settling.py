"""Publish, then settle; settles confirmed; retries, giving up and poison, against the real broker."""

import asyncio
import json
import time

import msgspec
from azure.servicebus.aio import ServiceBusReceiver

from fusebus.bus import Bus, BusSettings
from fusebus.contracts.envelope import Envelope, encode
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Abandon, Outgoing, Reject, Retry, done
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret

DETECT = "images/Subscriptions/detect"
RESULTS = "results/Subscriptions/notifier"
CLOSE = CloseRun(run_id="20260504T080000Z-acme-u1", supplier="acme", requested_by="test")


async def test_what_a_handler_returns_is_published_then_the_message_is_settled(
    bus, consuming, recorder, image, eventually, peek
):
    async def finish(message, context):
        return done(CLOSE)

    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(recorder(finish)) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 1)
        assert [one.message.message_id for one in peek(RESULTS)] == [f"CloseRun/{CLOSE.run_id}/1/0"]


async def test_nothing_is_settled_that_could_not_be_published(start_broker, recorder, image, eventually, quick):
    configuration = broker_configuration(lock_seconds=2)
    configuration["topics"] = [topic for topic in configuration["topics"] if topic["name"] != "results"]
    broker = start_broker(configuration)
    settings = BusSettings(
        connection=Secret(broker.connection_string), send_attempts=2, send_backoff_seconds=0.1, open_seconds=2
    )

    async def finish(message, context):
        return done(CLOSE) if context.delivery_count == 0 else Abandon(reason="seen enough")

    stop = asyncio.Event()
    async with Bus(settings) as bus:
        await bus.publisher().publish([Outgoing(message=image())])
        handler = recorder(finish)
        settings = msgspec.structs.replace(quick, publish_hold_seconds=0.5)
        consumer = bus.consumer("images", "detect", handler, stop=stop, settings=settings)
        running = asyncio.create_task(consumer.run())
        await eventually(lambda: len(handler.seen) >= 2)
        stop.set()
        await running
    assert consumer.counts["completed"] == 0
    assert handler.seen[1][1].delivery_count == 1
    assert handler.seen[1][1].attempt == 1  # not the handler's failure, so not counted as one
    assert broker.call(lambda: broker.broker.engine.counts(DETECT)).active == 1


async def test_settles_are_confirmed(bus, broker, consuming, recorder, image, eventually):
    await bus.publisher().publish([Outgoing(message=image(f"u{n}")) for n in range(60)])
    handler = recorder()
    async with consuming(handler, slots=16) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 60)
        assert broker.call(lambda: broker.broker.engine.counts(DETECT)).active == 0
        await asyncio.sleep(2.5)  # longer than a lock: what was not really settled would come back now
    assert len(handler.seen) == 60
    assert consumer.counts["redelivered_after_confirmed_complete"] == 0


async def test_what_comes_back_after_its_completion_was_confirmed_is_counted(
    bus, consuming, recorder, image, eventually, monkeypatch, caplog
):
    complete, forgotten = ServiceBusReceiver.complete_message, []

    async def confirmed_and_forgotten(receiver, message):
        """As from a broker that confirms, and then delivers again when the lock ends."""
        if forgotten:
            await complete(receiver, message)
        forgotten.append(message.message_id)

    monkeypatch.setattr(ServiceBusReceiver, "complete_message", confirmed_and_forgotten)
    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(recorder()) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 2)
    assert consumer.counts["redelivered_after_confirmed_complete"] == 1
    assert f"{forgotten[0]} came back after its completion was confirmed" in caplog.text


async def test_a_delayed_retry_comes_back_with_its_attempt_counted_and_is_not_swallowed(
    bus, broker, consuming, recorder, image, eventually, peek
):
    times = []

    async def fail_once(message, context):
        times.append(time.monotonic())
        return done() if context.attempt == 2 else Retry(delay=1.5, reason="blob_store_busy")

    handler = recorder(fail_once)
    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(handler) as consumer:
        await eventually(lambda: consumer.counts["retried"] == 1)
        await eventually(lambda: consumer.counts["completed"] == 1)
        depth = await bus.depth("images", "detect")
        assert depth is not None
        assert depth.scheduled == 1
        assert depth.active == 0  # the original is completed: nothing occupies the subscription meanwhile
        await eventually(lambda: consumer.counts["completed"] == 2)
    assert times[1] - times[0] >= 1.4
    first, second = (context for _, context in handler.seen)
    assert (first.attempt, second.attempt) == (1, 2)
    assert (first.delivery_count, second.delivery_count) == (0, 0)
    assert second.envelope.only == "detect"
    assert second.message_id == "ImageAccepted/u1/2/0"


async def test_a_retry_from_when_the_rules_were_others_is_handled_where_it_arrives(
    bus, consuming, recorder, image, eventually, send_raw
):
    envelope = Envelope(message=image(), attempt=2, only="detect-urgent")
    await send_raw(encode(envelope.message), envelope.properties())
    handler = recorder()
    async with consuming(handler) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 1)
    ((_, context),) = handler.seen
    assert context.attempt == 2, "no other subscription has it: rules don't overlap"


async def test_a_message_is_given_up_after_its_attempts_with_the_reason(bus, consuming, recorder, image, eventually):
    async def explode(message, context):
        if message.upload_id == "polite":
            return Retry(delay=0.1, reason="model_missing")
        raise RuntimeError("no such tensor")

    handler = recorder(explode)
    await bus.publisher().publish([Outgoing(message=image("polite")), Outgoing(message=image("rude"))])
    async with consuming(handler, max_attempts=3, max_passing_attempts=3, retry_seconds=0.1) as consumer:
        await eventually(lambda: consumer.counts["dead_lettered"] == 2)
    assert sorted(context.attempt for _, context in handler.seen) == [1, 1, 2, 2, 3, 3]
    letters = {letter.envelope.message.upload_id: letter for letter in await bus.peek_dead_letters("images", "detect")}
    assert letters["polite"].reason == "model_missing"
    assert letters["polite"].description == "gave up after 3 attempts"
    assert letters["rude"].reason == "handler_failed"
    assert letters["rude"].description == "gave up after 3 attempts; last: RuntimeError: no such tensor"
    assert letters["rude"].envelope.attempt == 3


async def test_poison_is_dead_lettered_with_its_reason(bus, consuming, recorder, eventually, send_raw):
    poison = {
        "not JSON": (b"\xff\x00 not json", "undecodable"),
        "fields missing": (b'{"type":"ImageAccepted"}', "undecodable"),
        "unknown type": (json.dumps({"type": "Surprise"}).encode(), "unknown_type"),
        "unknown version": (json.dumps({"type": "ImageAccepted", "schema_version": 99}).encode(), "unknown_version"),
        "too large": (b" " * 70_000, "too_large"),
        "no bytes": (None, "undecodable"),
    }
    for name, (body, _) in poison.items():
        await send_raw(body, {"job_kind": "detect", "upload": name})
    handler = recorder()
    async with consuming(handler) as consumer:
        await eventually(lambda: consumer.counts["dead_lettered"] == len(poison))
    assert handler.seen == []
    letters = await bus.peek_dead_letters("images", "detect")
    assert {letter.properties["upload"]: letter.reason for letter in letters} == {
        name: reason for name, (_, reason) in poison.items()
    }
    assert all(letter.description and letter.envelope is None for letter in letters)
    assert await bus.peek_dead_letters("images", "detect", after_sequence=letters[-1].sequence) == []
    assert len(await bus.peek_dead_letters("images", "detect", after_sequence=letters[0].sequence)) == len(letters) - 1


async def test_a_reject_publishes_then_dead_letters(bus, consuming, recorder, image, eventually, peek):
    async def reject(message, context):
        return Reject(reason="blob_changed", description="other bytes", publish=[Outgoing(message=CLOSE)])

    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(recorder(reject)) as consumer:
        await eventually(lambda: consumer.counts["dead_lettered"] == 1)
    assert len(peek(RESULTS)) == 1
    (letter,) = await bus.peek_dead_letters("images", "detect")
    assert (letter.reason, letter.description) == ("blob_changed", "other bytes")


async def test_a_handling_that_takes_too_long_counts_as_a_failure(bus, consuming, recorder, image, eventually):
    async def hang(message, context):
        await asyncio.sleep(60)

    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(recorder(hang), handling_seconds=0.5, max_attempts=1) as consumer:
        await eventually(lambda: consumer.counts["dead_lettered"] == 1)
    (letter,) = await bus.peek_dead_letters("images", "detect")
    assert "HandlingTooLong" in letter.description


async def test_a_message_too_large_to_publish_is_the_handlers_failure(bus, consuming, recorder, image, eventually):
    async def shout(message, context):
        return done(CloseRun(run_id="r1", supplier="acme", requested_by="x" * 70_000))

    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(recorder(shout), max_attempts=1) as consumer:
        await eventually(lambda: consumer.counts["dead_lettered"] == 1)
    (letter,) = await bus.peek_dead_letters("images", "detect")
    assert "65536" in letter.description
