"""One delivery's way through a running stack: upload, follow, and know when it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.console.commands import send_photos
from fusebus.console.overview import Queue, read_queues
from fusebus.console.photos import Photo
from fusebus.console.settings import ConsoleSettings
from fusebus.console.uploading import Sent, Upload
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Outgoing
from fusebus.ledger import FinalKind, Ledger, RunRow, RunState, UploadRow
from fusebus.stack.nodes import Nodes, count_nodes
from fusebus.stack.stack import POOL, Stack

LOOK_SECONDS = 0.5
STALL_SECONDS = 180.0
"""Nothing changed for so long: something is broken, say what is outstanding."""


class Stalled(RuntimeError):
    """The delivery makes no progress; the text says what is outstanding and where the logs are."""


@dataclass(frozen=True)
class Moment:
    """What one look saw."""

    runs: tuple[RunRow, ...]
    uploads: tuple[UploadRow, ...]
    queues: tuple[Queue, ...]
    nodes: Nodes
    manifests: int = 0
    """Lists of files that came with the photos; they have no final."""

    @property
    def arrived(self) -> int:
        """Files in the ledger."""
        return len(self.uploads) + self.manifests

    def finals(self, *kinds: FinalKind) -> int:
        """How many uploads ended in one of these ways."""
        return sum(row.final is not None and row.final.kind in kinds for row in self.uploads)

    @property
    def waiting(self) -> int:
        """Uploads without a final."""
        return sum(row.final is None for row in self.uploads)

    def queue(self, topic: str, subscription: str) -> int | None:
        """A subscription's depth; None where it could not be read."""
        return next(q.active for q in self.queues if (q.topic, q.subscription) == (topic, subscription))

    def queued(self, topic: str) -> int | None:
        """The depth of all subscriptions of a topic; None where one could not be read."""
        depths = [q.active for q in self.queues if q.topic == topic]
        return None if None in depths else sum(depth or 0 for depth in depths)


@dataclass(frozen=True)
class Delivered:
    """The end of a delivery, as the ledger, the queues and Batch say it."""

    sent: tuple[Upload, ...]
    last: Moment
    seconds: float
    """From the first upload to the last node's end."""

    @property
    def analysed(self) -> int:
        """Photos that the model has seen."""
        return self.last.finals(FinalKind.ANALYSED, FinalKind.CONVERTED)

    @property
    def rejected(self) -> int:
        """Refused files and duplicates."""
        return self.last.finals(FinalKind.REJECTED, FinalKind.DUPLICATE)

    @property
    def failed(self) -> int:
        """Accepted files that could not be processed, and files that could not be sent."""
        return self.last.finals(FinalKind.FAILED) + sum(not upload.is_there for upload in self.sent)


class Follower:
    """Looks at one supplier's delivery until it is over."""

    def __init__(
        self, stack: Stack, ledger: Ledger, bus: Bus, supplier: str, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._stack, self._ledger, self._bus, self._supplier = stack, ledger, bus, supplier
        self._look_seconds = look_seconds

    async def look(self) -> Moment:
        """Ledger, queues and nodes now."""
        runs, queues, nodes = await asyncio.gather(
            self._ledger.runs(self._supplier), read_queues(self._bus), count_nodes(self._stack.batch_url, POOL)
        )
        found = await asyncio.gather(*(self._ledger.contents(run.run_id) for run in runs))
        uploads = tuple(row for contents in found for row in contents.uploads)
        return Moment(tuple(runs), uploads, queues, nodes, sum(len(contents.manifests) for contents in found))

    async def until(self, over: Callable[[Moment], bool], on_look: Callable[[Moment], None]) -> Moment:
        """Look until `over` holds. Raises Stalled after STALL_SECONDS without any change."""
        before, changed_at = None, time.monotonic()
        while True:
            moment = await self.look()
            on_look(moment)
            if over(moment):
                return moment
            if failures := self._stack.failures():
                raise Stalled("\n".join(failures))
            if moment != before:
                before, changed_at = moment, time.monotonic()
            elif time.monotonic() - changed_at > STALL_SECONDS:
                raise Stalled(self._outstanding(moment))
            await asyncio.sleep(self._look_seconds)

    def _outstanding(self, moment: Moment) -> str:
        queues = ", ".join(f"{q.topic}/{q.subscription} {q.active}" for q in moment.queues if q.active != 0)
        return (
            f"nothing changed for {STALL_SECONDS:.0f} s: {moment.waiting} uploads have no final, "
            f"queues: {queues or 'empty'}, nodes: {moment.nodes.present}; logs: {self._stack.folder / 'logs'}"
        )


async def deliver(
    stack: Stack,
    settings: ConsoleSettings,
    supplier: str,
    photos: list[Photo],
    *,
    close_when_entered: bool,
    on_upload: Callable[[Upload], None],
    on_look: Callable[[Moment], None],
    look_seconds: float = LOOK_SECONDS,
) -> Delivered:
    """Send `photos` and wait until every run is complete, queues are empty and no node is left.

    With `close_when_entered` the run is told to close once every file is in the ledger, else it closes by being quiet.
    Raises Stalled, StorageError, LedgerError.
    """
    began = time.monotonic()
    async with Blobs(settings.blobs) as blobs, Ledger(settings.ledger) as ledger, Bus(settings.bus) as bus:
        follower = Follower(stack, ledger, bus, supplier, look_seconds)
        sent = await send_photos(blobs, supplier, photos, on_upload)
        expected = sum(upload.sent is Sent.SENT for upload in sent)
        if close_when_entered:
            entered = await follower.until(lambda moment: moment.arrived >= expected, on_look)
            await _close(bus, entered.runs)
        last = await follower.until(lambda moment: _is_over(moment, expected), on_look)
    return Delivered(tuple(sent), last, time.monotonic() - began)


async def _close(bus: Bus, runs: tuple[RunRow, ...]) -> None:
    messages = [
        CloseRun(run_id=run.run_id, supplier=run.supplier, requested_by="console")
        for run in runs
        if run.state is RunState.OPEN
    ]
    await bus.publisher().publish([Outgoing(message=message) for message in messages])


def _is_over(moment: Moment, expected: int) -> bool:
    return (
        moment.arrived >= expected
        and moment.waiting == 0
        and all(run.state is RunState.COMPLETE for run in moment.runs)
        and all(queue.active == 0 for queue in moment.queues)
        and moment.nodes.present == 0
    )
