"""Takes a run's messages out of a queue before workers have them: for runs that people cancel or hurry."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fusebus.bus.connection import Connection, close_quietly
from fusebus.bus.errors import BusError, LinkBroken, LockLost
from fusebus.bus.link import ReceiveLink
from fusebus.bus.publisher import Publisher
from fusebus.bus.received import Received, received
from fusebus.bus.settings import BusSettings
from fusebus.bus.settlement import Complete, GiveBack, Parcel
from fusebus.contracts.envelope import Envelope, Poison

RECEIVE_MESSAGES = 200
RECEIVE_SECONDS = 1.0
MOST_PEEKS = 200
"""Pages of a queue that are looked through before what they have of the run is taken: 10,000 messages, 50 a page."""
TAKE_SECONDS = 30.0
"""So long at most are other runs' messages held back meanwhile: half of a lock."""
MOST_SECONDS = 300.0
"""No further stretch of a queue is begun after this: one may be filled quicker than it is looked through."""

Instead = Callable[[Envelope], Envelope | None]
"""What goes into the topic in a message's place; None: nothing."""

log = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What became of a run's messages in a subscription."""

    messages: int
    """That were taken out."""
    is_all: bool
    """Whether all of it was looked through, and all that was found was taken; else a repeat takes more."""


class _Stretch(NamedTuple):
    last: int | None
    """The highest sequence number of the run's messages; None where there are none: then nobody is disturbed."""
    after: int
    """Where the next stretch begins."""
    is_end: bool
    uploads: frozenset[str]
    """That the run's messages in it are about."""


class TakingOut:
    """One subscription, once. Messages of others are held while ours are picked from between, then given back."""

    def __init__(self, connection: Connection, topic: str, subscription: str, settings: BusSettings) -> None:
        self._connection, self._settings = connection, settings
        self._topic, self._subscription = topic, subscription
        self._link = ReceiveLink(connection, topic, subscription, settings)

    async def run(self, run_id: str, instead: Instead, publisher: Publisher) -> Taken:
        """Take the run's messages out to the queue's end, each replaced first; workers keep what they hold.

        Raises BusError: some may be out already, a repeat takes the rest.
        """
        count, after, until = 0, 0, time.monotonic() + MOST_SECONDS
        try:
            while True:
                stretch = await self._look(run_id, after)
                if stretch.last is not None:
                    taken = await self._take_up_to(stretch.last, run_id, instead, publisher, until)
                    count += taken.messages
                    if not taken.is_all:
                        return Taken(count, False)
                if stretch.is_end or time.monotonic() >= until:
                    return Taken(count, stretch.is_end)
                after = stretch.after
        except (LinkBroken, TimeoutError) as error:
            raise BusError(f"{self._topic}/{self._subscription}: {error}") from error
        finally:
            await self._link.close()

    async def waiting(self, run_id: str) -> frozenset[str]:
        """The uploads that the run's messages are about, those in workers' hands too; nobody is disturbed.

        Raises BusError, also where the queue's end could not be reached in time.
        """
        uploads, after, until = frozenset[str](), 0, time.monotonic() + MOST_SECONDS
        while time.monotonic() < until:
            stretch = await self._look(run_id, after)
            uploads |= stretch.uploads
            if stretch.is_end:
                return uploads
            after = stretch.after
        raise BusError(f"{self._topic}/{self._subscription} is longer than can be looked through in {MOST_SECONDS} s")

    async def _look(self, run_id: str, after: int) -> _Stretch:
        """What the next pages behind a sequence number have of the run."""
        client = self._connection.client()
        receiver = self._connection.receiver(client, self._topic, self._subscription)
        last, uploads = None, set[str]()
        try:
            async with asyncio.timeout(self._settings.open_seconds):
                await receiver.__aenter__()
            for _ in range(MOST_PEEKS):
                async with asyncio.timeout(self._settings.peek_seconds):
                    page = await receiver.peek_messages(
                        max_message_count=self._settings.peek_messages, sequence_number=after + 1
                    )
                found = [received(raw) for raw in page]
                if not found:
                    return _Stretch(last, after, True, frozenset(uploads))
                ours = [one for one in found if _is_of(one, run_id)]
                last = ours[-1].sequence if ours else last
                uploads.update(str(one.properties.get("upload", "")) for one in ours)
                after = found[-1].sequence
        except Exception as error:
            raise BusError(f"{self._topic}/{self._subscription} can't be looked through: {error!r}") from error
        finally:
            await close_quietly(receiver, self._settings.close_seconds)
            await close_quietly(client, self._settings.close_seconds)
        return _Stretch(last, after, False, frozenset(uploads))

    async def _take_up_to(self, last: int, run_id: str, instead: Instead, publisher: Publisher, until: float) -> Taken:
        """Again and again while it gets on: a long queue takes longer than others may be held back."""
        count = 0
        while True:
            taken = await self._take(run_id, last, instead, publisher)
            count += taken.messages
            if taken.is_all or not taken.messages or time.monotonic() >= until:
                return Taken(count, taken.is_all)

    async def _take(self, run_id: str, last: int, instead: Instead, publisher: Publisher) -> Taken:
        await self._link.open()
        held, taken, until = list[Received](), 0, time.monotonic() + TAKE_SECONDS
        is_end, kept = False, 0
        try:
            while not is_end and time.monotonic() < until:
                found = await self._link.receive(RECEIVE_MESSAGES, RECEIVE_SECONDS)
                ours = [one for one in found if _is_of(one, run_id)]
                held += [one for one in found if not _is_of(one, run_id)]
                done = await self._replace(ours, instead, publisher)
                taken, kept = taken + done, kept + len(ours) - done
                is_end = not found or found[-1].sequence >= last
        finally:
            await asyncio.gather(*(self._settle(one, GiveBack("not of this run")) for one in held))
        return Taken(taken, is_end and not kept)

    async def _replace(self, ours: Sequence[Received], instead: Instead, publisher: Publisher) -> int:
        parcels = [
            Parcel(envelope=following, topic=self._topic)
            for one in ours
            if (envelope := _envelope(one)) is not None and (following := instead(envelope)) is not None
        ]
        await publisher.send(parcels)  # first: what breaks off between the two leaves one more, never one less
        return sum(await asyncio.gather(*(self._settle(one, Complete()) for one in ours)))

    async def _settle(self, message: Received, settlement: Complete | GiveBack) -> bool:
        try:
            await self._link.settle(message, settlement)
        except (LockLost, LinkBroken) as error:
            log.info("%s/%s: %s not settled: %s", self._topic, self._subscription, message.message_id, error)
            return False
        return True


def _is_of(message: Received, run_id: str) -> bool:
    return message.properties.get("run") == run_id


def _envelope(message: Received) -> Envelope | None:
    try:
        return message.envelope()
    except Poison:
        return None
