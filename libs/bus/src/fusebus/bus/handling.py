"""One message from its bytes to its settlement: decode, handle, publish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from opentelemetry.trace import StatusCode

from fusebus.bus import measures
from fusebus.bus.context import Context, Handler
from fusebus.bus.counts import Counts
from fusebus.bus.errors import LinkBroken, LockLost, PublishFailed
from fusebus.bus.publisher import Publisher
from fusebus.bus.received import Received
from fusebus.bus.renewal import Lock
from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import DeadLetter, GiveBack, Plan, Settlement, Source, plan, plan_failure
from fusebus.bus.tracing import process_span, span
from fusebus.contracts.envelope import Envelope, Poison
from fusebus.contracts.outcomes import Outcome
from fusebus.host import log_fields

Renew = Callable[[], Awaitable[datetime]]
Failed = Callable[[BaseException], None]

log = logging.getLogger(__name__)


class HandlingTooLong(Exception):
    """The handler was cancelled at its limit; counts as a failure."""


class HandlerCancelled(Exception):
    """The handler ended by a cancellation that was not ours; counts as a failure."""


class Handling:
    """Runs one handler for the messages of one subscription; the worker's loop settles what comes of it."""

    def __init__(
        self, source: Source, handler: Handler, publisher: Publisher, settings: ConsumerSettings, counts: Counts
    ) -> None:
        self._source = source
        self._handler = handler
        self._publisher = publisher
        self._settings = settings
        self._counts = counts

    async def process(self, message: Received, lock: Lock, renew: Renew | None = None) -> Settlement:
        """All but the settling itself. `renew`: renew first, for a lock that is too old to start on.

        A cancellation gives the message back.
        """
        try:
            envelope = message.envelope()
        except Poison as poison:
            log.warning("%s: poison %s: %s", self._source.name, message.message_id, poison)
            return DeadLetter(poison.reason, poison.description)
        ids = {name: str(value) for name in ("upload", "run") if (value := message.properties.get(name))}
        with (
            log_fields(message_id=message.message_id, **ids),
            _told(self._source, message, envelope) as failed,
        ):
            measures.waited(self._source, message.enqueued_at)
            try:
                if renew is not None:
                    async with asyncio.timeout(self._settings.renew_seconds):
                        lock.expires = (await renew()).timestamp()
                return await self._handle_and_publish(message, envelope, lock, failed)
            except LockLost as error:
                failed(error)
                return GiveBack(str(error))  # a lock that is really lost is noticed when settling
            except (LinkBroken, TimeoutError) as error:
                failed(error)
                return GiveBack(f"too old to start: {error}")
            except asyncio.CancelledError:
                return GiveBack("stopped")
            except PublishFailed as error:
                failed(error)
                log.warning("giving back %s: %s", message.message_id, error)
                return GiveBack("publish failed")

    async def _handle_and_publish(
        self, message: Received, envelope: Envelope, lock: Lock, failed: Failed
    ) -> Settlement:
        context = Context(
            envelope=envelope,
            delivery_count=message.delivery_count,
            enqueued_at=message.enqueued_at,
            subscription=self._source.subscription,
            lock_lost=lock.lost,
        )
        now = partial(datetime.now, UTC)
        try:
            outcome = await self._handle(envelope, context, lock)
            decided = plan(outcome, envelope, self._source, self._settings, now())
            await self._publish(decided, lock)
        except (LockLost, PublishFailed):
            raise
        except Exception as error:
            failed(error)
            log.exception("attempt %d of %s failed", envelope.attempt, message.message_id)
            decided = plan_failure(error, envelope, self._source, self._settings, now())
            await self._publish(decided, lock)
        if decided.retried:
            self._counts.add("retried")
        return decided.settlement

    async def _handle(self, envelope: Envelope, context: Context, lock: Lock) -> Outcome:
        """Run the handler until it returns, its lock is lost (raises LockLost) or its limit is reached."""
        with span("handle"):
            handler = asyncio.ensure_future(self._handler(envelope.message, context))
            lost = asyncio.create_task(lock.lost.wait())
            try:
                await asyncio.wait(
                    {handler, lost}, timeout=self._settings.handling_seconds, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                lost.cancel()
                in_time = handler.done()
                if not in_time:
                    await self._cancel(handler)
            self._fence(lock)
            if not in_time:
                raise HandlingTooLong(f"the handler took more than {self._settings.handling_seconds} s")
            if handler.cancelled():
                raise HandlerCancelled("the handler was cancelled")
            return handler.result()

    async def _cancel(self, handler: asyncio.Future[Outcome]) -> None:
        handler.cancel()
        await asyncio.wait({handler}, timeout=self._settings.cancel_seconds)
        if not handler.done():
            log.error("%s: a handler ignores its cancellation; nothing of it will be published", self._source.name)
        elif not handler.cancelled() and (error := handler.exception()) is not None:
            log.info("%s: a cancelled handler ended with %r", self._source.name, error)

    def _fence(self, lock: Lock) -> None:
        if lock.left(time.time()) <= self._settings.fence_seconds:
            raise LockLost("the lock ended before its effects were published")

    async def _publish(self, decided: Plan, lock: Lock) -> None:
        """Before settling: a crash between the two repeats the message, never loses what follows from it.

        While a topic takes nothing, the message is held: given back at once it would come back at once, run its
        handler again and use up its deliveries. Full slots are the back-pressure then. Raises PublishFailed, LockLost.
        """
        until = time.monotonic() + self._settings.publish_hold_seconds
        while True:
            try:
                return await self._publisher.send(decided.parcels, fence=partial(self._fence, lock))
            except PublishFailed as error:
                if time.monotonic() >= until:
                    raise
                log.warning("%s: holding a finished message: %s", self._source.name, error)
                await asyncio.sleep(self._settings.retry_seconds)


@contextmanager
def _told(source: Source, message: Received, envelope: Envelope) -> Iterator[Failed]:
    """The span and the measure of one message's handling.

    Call what it yields where the handling failed: every failure becomes a settlement, so none is raised out of it.
    """
    with process_span(source, message, envelope) as span_, measures.processing(source) as attributes:

        def failed(error: BaseException) -> None:
            attributes["error.type"] = type(error).__qualname__
            span_.set_attribute("error.type", attributes["error.type"])
            span_.set_status(StatusCode.ERROR)

        yield failed
