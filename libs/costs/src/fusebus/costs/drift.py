"""Compares what was metered with what the bill says, day by day; values in, values out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import msgspec

SETTLING_DAYS = 3  # a day's bill still grows for so long: usage arrives 8 to 24 hours late, corrections later
WORTH_A_LOOK = 0.10  # of the metered cost; less is rounding, start-up seconds and exchange rates
LEAST_WORTH = 1.0  # in the currency: a small sum that is off by a large share is not worth a look

NODES = "nodes"
SERVICES = "services"
NODE_SERVICES = frozenset({"virtual machines", "virtual machines licenses", "azure batch", "batch"})
"""Names under which the bill has nodes; everything else of the scope counts as services."""


class DayDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One day and one kind of cost, or a month's sum of them."""

    day: str
    """YYYY-MM-DD, or YYYY-MM for a sum."""
    kind: str
    metered: float
    billed: float | None
    """None where the bill has not been read, or has no such day yet."""
    settled: bool
    """Whether the bill for the day is old enough not to change any more."""

    @property
    def drift(self) -> float | None:
        """Billed minus metered."""
        return None if self.billed is None else self.billed - self.metered

    @property
    def share(self) -> float | None:
        """The drift as a share of what was metered; None where either is missing."""
        return None if self.drift is None or not self.metered else self.drift / self.metered

    @property
    def worth_a_look(self) -> bool:
        """Whether people should ask why."""
        if not self.settled or self.drift is None or abs(self.drift) < LEAST_WORTH:
            return False
        return self.share is None or abs(self.share) > WORTH_A_LOOK


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """What our own books say of one day."""

    nodes: float = 0.0
    services: float = 0.0


class Billed(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the bill."""

    day: str
    service: str
    cost: float
    currency: str


def kind_of(service: str) -> str:
    """Whether a service of the bill is nodes or something else."""
    return NODES if service.strip().lower() in NODE_SERVICES else SERVICES


def compare(
    metered: Mapping[str, Metered], billed: Iterable[Billed], currency: str, today: date
) -> tuple[list[DayDrift], set[str]]:
    """A line for each day and kind that either side knows, and the bill's other currencies, which can't be compared.

    A day that the bill does not mention at all is unknown, not free; once a later day is mentioned it is free.
    """
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    foreign: set[str] = set()
    days_billed: set[str] = set()
    for line in billed:
        if line.currency != currency:
            foreign.add(line.currency)
            continue
        days_billed.add(line.day)
        sums[line.day, kind_of(line.service)] += line.cost
    last = max(days_billed, default="")
    settled_before = str(today - timedelta(days=SETTLING_DAYS))
    lines = [
        DayDrift(
            day=day,
            kind=kind,
            metered=getattr(metered.get(day, Metered()), kind),
            billed=sums.get((day, kind), 0.0) if day <= last else None,
            settled=day < settled_before,
        )
        for day in sorted({*metered, *days_billed})
        for kind in (NODES, SERVICES)
    ]
    return lines, foreign


def total(lines: Iterable[DayDrift], month: str, kind: str) -> DayDrift:
    """The month's sum over the days of which both sides are known: what is not billed yet is no drift."""
    known = [line for line in lines if line.kind == kind and line.billed is not None]
    return DayDrift(
        day=month,
        kind=kind,
        metered=sum(line.metered for line in known),
        billed=sum(line.billed or 0.0 for line in known) if known else None,
        settled=bool(known) and all(line.settled for line in known),
    )
