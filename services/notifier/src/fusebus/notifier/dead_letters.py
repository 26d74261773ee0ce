"""Watches every dead-letter queue: an upload whose message was given up gets a final, the message stays for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from fusebus.bus import BusError, DeadLetter
from fusebus.contracts.messages import RunCheck
from fusebus.contracts.topology import TOPICS
from fusebus.host import log_fields
from fusebus.ledger import Final, FinalRecorded, UploadRow
from fusebus.notifier import finals
from fusebus.notifier.ports import Ports

_log = logging.getLogger(__name__)

QUEUES = tuple((topic.name, subscription.name) for topic in TOPICS for subscription in topic.subscriptions)
MOST_REMEMBERED = 100_000  # dead letters dealt with; beyond, they are looked at again, which changes nothing


class DeadLetterWatch:
    """Looks at all dead letters each time (a later one may have a lower sequence number), acts on those new to it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._done: set[tuple[str, str, int, str]] = set()
        self._homeless: dict[str, Final] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> set[str]:
        """Deal with every dead letter that is new; the runs that may have changed or need a check.

        A queue that can't be read is passed over: the next look comes. Raises LedgerUnavailable, LedgerError.
        """
        async with self._looking:
            runs: set[str] = set()
            for topic, subscription in QUEUES:
                try:
                    found = await self._all(topic, subscription)
                except BusError as error:
                    _log.warning("dead letters can't be read: %s", error, extra={"queue": f"{topic}/{subscription}"})
                    continue
                for dead in found:
                    runs |= await self._deal_with(dead, topic, subscription)
            return runs

    @property
    def may_adopt(self) -> bool:
        """Whether there are failures of uploads whose run is not known."""
        return bool(self._homeless)

    async def adopt(self, outstanding: Iterable[UploadRow]) -> int:
        """Give a failure to those uploads whose event ingest gave up on: only their run's rows tell where they are."""
        adopted = 0
        for upload in outstanding:
            if (final := self._homeless.get(upload.upload_id)) is not None:
                await self._record(upload.run_id, upload.upload_id, final)
                adopted += 1
        return adopted

    async def _all(self, topic: str, subscription: str) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        while page := await self._ports.dead_letters.peek_dead_letters(
            topic, subscription, found[-1].sequence if found else 0
        ):
            found += page
        return found

    async def _deal_with(self, dead: DeadLetter, topic: str, subscription: str) -> set[str]:
        key = (topic, subscription, dead.sequence, dead.message_id)
        # A dead check: from now on this watch keeps looking at its run, each time.
        lasting = {check.run_id} if dead.envelope and isinstance(check := dead.envelope.message, RunCheck) else set()
        if key in self._done:
            return lasting
        upload, run = finals.upload_of(dead)
        with log_fields(upload=upload, run=run):
            _log.error(
                "dead letter",
                extra={
                    "queue": f"{topic}/{subscription}",
                    "reason": dead.reason,
                    "description": dead.description[:500],
                },
            )
            if upload and run:
                await self._record(run, upload, finals.final_of_dead(dead))
            elif upload:
                self._homeless[upload] = finals.final_of_dead(dead)
        if len(self._done) >= MOST_REMEMBERED:
            self._done.clear()
        self._done.add(key)
        return lasting | ({run} if upload and run else set())

    async def _record(self, run: str, upload: str, final: Final) -> None:
        recorded = await self._ports.ledger.record_final(run, upload, final)
        if recorded is FinalRecorded.UNKNOWN_UPLOAD:
            _log.warning("dead letter names an upload that nobody entered")
        elif recorded is FinalRecorded.NEW:
            _log.warning("final from a dead letter", extra={"kind": final.kind.value, "reason": final.reason})
