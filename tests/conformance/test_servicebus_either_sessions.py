"""Sessions, topics and tokens of the Python SDK, by its client with threads and by the one with asyncio alike."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from azure.core.credentials import AccessToken
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    ServiceBusMessage,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
)
from azure.servicebus.exceptions import ServiceBusError, SessionCannotBeLockedError
from either_client import CLIENTS, all_closed, at, done, every, opened, receive, texts

from fusebus.servicebus import sas
from fusebus.servicebus.broker import KEY_NAME, BrokerOptions
from fusebus.servicebus.testing import BrokerThread

WAIT_SECONDS = 20.0  # as long as a message that is there may take to come
QUIET_SECONDS = 0.3  # as long as we wait for one that must not come
RENEWED_LOCK_SECONDS = 3.0  # the SDK's renewer looks once a second
DESTROY = ServiceBusReceiveMode.RECEIVE_AND_DELETE
SHARED = {
    "lock_seconds": 30,
    "max_delivery_count": 5,
}


TOPOLOGY = {
    "queues": [
        *({"name": f"{kind}/sessions", "requires_session": True, "lock_seconds": 30} for kind in CLIENTS),
        *({"name": f"{kind}/refreshed"} for kind in CLIENTS),
    ],
    "topics": [
        {
            "name": f"{kind}/topic",
            "subscriptions": [{"name": "plain"}, {"name": "sessions", "requires_session": True}],
        }
        for kind in CLIENTS
    ],
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    directory = tmp_path_factory.getbasetemp() / "broker-authority"
    with BrokerThread(BrokerOptions(topology=TOPOLOGY, ca_directory=directory, key="key")) as broker:
        yield broker


@pytest.fixture(params=CLIENTS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class ShortLived:
    """Credentials whose tokens end soon: the broker is told when, the SDK a second earlier."""

    SECONDS = 10  # the SDK renews in the last tenth, whole seconds only: a shorter one is never renewed

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.given = 0

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        self.given += 1
        told = int(time.time()) + self.SECONDS
        return AccessToken(sas.make_token(self._uri, KEY_NAME, "key", told + 1), told)


class AsyncShortLived(ShortLived):
    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:  # type: ignore[override]
        return super().get_token()


class Staying(threading.Thread):
    """Holds one receiver open with such credentials, in a loop of its own."""

    def __init__(self, kind: str, port: int) -> None:
        super().__init__(daemon=True)
        address = f"127.0.0.1:{port}"
        self.credential = (ShortLived if kind == "threads" else AsyncShortLived)(f"sb://{address}/")
        self.ends_at = time.time() + ShortLived.SECONDS + 1.5
        """No token that was given at first is valid then."""
        self.received: list[str] = []
        self.error: Exception | None = None
        self.stopped = threading.Event()
        client = CLIENTS[kind](address, self.credential, use_tls=False, retry_total=0)
        self._receiver = client.get_queue_receiver(f"{kind}/refreshed")

    def run(self) -> None:
        try:
            asyncio.run(self._stay())
        except Exception as error:
            self.error = error

    async def _stay(self) -> None:
        async with opened(self._receiver):
            while not self.stopped.is_set():
                self.received += texts(await done(self._receiver.receive_messages(max_wait_time=0.3)))


@pytest.fixture(scope="module")
def staying(broker: BrokerThread) -> Iterator[dict[str, Staying]]:
    """By client; begun before everything else, for tokens take long to end."""
    found = {kind: Staying(kind, broker.port) for kind in CLIENTS}
    for thread in found.values():
        thread.start()
    yield found
    for thread in found.values():
        thread.stopped.set()
        thread.join()


@pytest_asyncio.fixture(loop_scope="module")
async def client(broker: BrokerThread, kind: str, staying: dict[str, Staying]) -> AsyncIterator[Any]:
    async with opened(CLIENTS[kind].from_connection_string(broker.connection_string, retry_total=0)) as client:
        yield client
    await all_closed()


async def test_a_batch_is_taken_whole_or_not_at_all(client: Any, kind: str) -> None:
    name = f"{kind}/sessions"
    async with opened(client.get_queue_sender(name)) as sender:
        messages = [ServiceBusMessage("good", session_id="batch"), ServiceBusMessage("has no session")]
        with pytest.raises(ServiceBusError, match="session"):
            await done(sender.send_messages(messages))
        with pytest.raises(ServiceBusError, match="session"):
            await done(sender.schedule_messages(messages, at(60)))
    async with opened(client.get_queue_receiver(name, session_id="batch")) as receiver:
        assert await done(receiver.peek_messages(5)) == []


async def test_sessions(client: Any, kind: str) -> None:
    name = f"{kind}/sessions"
    async with opened(client.get_queue_sender(name)) as sender:
        sent = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]
        await done(sender.send_messages([ServiceBusMessage(body, session_id=session) for session, body in sent]))
    a, b = (
        client.get_queue_receiver(name, session_id="a"),
        client.get_queue_receiver(name, session_id="b", receive_mode=DESTROY),
    )
    async with opened(a, b):
        assert (a.session.session_id, b.session.session_id) == ("a", "b")
        with pytest.raises(SessionCannotBeLockedError):
            async with opened(client.get_queue_receiver(name, session_id="a")):
                pass
        assert texts(await receive(b)) == ["2"]
        assert await done(a.session.get_state()) is None
        await done(a.session.set_state(b"step 1"))
        assert await done(a.session.get_state()) == b"step 1"
        before = a.session.locked_until_utc
        assert await done(a.session.renew_lock()) >= before
        first, second, third = await receive(a, 3)
        await done(a.dead_letter_message(first, reason="poison"))
        await done(a.defer_message(second))
        (deferred,) = await done(a.receive_deferred_messages(second.sequence_number))
        await done(a.complete_message(deferred))
        await done(a.abandon_message(third))
        assert (await receive(a))[0].delivery_count == 1
        assert set(await every(client.list_queue_sessions(name))) == {"a"}
        assert await every(client.list_queue_sessions(name, state_updated_after=at(-60))) == ["a"]
        assert await every(client.list_queue_sessions(name, state_updated_after=at(60))) == []
    async with opened(client.get_queue_receiver(name, sub_queue=ServiceBusSubQueue.DEAD_LETTER)) as dead_letters:
        (dead,) = await receive(dead_letters)
        assert (str(dead), dead.session_id, dead.dead_letter_reason) == ("1", "a", "poison")


async def test_topics_and_sessions_of_subscriptions(client: Any, kind: str) -> None:
    topic = f"{kind}/topic"
    async with opened(client.get_topic_sender(topic)) as sender:
        await done(sender.send_messages(ServiceBusMessage("m", session_id="s")))
    assert await every(client.list_subscription_sessions(topic, "sessions")) == ["s"]
    next_one = client.get_subscription_receiver(topic, "sessions", session_id=NEXT_AVAILABLE_SESSION)
    async with opened(next_one, client.get_subscription_receiver(topic, "plain")) as receivers:
        assert next_one.session.session_id == "s"
        for receiver in receivers:
            (message,) = await receive(receiver)
            assert (str(message), message.sequence_number, message.enqueued_sequence_number) == ("m", 1, 1)
            await done(receiver.complete_message(message))
    assert await every(client.list_subscription_sessions(topic, "sessions")) == []


async def test_an_open_link_outlives_its_token_when_the_sdk_renews_it(
    staying: dict[str, Staying], client: Any, kind: str
) -> None:
    link = staying[kind]
    while time.time() < link.ends_at:
        await asyncio.sleep(0.1)
    async with opened(client.get_queue_sender(f"{kind}/refreshed")) as sender:
        await done(sender.send_messages(ServiceBusMessage("still here")))
    end = time.monotonic() + WAIT_SECONDS
    while not link.received:
        assert link.error is None
        assert time.monotonic() < end
        await asyncio.sleep(0.05)
    assert link.credential.given >= 2
