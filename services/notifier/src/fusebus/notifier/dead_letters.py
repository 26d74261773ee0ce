"""Watches every dead-letter queue: an upload whose message was given up gets a final, the message stays for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple

from fusebus.bus import BusError, DeadLetter
from fusebus.contracts.messages import ReleaseRun, RunCheck
from fusebus.contracts.topology import TOPICS
from fusebus.host import log_fields
from fusebus.ledger import Entered, Final, FinalRecorded, LedgerUnavailable, RunState
from fusebus.notifier import finals, telemetry
from fusebus.notifier.alerts import Alert, release_alert
from fusebus.notifier.ports import Ports
from fusebus.notifier.telling import told

_log = logging.getLogger(__name__)

QUEUES = tuple((topic.name, subscription.name) for topic in TOPICS for subscription in topic.subscriptions)
MOST_REMEMBERED = 100_000  # dead letters dealt with; beyond, they are looked at again, which changes nothing
LAST_TRY = timedelta(minutes=5)
"""From a dead event's last arrival in its queue to the end of its last handling: what was entered later, another event
of the same upload entered (the sweep's repeat), and what becomes of it is that event's business."""


class _Concern(NamedTuple):
    """What a dead letter means for a run; none where `run` is empty."""

    run: str = ""
    lasting: bool = False
    """Nobody else looks at the run: its chain of checks ended here, or never began."""


class DeadLetterWatch:
    """Looks at all dead letters each time (a later one may have a lower sequence number), acts on those new to it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._done: dict[tuple[str, int, str], str] = {}  # dead letter: the run to be looked at each time, or ""
        self._untold: dict[str, Alert] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> set[str]:
        """Deal with every dead letter that is new; the runs that may have changed or need a check.

        A queue that can't be read is passed over: the next look comes. Raises LedgerUnavailable.
        """
        async with self._looking:
            runs: set[str] = set()
            for topic, subscription in QUEUES:
                queue = f"{topic}/{subscription}"
                try:
                    async for dead in self._all(topic, subscription):
                        runs.add(await self._deal_with(dead, queue))
                except BusError as error:
                    _log.warning("dead letters can't be read: %s", error, extra={"queue": queue})
            await self._tell()
            return runs - {""}

    async def _tell(self) -> None:
        """Tell the operators what only they can mend; what can't be told now is told after a later look."""
        for key, alert in list(self._untold.items()):
            try:
                if await told(alert, self._ports):
                    del self._untold[key]
            except Exception:
                _log.exception("the operators are told of it after the next look", extra={"alert": key})

    async def _all(self, topic: str, subscription: str) -> AsyncIterator[DeadLetter]:
        last = 0
        while page := await self._ports.dead_letters.peek_dead_letters(topic, subscription, last):
            for dead in page:
                yield dead
            last = page[-1].sequence

    async def _deal_with(self, dead: DeadLetter, queue: str) -> str:
        """The run that it concerns now, or nothing."""
        key = (queue, dead.sequence, dead.message_id)
        if key in self._done:
            return self._done[key]
        try:
            concern = await self._act_on(dead, queue)
        except LedgerUnavailable:
            raise  # nor would the others get further
        except Exception:
            _log.exception("a dead letter can't be dealt with, the next look tries again", extra={"queue": queue})
            return ""
        if len(self._done) >= MOST_REMEMBERED:
            self._done.clear()
        self._done[key] = concern.run if concern.lasting else ""
        return concern.run

    async def _act_on(self, dead: DeadLetter, queue: str) -> _Concern:
        upload, run = finals.upload_of(dead)
        with log_fields(upload=upload, run=run):
            told = {"queue": queue, "reason": dead.reason, "description": dead.description[:500]}
            _log.error("dead letter", extra=told)
            telemetry.dead_letter(*queue.split("/"))
            match dead.envelope.message if dead.envelope else None:
                case RunCheck():
                    return _Concern(run, lasting=True)
                case ReleaseRun() as order:
                    await self._find_waiting(order, dead, queue)
                    return _Concern()
            if not upload:
                return _Concern()
            final = finals.final_of_dead(dead)
            if run:
                await self._record(run, upload, final)
                return _Concern(run)
            entered = await self._ports.ledger.find_upload(upload)
            return await self._fail_entered(entered, final) if entered else _Concern()

    async def _find_waiting(self, order: ReleaseRun, dead: DeadLetter, queue: str) -> None:
        """Photos that nobody announces now: no final would be right, for the message may be put back."""
        run = await self._ports.ledger.run(order.run_id)
        if run is None or run.state is RunState.COMPLETE or run.cancelled_at is not None:
            return
        uploads = (await self._ports.ledger.contents(order.run_id)).uploads
        left = [upload for upload in uploads if upload.final is None and upload.when and not upload.waits_for]
        if not order.requested_by:
            left = [upload for upload in left if upload.release_at == order.opens_at]
        if left:
            about = (dead.sequence, dead.message_id, f"{dead.reason}: {dead.description}")
            alert = release_alert(order, len(left), queue, about, self._ports.clock())
            self._untold[alert.key] = alert

    async def _fail_entered(self, entered: Entered, final: Final) -> _Concern:
        """Ingest gave up on an event whose upload it had entered: nobody was told of the upload, nor of its run."""
        if entered.upload.entered_at <= final.at + LAST_TRY:
            await self._record(entered.run_id, entered.upload.upload_id, final)
        return _Concern(entered.run_id, lasting=entered.opened)

    async def _record(self, run: str, upload: str, final: Final) -> None:
        recorded = await self._ports.ledger.record_final(run, upload, final)
        if recorded is FinalRecorded.UNKNOWN_UPLOAD:
            _log.warning("dead letter names an upload that nobody entered")
        elif recorded is FinalRecorded.NEW:
            telemetry.final(final.kind.value)
            _log.warning("final from a dead letter", extra={"kind": final.kind.value, "reason": final.reason})
