"""Lock renewal, lost locks and slots, against the real broker (locks of two seconds)."""

import asyncio

import msgspec

from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Outgoing, done

DETECT = "images/Subscriptions/detect"
RESULTS = "results/Subscriptions/notifier"
CLOSE = CloseRun(run_id="20260504T080000Z-acme-u1", supplier="acme", requested_by="test")


async def test_own_lock_renewal_survives_a_failed_renewal(bus, broker, consuming, recorder, image, eventually):
    async def longer_than_two_locks(message, context):
        await asyncio.sleep(3.5)
        return done()

    handler = recorder(longer_than_two_locks)
    broker.fail_renewals(2, DETECT)
    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(handler) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 1)
    assert consumer.counts["renewal_failed"] == 2
    assert consumer.counts["renewed"] >= 2
    assert len(handler.seen) == 1


async def test_a_lost_lock_cancels_the_handler_and_fences_its_publish(
    bus, broker, consuming, recorder, image, eventually, peek
):
    ends = []

    async def stubborn(message, context):
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append(context.lock_lost.is_set())
        return done(CLOSE)  # even a handler that returns in spite of its cancellation publishes nothing

    handler = recorder(stubborn)
    await bus.publisher().publish([Outgoing(message=image())])
    async with consuming(handler, slots=1) as consumer:
        await eventually(lambda: handler.seen)
        assert broker.lose_locks(DETECT) == 1
        await eventually(lambda: consumer.counts["lock_lost"] == 1)
        assert ends == [True]
        await eventually(lambda: len(handler.seen) == 2)  # it came back: nothing was lost with the lock
        assert consumer.counts["completed"] == 0
        assert peek(RESULTS) == []


async def test_never_more_is_received_than_slots_are_free(bus, broker, consuming, recorder, image, eventually):
    gate = asyncio.Event()
    running = most = 0

    async def hold(message, context):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return done()

    handler = recorder(hold)
    await bus.publisher().publish([Outgoing(message=image(f"u{n}")) for n in range(20)])
    async with consuming(handler, slots=3) as consumer:
        await eventually(lambda: consumer.in_hand == 3)
        await asyncio.sleep(0.5)  # long enough to receive more, had it asked for more
        # What nobody holds another consumer can have at once: 17 of 20 are still free.
        free = broker.call(lambda: broker.broker.engine.receive(DETECT, 100))
        assert len(free) == 17
        broker.call(lambda: [broker.broker.engine.release(DETECT, one.lock_token) for one in free])
        gate.set()
        await eventually(lambda: consumer.counts["completed"] == 20)
    assert most == 3


async def test_a_message_that_aged_on_its_way_is_renewed_before_it_starts(bus, consuming, recorder, image, eventually):
    handler = recorder()
    await bus.publisher().publish([Outgoing(message=image())])
    # A lock of a moment ago has just under its whole life left: with this share it counts as aged.
    async with consuming(handler, start_with_lock_share=0.99) as consumer:
        consumer._longest_lock = 10.0  # as if earlier locks had lasted ten seconds
        await eventually(lambda: consumer.counts["completed"] == 1)
    assert consumer.counts["received"] == 1


async def test_a_limit_lowers_the_slots_and_knows_the_locks_length(bus, quick, recorder, image, eventually):
    going, most, locks = asyncio.Event(), 2, []

    async def wait(message, context):
        await going.wait()
        return done()

    handler = recorder(wait)
    await bus.publisher().publish([Outgoing(message=image(f"u{number}")) for number in range(8)])
    stop = asyncio.Event()

    def limit(lock_seconds):
        locks.append(lock_seconds)
        return most

    consumer = bus.consumer(
        "images", "detect", handler, stop=stop, settings=msgspec.structs.replace(quick, slots=4), limit=limit
    )
    running = asyncio.create_task(consumer.run())
    await eventually(lambda: consumer.in_hand == 2)
    most = 100
    await eventually(lambda: consumer.in_hand == 4)  # never more than the settings allow
    going.set()
    await eventually(lambda: len(handler.seen) == 8)
    stop.set()
    await asyncio.wait_for(running, 30)
    assert locks[0] == 0
    assert 0 < locks[-1] <= 2.5  # seconds


async def test_nothing_is_received_before_the_consumer_is_ready_and_its_link_is_open_by_then(
    bus, broker, quick, recorder, image, eventually
):
    await bus.publisher().connect("images")
    await bus.publisher().publish([Outgoing(message=image())])
    handler, ready, stop = recorder(), asyncio.Event(), asyncio.Event()
    settings = msgspec.structs.replace(quick, idle_exit_seconds=0.4)
    consumer = bus.consumer("images", "detect", handler, stop=stop, settings=settings, ready=ready)
    running = asyncio.create_task(consumer.run())
    await asyncio.sleep(1.0)  # more than the idle exit: a consumer that may not begin is not idle
    assert consumer.is_alive()
    assert (running.done(), handler.seen) == (False, [])
    ready.set()
    await eventually(lambda: handler.seen)
    await asyncio.wait_for(running, 30)
    assert consumer.counts["completed"] == 1
