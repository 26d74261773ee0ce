"""How large a request to an entity may be, and what its sender is told beyond that, by both of the SDK's clients."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusMessage
from azure.servicebus.exceptions import MessageSizeExceededError
from either_client import CLIENTS, all_closed, at, done, opened

from fusebus.servicebus.broker import BrokerOptions
from fusebus.servicebus.testing import BrokerThread
from fusebus.servicebus.tier import Tier

ANSWER_SECONDS = 10.0  # a request without an answer ends with another error
LARGE_KILOBYTES = 3 * 1024
QUEUES: dict[Tier, list[dict[str, Any]]] = {
    Tier.STANDARD: [{"name": "work"}],
    Tier.PREMIUM: [{"name": "work"}, {"name": "large", "max_message_kilobytes": LARGE_KILOBYTES}],
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", params=QUEUES, ids=lambda tier: tier.value)
def tier(request: pytest.FixtureRequest) -> Tier:
    return Tier(request.param)


@pytest.fixture(scope="module")
def broker(tier: Tier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    authority: Path = tmp_path_factory.getbasetemp() / "broker-authority"
    options = BrokerOptions(topology={"queues": QUEUES[tier]}, tier=tier, ca_directory=authority, key="key")
    with BrokerThread(options) as broker:
        yield broker


@pytest_asyncio.fixture(loop_scope="module", params=CLIENTS)
async def client(broker: BrokerThread, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    made = CLIENTS[request.param].from_connection_string(broker.connection_string, retry_total=0)
    async with opened(made) as client:
        yield client
    await all_closed()


async def scheduled(sender: Any, *bodies: bytes) -> list[int]:
    messages = [ServiceBusMessage(body) for body in bodies]
    return list(await done(sender.schedule_messages(messages, at(60), timeout=ANSWER_SECONDS)))


async def test_a_request_that_is_too_large_is_refused_and_the_next_one_works(client: Any, tier: Tier) -> None:
    sizes = {queue["name"]: queue.get("max_message_kilobytes", 1024) * 1024 for queue in QUEUES[tier]}
    for name, limit in sizes.items():
        body = bytes(tier.max_message_bytes - 1024)
        async with opened(client.get_queue_sender(name)) as sender:
            for _ in range(2):
                with pytest.raises(MessageSizeExceededError, match="at most"):
                    await scheduled(sender, *[body] * (limit // len(body) + 1))
            assert len(await scheduled(sender, body)) == 1


async def test_what_an_entity_takes_can_be_scheduled_too(client: Any, tier: Tier) -> None:
    sizes = {
        queue["name"]: queue.get("max_message_kilobytes", tier.max_message_bytes // 1024) for queue in QUEUES[tier]
    }
    for name, kilobytes in sizes.items():
        body = bytes((kilobytes - 1) * 1024)
        async with opened(client.get_queue_sender(name), client.get_queue_receiver(name)) as (sender, receiver):
            (number,) = await scheduled(sender, body)
            (peeked,) = await done(receiver.peek_messages(1, sequence_number=number))
            assert (peeked.sequence_number, len(b"".join(peeked.body))) == (number, len(body))
            await done(sender.cancel_scheduled_messages(number))
