"""How many nodes may still be bought: ceilings, quotas in vCores, the budget."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from fusebus.planning.fleet import PoolState
from fusebus.planning.limits import Limits, Quota
from fusebus.planning.lines import SECONDS_PER_HOUR, Line
from fusebus.planning.prices import PoolOffer, Prices


class Room(msgspec.Struct):
    """What is left; it shrinks as nodes are taken."""

    nodes: int
    quotas: list[tuple[Quota, int]]
    """With the vCores left of each."""
    pools: dict[str, int]
    money: float | None
    said: list[str] = []

    def copy(self) -> Room:
        """To try a purchase with."""
        return Room(self.nodes, list(self.quotas), dict(self.pools), self.money, [])

    def take(self, line: Line, wanted: int, seconds: float) -> int:
        """As many of `wanted` nodes as may be had, each to be used for so long after its boot; `said` tells why not
        more."""
        caps = [(wanted, ""), (0 if line.why_not else wanted, f"{line.name}: {line.why_not}")]
        caps += [(self.nodes, f"at most {self.nodes} more nodes in all")]
        left = self.pools.get(line.offer.pool, 0)
        caps += [(left, f"at most {left} more nodes in {line.offer.pool}")]
        for quota, vcpus in self.quotas:
            if applies(quota, line.offer, line.spot):
                of = quota.family if quota.family and not quota.spot else "Spot" if quota.spot else "all families"
                where = f" in {quota.region}" if quota.region else ""
                words = f"the quota of {of}{where} is {quota.vcpus} vCores, {vcpus} left"
                caps.append((vcpus // line.offer.vcpus, words))
        each = line.price * (line.boot.p50 + seconds) / SECONDS_PER_HOUR
        if self.money is not None and each > 0:
            caps.append(
                (math.floor(self.money / each), f"the budget has {self.money:.2f} left, a node needs {each:.2f}")
            )
        taken, why = min(caps, key=lambda cap: cap[0])
        taken = max(0, taken)
        if taken < wanted and why:
            self.said.append(why)
        self._deduct(line, taken, each)
        return taken

    def _deduct(self, line: Line, nodes: int, each: float) -> None:
        self.nodes -= nodes
        self.pools[line.offer.pool] = self.pools.get(line.offer.pool, 0) - nodes
        cores = nodes * line.offer.vcpus
        self.quotas = [(q, left - cores if applies(q, line.offer, line.spot) else left) for q, left in self.quotas]
        if self.money is not None:
            self.money -= nodes * each


def applies(quota: Quota, offer: PoolOffer, spot: bool) -> bool:
    """Whether nodes of this offer count against the quota."""
    return quota.spot == spot and quota.region == offer.region and quota.family in ("", offer.family)


def room_of(states: Iterable[PoolState], prices: Prices, limits: Limits) -> Room:
    """What is left beside all that is there or was asked for."""
    offers = {offer.pool: offer for offer in prices.offers}
    used = {(state.name, spot): _used(state, spot) for state in states for spot in (True, False)}
    quotas = []
    for quota in limits.quotas:
        of = [(name, n) for (name, spot), n in used.items() if name in offers and applies(quota, offers[name], spot)]
        quotas.append((quota, quota.vcpus - sum(n * offers[name].vcpus for name, n in of)))
    pools = {
        name: offer.max_nodes - used.get((name, True), 0) - used.get((name, False), 0) for name, offer in offers.items()
    }
    money = None if limits.budget_left is None else max(0.0, limits.budget_left)
    return Room(limits.max_nodes - sum(used.values()), quotas, pools, money)


def _used(state: PoolState, spot: bool) -> int:
    counts = state.counts(spot)
    # A target that a failed resize left behind is not room that is used.
    there = counts.present - counts.broken + counts.leaving
    return there if state.steady else max(counts.target, there)
