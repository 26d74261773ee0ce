"""Finds uploads that no event announced and announces them with the same event: locally the only source of events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Protocol

from fusebus.arrivals import COPY_PENDING, Listing, Lists, event_of
from fusebus.blobs import ListedBlob, StorageError
from fusebus.bus import PublishFailed
from fusebus.contracts import identity
from fusebus.contracts.outcomes import Outgoing
from fusebus.contracts.topology import FEW_UPLOADS
from fusebus.host import until_stopped
from fusebus.ingest.policy import Place, is_due, old_enough, supplier_of
from fusebus.ingest.settings import IngestSettings
from fusebus.ledger import Entered, LedgerError

CHUNK = 100  # uploads looked up and announced at a time
TOGETHER = 16  # containers listed at a time
NEVER = float("inf")
AROUND_SECONDS = 60.0
"""Pause before a container is listed again whose listing fails: going around takes thousands of requests."""
NEW_SECONDS = 86_400.0
"""Event Grid tries for a day; of what is older no event is on its way."""

_log = logging.getLogger(__name__)


class Containers(Lists, Protocol):
    """What the sweep lists."""

    def list_supplier_containers(self) -> AsyncIterator[str]: ...


class Known(Protocol):
    """Where the sweep sees whether an upload arrived."""

    async def find_upload(self, upload_id: str) -> Entered | None: ...


class Outbox(Protocol):
    """Where events go."""

    async def publish(self, outgoing: Sequence[Outgoing]) -> None: ...


@dataclass
class _Memory:
    """When an upload was announced (seconds, monotonic; NEVER: it is in a run) and how often."""

    sent_at: float
    times: int = 1


@dataclass(kw_only=True)
class Sweep:
    """One process's search, with its ports. What it announced it keeps in memory only: a restart asks the ledger."""

    blobs: Containers
    ledger: Known
    publisher: Outbox
    settings: IngestSettings
    held: Callable[[str, str], Awaitable[bool]] | None = None
    """Whether a supplier's upload is to be left alone for now; None: none is."""
    in_hand: Container[str] = frozenset()
    """Uploads that are being dealt with, or were lately: those that no search beside a flood need look up."""
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    _seen: dict[str, dict[str, _Memory]] = field(default_factory=dict)
    _rests: dict[str, float] = field(default_factory=dict)
    """Until when (seconds, monotonic) a container is left alone whose listing fails."""
    _unlisted: dict[str, float] = field(default_factory=dict)
    """The same for those that are searched beside a flood, without going around."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Containers take turns with their chunks: ten uploads don't wait for another supplier's ten thousand."""

    def announced(self, place: Place) -> bool:
        """Whether a search of this process met the upload: announced it, found it in a run, or held."""
        return place.upload_id in self._seen.get(place.container, {})

    async def run(self, stop: asyncio.Event) -> None:
        """Search again and again until `stop`, which breaks off a search: a restart announces what is missing."""
        await until_stopped(self._rounds(), stop)

    async def _rounds(self) -> None:
        while self.settings.sweep_interval_seconds:
            await self.once()
            await asyncio.sleep(self.settings.sweep_interval_seconds)

    async def once(self) -> int:
        """One round over all containers; how many uploads it announced. A container that can't be listed is skipped."""
        return sum(await self._each(await self._containers(), self._whole))

    async def beside(self, floods: Callable[[str], bool], seconds: float) -> int:
        """Announce the few of each supplier that `floods` does not name: uploads whose events may still come.

        At most FEW_UPLOADS of each at a look: those of whoever has more are not the few that must not wait. What so
        many seconds don't suffice for is left to the next call, hence the random order. Where fewer were found it looks
        again, after `pile_search_seconds`: a delivery may just be coming.
        """
        total = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                others = [name for name in await self._containers() if not floods(supplier_of(name) or "")]
                chosen = [name for name in others if self.monotonic() >= self._unlisted.get(name, 0.0)]
                random.shuffle(chosen)
                found = await self._each(chosen, self._few)
                total = sum(found)
                if coming := [name for name, count in zip(chosen, found, strict=True) if 0 < count < FEW_UPLOADS]:
                    await asyncio.sleep(self.settings.pile_search_seconds)
                    total += sum(await self._each(coming, self._few))
        return total

    async def _containers(self) -> list[str]:
        try:
            return [name async for name in self.blobs.list_supplier_containers()]
        except StorageError as error:
            _log.warning("the sweep can't list containers: %s", error)
            return []

    async def _each(self, containers: Sequence[str], look: Callable[[str], Awaitable[int]]) -> list[int]:
        places = asyncio.Semaphore(TOGETHER)
        return await asyncio.gather(*(self._one(container, look, places) for container in containers))

    async def _one(self, container: str, look: Callable[[str], Awaitable[int]], places: asyncio.Semaphore) -> int:
        async with places:
            if self.monotonic() < self._rests.get(container, 0.0):
                return 0
            try:
                return await look(container)
            except (StorageError, LedgerError, PublishFailed) as error:
                _log.warning("the sweep of %s broke off: %s", container, error)
            except Exception:  # the safety net must not be what ends the process, again after each restart
                _log.exception("the sweep of %s failed", container)
        return 0

    async def _few(self, container: str) -> int:
        memory = self._seen.setdefault(container, {})
        listed: set[str] = set()
        missing, chunk = dict[str, ListedBlob](), dict[str, ListedBlob]()
        try:
            async for blob in self.blobs.list(container, retry=False):
                upload_id = identity.upload_id(container, blob.name, blob.etag)
                listed.add(upload_id)
                if self._is_new(blob) and upload_id not in self.in_hand and self._unsaid(memory.get(upload_id)):
                    chunk[upload_id] = blob
                if len(chunk) == CHUNK:
                    missing |= await self._missing(chunk, memory)
                    chunk = {}
                if len(missing) >= FEW_UPLOADS:
                    break
            else:
                self._forget_all_but(listed, memory)
        except StorageError as error:
            _log.info("others' uploads were not searched in %s: %s", container, error)
            self._unlisted[container] = self.monotonic() + AROUND_SECONDS
        if len(missing) < FEW_UPLOADS:
            missing |= await self._missing(chunk, memory)
        return await self._announce_in_turn(container, dict(islice(missing.items(), FEW_UPLOADS)), memory)

    def _is_new(self, blob: ListedBlob) -> bool:
        """Whether Event Grid may still be about to tell of it; not what has only begun."""
        age = (self.clock() - blob.modified_at).total_seconds()
        return age < NEW_SECONDS and blob.size > 0 and blob.copy_status != COPY_PENDING

    async def _whole(self, container: str) -> int:
        memory = self._seen.setdefault(container, {})
        listed: set[str] = set()
        announced, chunk = 0, dict[str, ListedBlob]()
        listing = Listing(self.blobs, container)
        broken: StorageError | None = None
        try:
            async for blob in listing:
                upload_id = identity.upload_id(container, blob.name, blob.etag)
                listed.add(upload_id)
                if self._due(blob) and self._unsaid(memory.get(upload_id)):
                    chunk[upload_id] = blob
                if len(chunk) == CHUNK:
                    announced += await self._announce_in_turn(container, chunk, memory)
                    chunk = {}
        except StorageError as error:
            broken = error
        announced += await self._announce_in_turn(container, chunk, memory)
        if broken is not None:  # what it gave until then counted, but who is missing now need not be gone
            raise broken
        if listing.why:
            self._tell_hidden(listing)
            return announced
        self._forget_all_but(listed, memory)
        return announced

    @staticmethod
    def _forget_all_but(listed: Set[str], memory: dict[str, _Memory]) -> None:
        for gone in memory.keys() - listed:
            del memory[gone]

    def _tell_hidden(self, listing: Listing) -> None:
        self._rests[listing.container] = self.monotonic() + AROUND_SECONDS
        _log.error(
            "a listing fails at a name: what begins like these is not seen, unless its event comes",
            extra={"container": listing.container, "names": listing.hidden[:20], "error": listing.why},
        )

    def _due(self, blob: ListedBlob) -> bool:
        if blob.copy_status == COPY_PENDING:  # its end changes the ETag
            return False
        return old_enough(blob.modified_at, self.clock(), self.settings.sweep_grace_seconds)

    def _unsaid(self, seen: _Memory | None) -> bool:
        """Whether it was not announced yet, or so long ago that it is said again."""
        return is_due(
            now=self.monotonic(),
            sent_at=seen.sent_at if seen else None,
            times=seen.times if seen else 0,
            repeat_seconds=self.settings.sweep_repeat_seconds,
            repeats=self.settings.sweep_repeats,
        )

    async def _announce_in_turn(self, container: str, chunk: dict[str, ListedBlob], memory: dict[str, _Memory]) -> int:
        if not chunk:
            return 0
        async with self._turn:
            # while it waited, another search may have announced some
            left = {upload_id: blob for upload_id, blob in chunk.items() if self._unsaid(memory.get(upload_id))}
            return await self._announce(container, left, memory)

    async def _missing(self, chunk: dict[str, ListedBlob], memory: dict[str, _Memory]) -> dict[str, ListedBlob]:
        """Those that are in no run."""
        found = await asyncio.gather(*(self.ledger.find_upload(upload_id) for upload_id in chunk))
        arrived = {upload_id for upload_id, entered in zip(chunk, found, strict=True) if entered}
        memory.update({upload_id: _Memory(NEVER) for upload_id in arrived})
        return {upload_id: blob for upload_id, blob in chunk.items() if upload_id not in arrived}

    async def _announce(self, container: str, chunk: dict[str, ListedBlob], memory: dict[str, _Memory]) -> int:
        missing = await self._missing(chunk, memory)
        missing = await self._without_held(container, missing, memory)
        await self.publisher.publish(
            [
                Outgoing(
                    message=event_of(container, blob),
                    replay=memory[upload_id].times if upload_id in memory else 0,
                )
                for upload_id, blob in missing.items()
            ]
        )
        for upload_id in missing:
            times = memory[upload_id].times + 1 if upload_id in memory else 1
            memory[upload_id] = _Memory(self.monotonic(), times)
            if times > self.settings.sweep_repeats:
                _log.error("announced for the last time, still in no run", extra={"upload": upload_id, "times": times})
        return len(missing)

    async def _without_held(
        self, container: str, missing: dict[str, ListedBlob], memory: dict[str, _Memory]
    ) -> dict[str, ListedBlob]:
        """Those that may be announced; the others are looked at again after `sweep_repeat_seconds`, uncounted.

        What was held and is offered again begins its count anew.
        """
        supplier = supplier_of(container)
        if self.held is None or supplier is None:
            return missing
        found = await asyncio.gather(*(self.held(supplier, upload_id) for upload_id in missing))
        held = {upload_id for upload_id, is_held in zip(missing, found, strict=True) if is_held}
        memory.update({upload_id: _Memory(self.monotonic(), 0) for upload_id in held})
        return {upload_id: blob for upload_id, blob in missing.items() if upload_id not in held}
