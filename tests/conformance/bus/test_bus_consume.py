"""The consumer loop against the real broker."""

import msgspec

from fusebus.bus.connection import Connection
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


def test_the_sdk_still_waits_for_the_rest_of_what_a_receive_asked_for_and_is_told_not_to(bus_settings):
    connection = Connection(msgspec.structs.replace(bus_settings, gather_seconds=0.001))
    client = connection.client()
    sdks = client.get_subscription_receiver("images", "detect")
    assert sdks._further_pull_receive_timeout == 0.2, "it has no option for this: see whether it needs ours still"
    for ours in (
        connection.receiver(client, "images", "detect"),
        connection.session_receiver(client, "uploads", "ingest-sessions", 1.0),
    ):
        assert ours._further_pull_receive_timeout == 0.001
