"""What is learnt from look to look, as notes that outlive the process: into the ledger, and out of it."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Protocol

import msgspec

from fusebus.dispatcher.breaker import Breaker
from fusebus.dispatcher.errors import LaterTerm
from fusebus.dispatcher.lateness import LateWatch
from fusebus.dispatcher.learning import Evictions
from fusebus.dispatcher.memory import KindMemory, Memory, PoolMemory
from fusebus.dispatcher.waiting import Ages
from fusebus.ledger import LedgerError, Remembered
from fusebus.planning import Arrivals, Refusal

KEEP_SECONDS = 60.0  # what changes all the time is written this often
MOST_NAMES = 100  # of nodes, in one note: a column of the ledger has an end
MOST_GROUPS = 300  # of what waits; what came later counts as come with the last of them
MOST_WORDS = 300  # characters of what a node said last

log = logging.getLogger(__name__)


class PoolNotes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one pool."""

    breaker: Breaker = Breaker()
    evictions: Evictions = Evictions()
    refusals: tuple[Refusal, ...] = ()
    boots: tuple[float, ...] = ()
    """Seconds."""
    seconds_per_image: float | None = None
    """None: not measured."""
    rates: tuple[float, ...] = ()
    said: tuple[tuple[str, str], ...] = ()
    """The last words of the last node or worker that failed."""


class KindNotes(msgspec.Struct, frozen=True, kw_only=True):
    """Of one job kind."""

    late: LateWatch = LateWatch()
    depth: int | None = None
    """At which the work without result began."""
    fruitless: float = 0.0
    """Seconds of work without result: what is left may be poison."""
    waiting: tuple[tuple[float, float], ...] = ()
    """Seconds since 1970 of arrivals, and how many images."""
    arrivals: Arrivals = Arrivals()


class NoteBooks(Protocol):
    """The ledger, as far as it is needed here; raises LedgerError."""

    async def remember(self, notes: Remembered) -> int:
        """The term whose notes stand."""

    async def remembered(self, subject: str) -> Remembered | None:
        """The last ones."""


class Keeper:
    """Recalls in each new term what the leader before knew, and keeps what this one learns, under its term."""

    def __init__(self, ledger: NoteBooks) -> None:
        self._ledger = ledger
        self._term: int | None = None  # in which everything was recalled
        self._kept: dict[str, tuple[bytes, bytes, datetime]] = {}  # by subject: the gist, all of it, when

    async def recall(self, memory: Memory, term: int, now: datetime, monotonic: float) -> None:
        """Once in a term, as soon as the ledger can be read: what was learnt since it began gives way to it, but for
        a breaker that has opened."""
        if self._term == term:
            return
        try:
            found = {name: await self._ledger.remembered(name) for name in _subjects(memory)}
        except LedgerError as error:
            log.warning("what the leader before had learnt can't be read yet: %s", error)
            return
        self._term, self._kept = term, {}
        for name, notes in found.items():
            if notes is not None:
                _take(memory, name, notes, now, monotonic)

    async def keep(self, memory: Memory, term: int, now: datetime, monotonic: float) -> None:
        """Write what is news, now or within KEEP_SECONDS; not before the notes of before were read.

        Raises LaterTerm where a later leader has kept notes; what the ledger can't take waits.
        """
        if self._term != term:
            return
        for name, gist, whole in _notes(memory, now, monotonic):
            before = self._kept.get(name)
            if before is not None and (whole == before[1] or (gist == before[0] and _recent(before[2], now))):
                continue
            notes = Remembered(subject=name, term=term, kept_at=now, notes=whole.decode())
            try:
                stands = await self._ledger.remember(notes)
            except (LedgerError, ValueError) as error:  # too long, say
                log.warning("the notes on %s wait to be written: %s", name, error)
                continue
            if stands > term:
                raise LaterTerm(f"the notes on {name} are of term {stands}, ours is {term}", stands)
            self._kept[name] = (gist, whole, now)


def _take(memory: Memory, name: str, notes: Remembered, now: datetime, monotonic: float) -> None:
    try:
        if name in memory.pools:
            recall_pool(memory.pools[name], msgspec.json.decode(notes.notes, type=PoolNotes))
        else:
            kind = next(kind for kind in memory.kinds if kind_subject(kind.value) == name)
            recall_kind(memory.kinds[kind], msgspec.json.decode(notes.notes, type=KindNotes), now, monotonic)
    except msgspec.DecodeError as error:  # of another release: it is learnt anew
        log.warning("the notes on %s can't be understood: %s", name, error)


def kind_subject(kind: str) -> str:
    """No pool can have this name."""
    return f"kind:{kind}"


def pool_notes(memory: PoolMemory) -> PoolNotes:
    """What is worth keeping; which nodes were sound is not: they are seen anew."""
    breaker, evictions = memory.breaker, memory.evictions
    broken = dict(sorted(breaker.broken.items(), key=lambda one: one[1])[-MOST_NAMES:])
    gone = evictions.gone if evictions.gone is not None and len(evictions.gone) <= MOST_NAMES else None
    return PoolNotes(
        breaker=msgspec.structs.replace(breaker, sound=None, broken=broken),
        evictions=msgspec.structs.replace(evictions, gone=gone, times=evictions.times[-MOST_NAMES:]),
        refusals=tuple(memory.refusals.values()),
        boots=memory.boots.samples,
        seconds_per_image=memory.rate.seconds_per_image if memory.rate.measured else None,
        rates=memory.rate.samples,
        said=tuple((name, text[:MOST_WORDS]) for name, text in list(memory.logs.items())[-1:]),
    )


def recall_pool(memory: PoolMemory, notes: PoolNotes) -> None:
    """The pool's memory as the notes have it."""
    memory.breaker = notes.breaker if memory.breaker.cause is None else memory.breaker
    memory.evictions = notes.evictions
    memory.refusals = {refusal.spot: refusal for refusal in notes.refusals}
    memory.boots = msgspec.structs.replace(memory.boots, samples=notes.boots, looked=False)
    memory.logs = dict(notes.said)
    if notes.seconds_per_image is not None:
        rate = memory.rate.interrupted()
        memory.rate = msgspec.structs.replace(
            rate, seconds_per_image=notes.seconds_per_image, measured=True, samples=notes.rates
        )


def kind_notes(memory: KindMemory, now: datetime, monotonic: float) -> KindNotes:
    """What is worth keeping, in times that outlive the process; to the second, so that nothing new looks like it."""
    groups = memory.ages.groups
    if len(groups) > MOST_GROUPS:
        rest = sum(images for _, images in groups[MOST_GROUPS:])
        groups = (*groups[: MOST_GROUPS - 1], (groups[MOST_GROUPS - 1][0], groups[MOST_GROUPS - 1][1] + rest))
    return KindNotes(
        late=memory.late,
        depth=memory.progress.depth,
        fruitless=round(memory.progress.fruitless),
        waiting=tuple((round(now.timestamp() - (monotonic - since)), round(images, 1)) for since, images in groups),
        arrivals=memory.arrivals,
    )


def recall_kind(memory: KindMemory, notes: KindNotes, now: datetime, monotonic: float) -> None:
    """The kind's memory as the notes have it; the time since then counts as waited, not as worked."""
    memory.late, memory.arrivals = notes.late, notes.arrivals
    memory.progress = msgspec.structs.replace(
        memory.progress, depth=notes.depth, fruitless=notes.fruitless, at=monotonic
    )
    groups = tuple((monotonic - (now.timestamp() - since), images) for since, images in notes.waiting)
    memory.ages = Ages(groups=groups, at=monotonic)
    memory.depth = round(sum(images for _, images in groups)) if groups else None


def _subjects(memory: Memory) -> list[str]:
    return [*memory.pools, *(kind_subject(kind.value) for kind in memory.kinds)]


def _notes(memory: Memory, now: datetime, monotonic: float) -> list[tuple[str, bytes, bytes]]:
    """Of each subject: its name, what can't wait to be written, and all of it."""
    found = []
    for name, pool in memory.pools.items():
        notes = pool_notes(pool)
        gist = (notes.breaker, notes.evictions.times, notes.refusals)
        found.append((name, _text(gist), _text(notes)))
    for kind, memory_of_kind in memory.kinds.items():
        known = kind_notes(memory_of_kind, now, monotonic)
        late = (known.late.since, known.late.told)
        found.append((kind_subject(kind.value), _text(late), _text(known)))
    return found


def _text(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _recent(then: datetime, now: datetime) -> bool:
    return abs((now - then).total_seconds()) < KEEP_SECONDS
