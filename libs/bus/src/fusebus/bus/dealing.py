"""Deals with dead letters on people's word: each goes back into its topic, or is removed for good."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

import msgspec

from fusebus.bus.connection import Connection
from fusebus.bus.errors import BusError, LinkBroken, LockLost
from fusebus.bus.link import ReceiveLink
from fusebus.bus.publisher import Publisher
from fusebus.bus.received import Received
from fusebus.bus.settings import BusSettings
from fusebus.bus.settlement import Complete, GiveBack, Parcel
from fusebus.contracts.envelope import Poison

RECEIVE_MESSAGES = 100
RECEIVE_SECONDS = 1.0
DEAL_SECONDS = 30.0
"""So long at most are dead letters held back: half of a lock."""

log = logging.getLogger(__name__)


class Dealt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of them."""

    done: int = 0
    left: int = 0
    """Can't be put back: nobody can decode them."""


class Dealing:
    """One subscription's dead letters, once."""

    def __init__(self, connection: Connection, topic: str, subscription: str, settings: BusSettings) -> None:
        self._topic, self._subscription = topic, subscription
        self._link = ReceiveLink(connection, topic, subscription, settings, "deadletter")

    async def run(self, message_ids: Collection[str], publisher: Publisher | None) -> Dealt:
        """Deal with those of these ids (empty: all); with a publisher they are sent again first. Raises BusError."""
        try:
            await self._link.open()
            return await self._deal(message_ids, publisher)
        except LinkBroken as error:
            raise BusError(f"dead letters of {self._topic}/{self._subscription}: {error}") from error
        finally:
            await self._link.close()

    async def _deal(self, message_ids: Collection[str], publisher: Publisher | None) -> Dealt:
        dealt, kept, until = Dealt(), list[Received](), time.monotonic() + DEAL_SECONDS
        try:
            while time.monotonic() < until and (found := await self._link.receive(RECEIVE_MESSAGES, RECEIVE_SECONDS)):
                wanted = [one for one in found if not message_ids or one.message_id in message_ids]
                sent = await self._send(wanted, publisher) if publisher else wanted
                kept += [one for one in found if one not in sent]
                done = await asyncio.gather(*(self._settle(one, Complete()) for one in sent))
                dealt = Dealt(done=dealt.done + sum(done), left=dealt.left + len(wanted) - len(sent))
        finally:
            await asyncio.gather(*(self._settle(one, GiveBack("stays a dead letter")) for one in kept))
        return dealt

    async def _send(self, wanted: Sequence[Received], publisher: Publisher) -> list[Received]:
        """Those that were sent: first sent, then removed, so that what breaks off leaves one more, never one less."""
        parcels: dict[Received, Parcel] = {}
        for one in wanted:
            try:
                envelope = one.envelope()
            except Poison as poison:
                log.warning("%s stays a dead letter: %s", one.message_id, poison)
                continue
            # Begins anew, for this subscription alone; another message id, or duplicate detection might swallow it.
            again = msgspec.structs.replace(
                envelope, attempt=1, failures=0, replay=envelope.replay + 1, only=self._subscription
            )
            parcels[one] = Parcel(envelope=again, topic=self._topic)
        await publisher.send(list(parcels.values()))
        return list(parcels)

    async def _settle(self, message: Received, settlement: Complete | GiveBack) -> bool:
        try:
            await self._link.settle(message, settlement)
        except (LockLost, LinkBroken) as error:
            log.info("%s/%s: %s not settled: %s", self._topic, self._subscription, message.message_id, error)
            return False
        return True
