"""The consumer loop against the real broker."""

from fusebus.contracts.outcomes import Outgoing


async def test_a_published_message_reaches_its_handler_once(bus, consuming, recorder, image, eventually):
    handler = recorder()
    await bus.publisher().publish([Outgoing(message=image("u1")), Outgoing(message=image("u2"))])
    async with consuming(handler) as consumer:
        await eventually(lambda: consumer.counts["completed"] == 2)
    assert sorted(message.upload_id for message, _ in handler.seen) == ["u1", "u2"]
    _, context = handler.seen[0]
    assert (context.attempt, context.delivery_count) == (1, 0)
    assert context.enqueued_at is not None
    depth = await bus.depth("images", "detect")
    assert depth is not None
    assert (depth.active, depth.dead_letter, depth.scheduled) == (0, 0, 0)
