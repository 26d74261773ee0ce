"""Says whose a month's cost is: by run, day, pool or supplier, and per image; values in, values out."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from fusebus.costs.forecast import month_of

SPELL_GAP = timedelta(minutes=15)  # nodes that are gone for less belong to the same spell of work
LONGEST_SPELL = timedelta(hours=6)  # a pool that never goes is cut into spells, so that idle nights are nobody's
NOBODY = "(nobody)"
"""Cost that no image had a part in: nodes that came for nothing, idle days, the services' base without uploads."""
SERVICES = ".services"
"""In place of a pool, in samples of what storage and messages cost."""
SERVICES_SHOWN = "(storage, messages)"
LEAST_WORKER_SECONDS = 0.001  # of an image whose timings are unknown or zero, so that it carries something


class By(StrEnum):
    """What a line of the report is about."""

    RUN = "run"
    DAY = "day"
    POOL = "pool"
    SUPPLIER = "supplier"


class Sample(Protocol):
    """A cost sample as the ledger keeps it."""

    @property
    def pool(self) -> str: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime: ...
    @property
    def node_seconds(self) -> float: ...
    @property
    def spot_node_seconds(self) -> float: ...
    @property
    def cost(self) -> float: ...
    @property
    def currency(self) -> str: ...
    @property
    def serves(self) -> str: ...


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One upload, as far as its cost is concerned."""

    run_id: str
    supplier: str
    entered_at: datetime
    done_at: datetime | None = None
    """When a worker was done with it; None where none had it in hand (rejected, duplicate, not yet)."""
    serves: str = ""
    """The job kind."""
    worker_seconds: float = 0.0
    """How long workers had it in hand, by its stage timings."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the report."""

    name: str
    cost: float
    nodes: float
    """Of `cost`; the rest is storage and messages."""
    node_hours: float = 0.0
    images: int = 0
    """That a worker did."""

    @property
    def per_image(self) -> float | None:
        """None without images."""
        return self.cost / self.images if self.images else None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A month, or so much of it as there is."""

    month: str
    by: By
    currency: str
    lines: tuple[Line, ...]
    total: Line
    other_currencies: tuple[str, ...] = ()
    """Of samples that were left out: they can't be added."""


class _Share(msgspec.Struct):
    nodes: float = 0.0
    services: float = 0.0
    node_seconds: float = 0.0
    images: int = 0


def report(month: str, by: By, currency: str, samples: Iterable[Sample], works: Sequence[Work]) -> Report:
    """The month's cost by what is asked for; runs, suppliers and images share each spell of their nodes.

    A spell is the time from the first node to the last, boot and idle included. Its cost is shared among the images
    that were done in it, by worker seconds; storage and messages of a day among the day's uploads, equally.
    An image is counted in the month in which it was done; one that was done just after it still has its part in the
    last spell.
    """
    all_samples = list(samples)
    mine = [sample for sample in all_samples if sample.currency == currency]
    finished = [work for work in works if work.done_at is not None and month_of(work.done_at) == month]
    sums: defaultdict[str, _Share] = defaultdict(_Share)
    if by in (By.DAY, By.POOL):
        _directly(sums, by, mine, finished)
    else:
        _by_share(sums, by, mine, works, finished)
    lines = tuple(_line(name, share) for name, share in sorted(sums.items()))
    return Report(
        month=month,
        by=by,
        currency=currency,
        lines=lines,
        total=Line(
            name="total",
            cost=sum(line.cost for line in lines),
            nodes=sum(line.nodes for line in lines),
            node_hours=sum(line.node_hours for line in lines),
            images=len(finished),
        ),
        other_currencies=tuple(sorted({sample.currency for sample in all_samples} - {currency})),
    )


def _line(name: str, share: _Share) -> Line:
    return Line(
        name=name,
        cost=share.nodes + share.services,
        nodes=share.nodes,
        node_hours=share.node_seconds / 3600,
        images=share.images,
    )


def _directly(sums: defaultdict[str, _Share], by: By, samples: Iterable[Sample], finished: Iterable[Work]) -> None:
    for sample in samples:
        pool = SERVICES_SHOWN if sample.pool == SERVICES else sample.pool
        name = _day(sample.started_at) if by is By.DAY else pool
        if sample.pool == SERVICES:
            sums[name].services += sample.cost
        else:
            sums[name].nodes += sample.cost
            sums[name].node_seconds += sample.node_seconds
    for work in finished:
        if work.done_at is not None and by is By.DAY:
            sums[_day(work.done_at)].images += 1
    if by is By.POOL:
        _images_of_pools(sums, samples, finished)


def _images_of_pools(sums: Mapping[str, _Share], samples: Iterable[Sample], finished: Iterable[Work]) -> None:
    """Images are counted where only one pool serves their kind: which of several had it nobody writes down."""
    serving: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.pool != SERVICES:
            serving[sample.serves].add(sample.pool)
    for work in finished:
        pools = serving[work.serves] | serving[""] if work.serves else set()
        if len(pools) == 1:
            sums[next(iter(pools))].images += 1


def _by_share(
    sums: defaultdict[str, _Share], by: By, samples: Iterable[Sample], works: Sequence[Work], finished: Iterable[Work]
) -> None:
    def name(work: Work) -> str:
        return work.run_id if by is By.RUN else work.supplier

    for work in finished:
        sums[name(work)].images += 1
    for work in works:
        sums[name(work)].images += 0  # a line for each, also without an image or cost
    done = sorted(((work.done_at, work) for work in works if work.done_at), key=lambda one: one[0])
    for spell in _spells(sample for sample in samples if sample.pool != SERVICES):
        inside = spell.of(done)
        weights = [max(work.worker_seconds, LEAST_WORKER_SECONDS) for work in inside]
        whole = sum(weights)
        for work, weight in zip(inside, weights, strict=True):
            share = sums[name(work)]
            share.nodes += spell.cost * weight / whole
            share.node_seconds += spell.node_seconds * weight / whole
        if not inside:
            sums[NOBODY].nodes += spell.cost
            sums[NOBODY].node_seconds += spell.node_seconds
    for sample in samples:
        if sample.pool == SERVICES:
            entered = [work for work in works if sample.started_at <= work.entered_at < sample.ended_at]
            for work in entered:
                sums[name(work)].services += sample.cost / len(entered)
            if not entered:
                sums[NOBODY].services += sample.cost


class _Spell(msgspec.Struct):
    serves: str
    start: datetime
    end: datetime
    cost: float
    node_seconds: float
    latest: datetime
    """Until when images count as done in it: its end, and the gap after it, for a result takes a moment to be
    recorded."""

    def of(self, done: Sequence[tuple[datetime, Work]]) -> list[Work]:
        """The images that were done by its nodes, of all in the order of time."""
        begin = bisect_left(done, self.start, key=lambda one: one[0])
        end = bisect_left(done, self.latest, key=lambda one: one[0])
        alike = {self.serves, ""} if self.serves else None
        return [work for _, work in done[begin:end] if alike is None or work.serves in alike]


def _spells(samples: Iterable[Sample]) -> list[_Spell]:
    """For each job kind the times in which it had nodes, of all pools together."""
    by_kind: defaultdict[str, list[_Spell]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.started_at):
        spells = by_kind[sample.serves]
        last = spells[-1] if spells else None
        if last and sample.started_at <= last.end + SPELL_GAP and sample.started_at < last.start + LONGEST_SPELL:
            last.end = max(last.end, sample.ended_at)
            last.cost += sample.cost
            last.node_seconds += sample.node_seconds
        else:
            start, end = sample.started_at, sample.ended_at
            spells.append(_Spell(sample.serves, start, end, sample.cost, sample.node_seconds, end))
    for spells in by_kind.values():
        for number, spell in enumerate(spells):
            following = spells[number + 1].start if number + 1 < len(spells) else None
            spell.latest = spell.end + SPELL_GAP if following is None else min(spell.end + SPELL_GAP, following)
    return [spell for spells in by_kind.values() for spell in spells]


def _day(moment: datetime) -> str:
    return str(moment.astimezone(UTC).date())
