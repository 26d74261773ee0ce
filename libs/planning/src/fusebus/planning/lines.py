"""A line: one pool at one price class, with all that counts when nodes of it are wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fusebus.planning.demand import KindDemand
from fusebus.planning.fleet import PoolState, Quantiles, Refusal
from fusebus.planning.limits import Limits
from fusebus.planning.prices import PoolOffer, Prices

SECONDS_PER_HOUR = 3600.0
P95_OVER_P50 = 1.2  # of an assumed service time
SURELY_SOON = 60.0  # seconds (half a boot where that is less): what a node that is later than its p95 still gets
GIVEN_UP, OVERDUE = 2.0, 120.0  # p95 of a boot, and seconds more: then a node that still starts is not counted on
LONG_RESIZE = 180.0  # seconds: a pool that resizes longer than this is not waited for
STORM_SHARE = 0.5  # of Spot nodes that work, so much is counted on in a storm
MOST_DOUBLINGS = 3  # of the pause after a refusal
SHARE_OF_TIME_LEFT = 0.5  # to the first deadline: no pause grows beyond it, for late work asks as often as it may
FORGOTTEN = 4 * 3600.0  # seconds after which a refusal says nothing any more

Key = tuple[str, bool]  # pool, Spot


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds, money per node and hour."""

    offer: PoolOffer
    spot: bool
    price: float
    service: Quantiles
    boot: Quantiles
    ready: int
    coming: int
    coming_in: float
    allocated: int
    """Of those ready or coming, nodes that have a machine."""
    kept: int
    """Nodes that there are if nothing is changed."""
    lost: int
    """Of those, Spot nodes that Azure took some time ago, and would give back when it can."""
    steady: bool
    storm: bool
    doubt: bool
    """Spot that was refused lately, or a storm: it may not come even where it may be asked for."""
    why_not: str
    """Why nothing may be bought here now; empty: it may."""

    @property
    def key(self) -> Key:
        """Pool and price class."""
        return (self.offer.pool, self.spot)

    @property
    def name(self) -> str:
        """For people."""
        where = f" in {self.offer.region}" if self.offer.region else ""
        return f"{'Spot' if self.spot else 'dedicated'} {self.offer.vm_size}{where}"

    @property
    def rate(self) -> float:
        """Images a second of one node."""
        return 1.0 / self.service.p50

    @property
    def cost_per_image(self) -> float:
        """Of a node that always works."""
        return self.price * self.service.p50 / SECONDS_PER_HOUR

    @property
    def boot_cost(self) -> float:
        """Of one node, before it does anything."""
        return self.price * self.boot.p50 / SECONDS_PER_HOUR

    def seconds_per_image(self, seconds: float) -> float:
        """That all but one in twenty nodes keep to within so long: the spread of a sum shrinks with its square root."""
        spread = max(0.0, self.service.p95 - self.service.p50)
        return self.service.p50 + spread / max(1.0, seconds / self.service.p50) ** 0.5 if seconds > 0 else math.inf

    def whole_images(self, seconds: float) -> int:
        """That one new node does in so long."""
        return int(seconds / self.seconds_per_image(seconds)) if seconds > 0 else 0

    def at_hand(self, seconds: float) -> float:
        """Images that the nodes there and coming do within so long."""
        if seconds <= 0 or not (self.ready or self.coming):
            return 0.0
        share = STORM_SHARE if self.storm else 1.0
        done = share * self.ready * seconds / self.service.p50
        if not self.coming:
            return done
        return done + share * self.coming * self.whole_images(seconds - self.coming_in)


def lines_of(kind: KindDemand, states: dict[str, PoolState], prices: Prices, limits: Limits, now: float) -> list[Line]:
    """Every line that does this kind, of pools that could be read; among equals the first offered comes first."""
    offers = [offer for offer in prices.offers if offer.kind == kind.kind and offer.pool in states]
    pauses, found = _pauses(kind, limits, now), list[Line]()
    for offer in offers:
        state = states[offer.pool]
        nearby = [states[other.pool] for other in offers if other.region == offer.region]
        for spot in (True, False):
            price = _price(offer, spot, prices, now)
            if price is not None or state.counts(spot).billed:
                without = _without_spot(nearby, limits, pauses, now) if spot else 0.0
                found.append(_line(offer, spot, price, state, kind, limits, now, pauses, without))
    return sorted(found, key=lambda line: line.cost_per_image)


def _without_spot(nearby: Sequence[PoolState], limits: Limits, pauses: Sequence[float], now: float) -> float:
    """Until when no Spot at all is asked for in a region, in seconds since 1970; 0: it may be.

    After the first refusal or storm another size is tried at once. After the second Spot is short there, whatever the
    size: one try, then a pause that doubles. Spot nodes with a machine show that there is some.
    """
    if any(state.spot.ready + state.spot.starting and not in_storm(state, limits, now) for state in nearby):
        return 0.0
    refused = [one for state in nearby for one in state.refusals if one.spot and now - one.at < FORGOTTEN]
    bad = sum(one.times for one in refused) + sum(in_storm(state, limits, now) for state in nearby)
    if bad < 2 or not refused:
        return 0.0
    return max(one.at for one in refused) + _pause(bad - 1, pauses)


def _pauses(kind: KindDemand, limits: Limits, now: float) -> list[float]:
    """Seconds without a try after the first refusal, the second in a row and so on."""
    first = min((due.deadline for due in kind.due), default=now - (kind.oldest_age or 0.0) + limits.deadline)
    longest = max(limits.retry_refused, SHARE_OF_TIME_LEFT * (first - now))
    return [min(limits.retry_refused * 2.0**times, longest) for times in range(MOST_DOUBLINGS + 1)]


def _pause(times: int, pauses: Sequence[float]) -> float:
    return pauses[min(times, len(pauses)) - 1]


def _price(offer: PoolOffer, spot: bool, prices: Prices, now: float) -> float | None:
    """With the changes that have come true."""
    price = offer.price(spot)
    for change in sorted(prices.changes, key=lambda change: change.at):
        if change.pool == offer.pool and change.at <= now:
            price = change.price(spot) or price
    return price


def _line(
    offer: PoolOffer,
    spot: bool,
    price: float | None,
    state: PoolState,
    kind: KindDemand,
    limits: Limits,
    now: float,
    pauses: Sequence[float],
    without: float,
) -> Line:
    counts, storm = state.counts(spot), spot and in_storm(state, limits, now)
    elapsed = 0.0 if state.ordered_at is None else now - state.ordered_at
    calm = 0.0 if state.evicted_at is None else now - state.evicted_at
    stranded = without_worker(state, spot)
    # What is far too late may never come.
    coming = state.coming(spot) if elapsed <= GIVEN_UP * state.boot.p95 + OVERDUE else 0
    coming += 0 if storm else counts.preempted
    coming = coming if not state.out_of_order else min(coming, max(0, _spare_workers(state, spot) - counts.idle))
    assumed = 1.0 / offer.images_per_second
    kept = counts.target if not state.steady else counts.present - counts.broken - stranded
    return Line(
        offer=offer,
        spot=spot,
        price=price or 0.0,
        service=kind.service.get(offer.pool) or Quantiles(assumed, assumed * P95_OVER_P50),
        boot=state.boot,
        ready=counts.ready - stranded,
        coming=coming,
        coming_in=max(state.boot.p95 - elapsed, min(SURELY_SOON, state.boot.p95 / 2)),
        allocated=counts.ready + counts.starting - stranded,
        kept=kept,
        lost=counts.preempted if storm and calm > limits.fallback else 0,
        steady=state.steady,
        storm=storm,
        doubt=spot
        and (storm or without > now or any(_recent(refusal, limits, pauses, now) for refusal in state.refusals)),
        why_not=_why_not(spot, price, state, limits, now, storm, pauses) or _short(without, offer, now),
    )


def without_worker(state: PoolState, spot: bool) -> int:
    """Idle nodes that no worker waits for in a pool that gets no new ones: they only cost."""
    return max(0, state.counts(spot).idle - _spare_workers(state, spot)) if state.out_of_order else 0


def _spare_workers(state: PoolState, spot: bool) -> int:
    """Workers that wait for a node of this price class; Spot is counted first."""
    return state.waiting if spot else max(0, state.waiting - state.spot.idle)


def _short(without: float, offer: PoolOffer, now: float) -> str:
    where = f" in {offer.region}" if offer.region else ""
    return f"Spot of several sizes is short{where}: no try for {without - now:.0f} s" if without > now else ""


def _recent(refusal: Refusal, limits: Limits, pauses: Sequence[float], now: float) -> bool:
    return refusal.spot and now - refusal.at < max(limits.storm_seconds, 2 * _pause(refusal.times, pauses))


def in_storm(state: PoolState, limits: Limits, now: float) -> bool:
    """Whether Spot is not to be had, or does not live long enough: Azure keeps what it took, or took most of all."""
    since, spot = math.inf if state.evicted_at is None else now - state.evicted_at, state.spot
    if spot.preempted and (since > limits.fallback or state.evicted >= limits.storm_evictions):
        return True
    many = max(limits.storm_evictions, spot.ready + spot.starting)
    return since < limits.storm_seconds and state.evicted >= many


def _why_not(
    spot: bool,
    price: float | None,
    state: PoolState,
    limits: Limits,
    now: float,
    storm: bool,
    pauses: Sequence[float],
) -> str:
    if price is None:
        return "not for sale"
    if state.out_of_order:
        return state.out_of_order
    if "*" in limits.paused or state.name in limits.paused:
        return "paused"
    if spot and not limits.spot:
        return "Spot is switched off"
    if storm:
        return f"{state.evicted} Spot nodes were lost within {limits.storm_seconds:.0f} s"
    for refusal in state.refusals:
        if refusal.spot == spot and now - refusal.at < _pause(refusal.times, pauses):
            return f"refused {now - refusal.at:.0f} s ago: {refusal.reason}"
    if not state.steady and state.ordered_at is not None and now - state.ordered_at > LONG_RESIZE:
        return f"resizing for {now - state.ordered_at:.0f} s"
    return ""
