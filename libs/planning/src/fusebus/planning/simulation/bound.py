"""A cost that no policy can undercut, even one that knows all arrivals, evictions and prices in advance.

The method. Cut any schedule at the moments without a billed node: into *periods*. As all images of a kind have the same
relative deadline, they can be exchanged so that each period does a contiguous run of arrivals (images i to j). A period
costs at least

- A: its work at the lowest price per image that is for sale in the images' time, plus one boot for each node that it
  needs: the densest stretch of its work (images of u to v have from the arrival of u to the deadline of v) fixes how
  many images a second must be done, and whole nodes are counted, in the mix of pools with the cheapest boots. Nobody
  orders before second 0, so nodes of the first period work only from the end of their boots on. Where Spot comes and
  goes, an image costs at least what it does on a dedicated node, or on Spot and its share of a boot, for no Spot node
  works longer than Spot lasts at a stretch. In gaps, when all that came is due and nothing new has come, one node idles
  (that is what makes it one period), or boots beyond those that are counted already;
- B: one node, at the lowest price, from its boot before the deadline of i to the arrival of j.

The greater of both is the period's cost; dynamic programming finds the cheapest partition into periods.

Boot n of a kind takes as long for the bound as for every policy, so K boots take P(K) seconds, the sum of the first K
drawn. With a price of b seconds on each boot instead, the dynamic program gives V(b), the least of all schedules. A
schedule with K boots then costs at least V(b) - K b + P(K), whatever b is; the bound is the least of this over all K,
for the best b of `BOOT_PRICES` (Lagrange). Left out, so that the bound may be lower than what is possible: quotas,
single evictions, that a node does one image after the other, looks, and that neighbours in a period share nodes
imperfectly. Not counted among the schedules are those that get rid of a long boot's number by having that boot broken
off (a storm, or the owner, ends it): knowing which boots are long, they could be a few percent below. Many arrivals
are put together (earliest arrival, latest deadline) so that at most `MOST_GROUPS` are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from fusebus.planning.prices import PoolOffer
from fusebus.planning.simulation.scenario import LEAST_BOOT, MOST_BOOT, Draws, Lump, Scenario

SECONDS_PER_HOUR = 3600.0
MOST_GROUPS = 1200
MOST_BOOTS = 400  # schedules with up to so many boots are told apart
BOOT_PRICES = (0.8, 1.0, 1.4)  # times the usual boot
LAST_EVICTION = 120.0  # seconds after the beginning of a storm until the last node is gone (`World`)
MOST_FIRST = 60  # boots of the first period that are looked at one by one
HOPELESS = 4.0  # boots: a period that idles longer than this and twice its work is never best


class Group(msgspec.Struct, frozen=True):
    """Arrivals that are taken together. `work`: average images; prices: the lowest in its time."""

    first: float
    last: float
    work: float
    per_image: float
    per_second: float
    """Of the cheapest node."""


def lower_bound(scenario: Scenario, draws: Draws) -> float:
    """Money, in the currency of the offers."""
    return sum(_of_kind(scenario, draws, kind) for kind in scenario.kinds)


def _of_kind(scenario: Scenario, draws: Draws, kind: str) -> float:
    groups = _groups(scenario, draws, kind)
    if not groups:
        return 0.0
    offers = [offer for offer in scenario.offers if offer.kind == kind]
    fewest = math.ceil(max(group.work for group in groups) / scenario.deadline / _fastest(offers, scenario) - 1e-9)
    drawn = [draws.boot(kind, number) for number in range(MOST_BOOTS)]
    usual, low = sum(drawn) / len(drawn), min(group.per_second for group in groups)
    prices = [scenario.boot.p50 * LEAST_BOOT, *(share * usual for share in BOOT_PRICES)]
    values = [(price, _cheapest_partition(groups, scenario, offers, price, drawn)) for price in prices]
    sums = list(accumulate(drawn, initial=0.0))
    high = max(group.per_second for group in groups)
    told_apart = [
        _with_boots(n, sums[n], values, low, high) for n in range(min(max(1, fewest), MOST_BOOTS), MOST_BOOTS + 1)
    ]
    # More boots than are told apart: at least this, as no boot is shorter than the shortest.
    return min(*told_apart, _with_boots(MOST_BOOTS, sums[-1], values[:1], low, high))


def _with_boots(count: int, lasted: float, values: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """The least cost of a schedule with so many boots that lasted so long together."""
    return max(value + (lasted - count * price) * (low if lasted >= count * price else high) for price, value in values)


def _fastest(offers: Sequence[PoolOffer], scenario: Scenario) -> float:
    return max(offer.images_per_second for offer in offers) / scenario.service.p50


def _groups(scenario: Scenario, draws: Draws, kind: str) -> list[Group]:
    """The kind's arrivals, in order, coarse enough to be quick."""
    numbered, first = list[tuple[Lump, float]](), 0
    for lump in scenario.lumps:
        if lump.kind == kind:
            numbered.append((lump, draws.hardness(first, lump.images)))
        first += lump.images
    numbered.sort(key=lambda pair: pair[0].at)
    size = _bucket([lump.at for lump, _ in numbered], scenario.deadline)
    found: list[list[tuple[Lump, float]]] = []
    for lump, work in numbered:
        if found and lump.at - found[-1][0][0].at < size:
            found[-1].append((lump, work))
        else:
            found.append([(lump, work)])
    offers = [offer for offer in scenario.offers if offer.kind == kind]
    return [_group(members, scenario, offers) for members in found]


def _bucket(times: Sequence[float], deadline: float) -> float:
    """Seconds that are put together, so that few enough groups are left; 0: none."""
    size = 0.0
    while len({int(at // size) if size else at for at in times}) > MOST_GROUPS:
        size = size * 1.5 if size else deadline / 200
    return size


def _group(members: Sequence[tuple[Lump, float]], scenario: Scenario, offers: Sequence[PoolOffer]) -> Group:
    first, last = members[0][0].at, members[-1][0].at
    begin, end = first - scenario.boot.p95 * 1.5, last + scenario.deadline
    best = [(offer, _lowest(scenario, offer, begin, end)) for offer in offers]
    return Group(
        first,
        last,
        sum(work for _, work in members),
        min(price * scenario.service.p50 / offer.images_per_second for offer, price in best) / SECONDS_PER_HOUR,
        min(price for _, price in best) / SECONDS_PER_HOUR,
    )


def _lowest(
    scenario: Scenario, offer: PoolOffer, begin: float, end: float, classes: Sequence[bool] = (True, False)
) -> float:
    """Price per hour at the best moment between two: at the beginning, after a change or after a storm."""
    moments = [begin, *(change.at for change in scenario.changes), *(until for _, until in scenario.storms)]
    prices = [
        scenario.price(offer, spot, at)
        for at in moments
        if begin <= at < end
        for spot in classes
        if not spot or scenario.has_spot(at, offer.region)
    ]
    return min((price for price in prices if price is not None), default=math.inf)


def _share(scenario: Scenario, offer: PoolOffer, offers: Sequence[PoolOffer]) -> float:
    """Its price by that of the cheapest node, at the moment when this is lowest."""
    edges = [0.0, *(change.at for change in scenario.changes), *(edge for storm in scenario.storms for edge in storm)]
    prices = [[_lowest(scenario, one, at, at + 1e-3) for one in (offer, *offers)] for at in edges]
    return min(own / min(others) for own, *others in prices)


def _cheapest_partition(
    groups: list[Group], scenario: Scenario, offers: Sequence[PoolOffer], boot: float, drawn: Sequence[float]
) -> float:
    """Backwards: best[i] is the least cost of groups i and later."""
    count = len(groups)
    best, densest = [0.0] * (count + 1), [0.0] * count
    boots = _BootCosts(scenario, offers, boot, drawn)
    spells = _Spells(scenario, offers, boot) if scenario.storms else None
    for i in range(count - 1, -1, -1):
        best[i] = _from(i, groups, scenario, best, densest, boots, spells)
    return best[0]


def _from(
    i: int,
    groups: list[Group],
    scenario: Scenario,
    best: list[float],
    densest: list[float],
    boots: _BootCosts,
    spells: _Spells | None,
) -> float:
    """The cheapest first period that begins with group i."""
    # The innermost loop of a month: comparisons instead of min and max.
    deadline, start = scenario.deadline, groups[i]
    work = money = gaps = 0.0
    lowest = least = math.inf
    until = start.last + deadline
    for j in range(i, len(groups)):
        group = groups[j]
        if group.first > until:
            gaps += group.first - until
        until = group.last + deadline
        work += group.work
        money += group.work * group.per_image
        if group.per_second < lowest:
            lowest = group.per_second
        dense = work / (group.last + deadline - start.first)
        if dense > densest[j]:
            densest[j] = dense
        nodes = boots.cost(densest[j])
        if not i:
            nodes = max(nodes, boots.cost_of_first(work, group.last + deadline))
        busy = money + lowest * (nodes * boots.boot + (boots.idle(gaps, nodes) if gaps else 0.0))
        if spells:
            stormy = work * spells.per_image(start.first, group.last + deadline)
            if stormy > busy:
                busy = stormy
        waits = group.first - start.last - deadline
        idle = lowest * ((waits if waits > 0 else 0.0) + boots.boot)
        cost = (busy if busy > idle else idle) + best[j + 1]
        if cost < least:
            least = cost
        if waits > 0 and lowest * waits > 2 * busy + HOPELESS * lowest * boots.boot:
            break
    return least


class _Spells:
    """What an image costs at least where Spot comes and goes: a dedicated node's price, or Spot's and its share of a
    boot, for a Spot node works at most as long as Spot is there at a stretch, its boot taken off."""

    def __init__(self, scenario: Scenario, offers: Sequence[PoolOffer], boot: float) -> None:
        self._scenario, self._offers, self._boot = scenario, offers, boot
        self._least_boot = scenario.boot.p50 * LEAST_BOOT

    def per_image(self, begin: float, end: float) -> float:
        """Money, of the work of one period; images arrive from `begin` on and are due by `end`."""
        found = math.inf
        for offer in self._offers:
            longest = max((self._useful(spell, begin, end) for spell in self._spells(offer.region)), default=0.0)
            seconds = self._scenario.service.p50 / offer.images_per_second
            dedicated = _lowest(self._scenario, offer, begin, end, (False,))
            spot = _lowest(self._scenario, offer, begin - self._scenario.boot.p95 * 1.5, end, (True,))
            share = 1.0 + self._boot / longest if longest > 0 else math.inf
            found = min(found, seconds * dedicated, seconds * spot * share if spot < math.inf else math.inf)
        return found / SECONDS_PER_HOUR

    def _spells(self, region: str) -> list[tuple[float, float]]:
        """From when to when a Spot node may live there."""
        storms = sorted(self._scenario.storms_in(region))
        begins = [0.0, *(end for _, end in storms)]
        ends = [*(begin + LAST_EVICTION for begin, _ in storms), math.inf]
        return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]

    def _useful(self, spell: tuple[float, float], begin: float, end: float) -> float:
        """Seconds that one node can work in one spell of Spot."""
        since, until = spell[0], min(spell[1], end)
        return min(until - max(since, begin), until - since - self._least_boot)


class _BootCosts:
    """The cheapest boots of whole nodes that together do so many images a second."""

    def __init__(self, scenario: Scenario, offers: Sequence[PoolOffer], boot: float, drawn: Sequence[float]) -> None:
        self.boot = boot
        self._shortest = list(accumulate(drawn[:MOST_FIRST], min))
        self._longest = scenario.boot.p95 * MOST_BOOT
        speeds = [(_share(scenario, offer, offers), offer.images_per_second) for offer in offers]
        self._kinds = [(share, rate / scenario.service.p50) for share, rate in sorted(speeds)]
        self._slow = self._kinds[0][1]
        self._known = {1: 1.0}

    def cost(self, rate: float) -> float:
        """In boots of the cheapest node."""
        least = math.ceil(rate / self._slow - 1e-9) or 1
        if least not in self._known:
            self._known[least] = self._nodes((least - 1 + 1e-6) * self._slow)
        return self._known[least]

    def cost_of_first(self, work: float, until: float) -> float:
        """Of the first period, in boots of the cheapest node: its boots are the first ones drawn, none of them begins
        before second 0, and so N nodes work from the end of the shortest of the first N on."""
        found = math.inf
        for count, shortest in enumerate(self._shortest, 1):
            if count >= found:
                return found
            if until > shortest:
                found = min(found, self._with(count, work / (until - shortest)))
        return min(found, MOST_FIRST)

    def _with(self, count: int, rate: float) -> float:
        """The cheapest boots of exactly so many nodes that do so many images a second together."""
        share, cheap = self._kinds[0]
        found = count * share if count * cheap >= rate - 1e-9 else math.inf
        for share, fast in self._kinds[1:]:
            others = max(0, math.ceil((rate - count * cheap) / (fast - cheap) - 1e-9)) if fast > cheap else count + 1
            if others <= count:
                found = min(found, others * share + count - others)
        return found

    def idle(self, gaps: float, nodes: float) -> float:
        """Seconds of nodes that have nothing to do in a period's gaps, or of more boots that fill these.

        The first boot is in no gap; others, as many as are counted already, may fill one, no boot longer than it can
        be. Where a boot costs less than its length, gaps are filled with boots.
        """
        left = gaps - (nodes - 1.0) * self._longest
        return max(0.0, left) * min(1.0, self.boot / self._longest)

    def _nodes(self, rate: float) -> float:
        """In cheapest nodes: of those, or one kind of the others for a part of the rate."""
        cheap = self._kinds[0][1]
        found = float(max(1, math.ceil(rate / cheap - 1e-9)))
        for share, fast in self._kinds[1:]:
            for others in range(1, math.ceil(rate / fast) + 1):
                rest = max(0.0, rate - others * fast)
                found = min(found, others * share + math.ceil(rest / cheap - 1e-9))
        return found
