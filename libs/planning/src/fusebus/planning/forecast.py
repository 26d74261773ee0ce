"""Tells from the arrivals so far how fast images come and how long it usually is until the next delivery."""

from __future__ import annotations

import math
import statistics

import msgspec

SAME_DELIVERY = 60.0  # seconds: arrivals that are nearer to each other belong to one delivery
MEMORY = 600.0  # seconds: time constant of the rate
KEPT_GAPS = 5
LEAST_GAPS = 2  # fewer say nothing


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at one moment; `observe` gives the next. Times in seconds since 1970."""

    since: float | None = None
    """When the watch began."""
    at: float = 0.0
    """Of the rate."""
    rate: float = 0.0
    last: float | None = None
    """When something arrived last."""
    began: float | None = None
    """When the delivery began that it belongs to."""
    gaps: tuple[float, ...] = ()
    """Between the last deliveries, in seconds."""

    def observe(self, now: float, arrived: int) -> Arrivals:
        """After `arrived` images since the last look."""
        since = now if self.since is None else self.since
        elapsed = max(0.0, now - self.at) if self.since is not None else 0.0
        rate = self.rate * math.exp(-elapsed / MEMORY) + arrived / MEMORY
        if not arrived:
            return msgspec.structs.replace(self, since=since, at=now, rate=rate)
        gap = math.inf if self.last is None else now - self.last
        new = gap > SAME_DELIVERY
        gaps = (*self.gaps, gap)[-KEPT_GAPS:] if new and self.last is not None else self.gaps
        began = now if new else self.began
        return Arrivals(since=since, at=now, rate=rate, last=now, began=began, gaps=gaps)

    def per_second(self, now: float) -> float | None:
        """The rate over the last minutes, corrected for a watch that is younger; None before the first look."""
        if self.since is None or now <= self.since:
            return None
        rate = self.rate * math.exp(-(now - self.at) / MEMORY)
        return rate / (1.0 - math.exp(-(now - self.since) / MEMORY))

    def gap(self, now: float) -> float | None:
        """The usual time between two deliveries; a flow without gaps counts as one image after the other."""
        if self.last is not None and self.began is not None and self.last - self.began > MEMORY:
            return SAME_DELIVERY
        return statistics.median(self.gaps) if len(self.gaps) >= LEAST_GAPS else None

    def quiet(self, now: float) -> float:
        """Seconds since the last arrival."""
        return math.inf if self.last is None else now - self.last

    def delivery_age(self, now: float) -> float | None:
        """Seconds since the delivery under way, or the last one, began."""
        return None if self.began is None else now - self.began
