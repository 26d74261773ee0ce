"""Makes SDK clients from the settings: the one place that knows how the namespace is reached."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from azure.servicebus import NEXT_AVAILABLE_SESSION
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from fusebus.bus.settings import BusSettings
from fusebus.host import SettingsError

if TYPE_CHECKING:
    from azure.identity.aio import DefaultAzureCredential

ADMINISTRATION_RETRIES = 1  # the caller asks again anyway; azure-core's ten retries would take minutes

log = logging.getLogger(__name__)


class Closable(Protocol):
    """Anything of the SDK that holds a socket."""

    async def close(self) -> None:
        """Close it."""


class Connection:
    """Makes clients, senders and receivers.

    An SDK client holds no socket: each sender and receiver opens its own connection. `retry_total=0` because the SDK
    waits without jitter and without knowing our lock, stop and limits; every retry is ours.
    """

    def __init__(self, settings: BusSettings) -> None:
        if not settings.connection and not settings.namespace:
            raise SettingsError(["neither FUSEBUS_BUS_CONNECTION nor FUSEBUS_BUS_NAMESPACE is set"])
        self._settings = settings
        self._credential: DefaultAzureCredential | None = None

    def client(self, waits_seconds: float = 0.0) -> ServiceBusClient:
        """A new client, nothing connects yet; opening a link may take `waits_seconds` longer than the setting says."""
        options: dict[str, Any] = {"retry_total": 0, "try_timeout": self._settings.open_seconds + waits_seconds}
        if self._settings.ca_file:
            options["connection_verify"] = self._settings.ca_file
        if self._settings.connection:
            return ServiceBusClient.from_connection_string(self._settings.connection.reveal(), **options)
        return ServiceBusClient(self._settings.namespace, self._token_source(), **options)

    def sender(self, client: ServiceBusClient, topic: str) -> ServiceBusSender:
        """A sender that is not open yet."""
        return client.get_topic_sender(topic, socket_timeout=self._settings.socket_poll_seconds)

    def receiver(
        self, client: ServiceBusClient, topic: str, subscription: str, sub_queue: str | None = None
    ) -> ServiceBusReceiver:
        """A receiver that is not open yet. Without prefetch: a prefetched message ages before anybody starts it."""
        return self._quick(
            client.get_subscription_receiver(
                topic,
                subscription,
                sub_queue=sub_queue,
                prefetch_count=0,
                socket_timeout=self._settings.socket_poll_seconds,
            )
        )

    def session_receiver(
        self, client: ServiceBusClient, topic: str, subscription: str, seconds: float
    ) -> ServiceBusReceiver:
        """A receiver that is not open yet; opening it waits so long for a session that has messages and no reader."""
        return self._quick(
            client.get_subscription_receiver(
                topic,
                subscription,
                session_id=NEXT_AVAILABLE_SESSION,
                max_wait_time=seconds,
                prefetch_count=0,
                socket_timeout=self._settings.socket_poll_seconds,
            )
        )

    def _quick(self, receiver: ServiceBusReceiver) -> ServiceBusReceiver:
        """Have a receive that got less than it asked for return soon after its first message.

        The SDK waits 0.2 s and has no option for it. Asking for one message and then for more is no way out: where the
        broker is further away than the second wait, its messages come when nobody receives, and the SDK releases them.
        """
        receiver._further_pull_receive_timeout = self._settings.gather_seconds
        return receiver

    def administration(self) -> ServiceBusAdministrationClient:
        """A client for counts. The SDK insists on https, whatever the connection string says."""
        options: dict[str, Any] = {"retry_total": ADMINISTRATION_RETRIES}
        if self._settings.ca_file:
            options["connection_verify"] = self._settings.ca_file
        if self._settings.connection:
            return ServiceBusAdministrationClient.from_connection_string(self._settings.connection.reveal(), **options)
        return ServiceBusAdministrationClient(self._settings.namespace, self._token_source(), **options)

    async def close(self) -> None:
        """Close what all clients share."""
        if self._credential is not None:
            await self._credential.close()
            self._credential = None

    def _token_source(self) -> DefaultAzureCredential:
        if self._credential is None:
            from azure.identity.aio import DefaultAzureCredential  # 0.1 s, and a connection string needs none of it

            self._credential = DefaultAzureCredential()
        return self._credential


async def close_quietly(closable: Closable | None, seconds: float) -> None:
    """Close within a limit; a link that can't be closed is no reason to fail, its peer notices by itself."""
    if closable is None:
        return
    try:
        async with asyncio.timeout(seconds):
            await closable.close()
    except Exception as error:
        log.info("a link could not be closed: %r", error)


class Closer:
    """Closes links in the background, for those who need a new one now: the SDK takes up to a second for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._tasks: set[asyncio.Task[None]] = set()

    def close_later(self, *closables: Closable | None) -> None:
        """Start closing, one after the other."""
        task = asyncio.create_task(self._close(closables))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for all that were begun."""
        await asyncio.gather(*self._tasks)

    async def _close(self, closables: tuple[Closable | None, ...]) -> None:
        for closable in closables:
            await close_quietly(closable, self._seconds)
