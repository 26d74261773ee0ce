"""The mix that is bought, against the best of all that may be bought."""

import itertools
import random

from fusebus.planning import Due, KindDemand, Limits, PoolState, Prices, Quota
from fusebus.planning.lines import lines_of
from fusebus.planning.mixes import Wish, _cost, _lacking, choose
from fusebus.planning.room import room_of
from fusebus.planning.simulation.scenarios import GPUS
from fusebus.planning.work import reachable, work_of

NOW = 1_000_000.0
STATES = {offer.pool: PoolState(name=offer.pool) for offer in GPUS}
PRICES = Prices(offers=GPUS)


def best_of_all(lines, wish, room):
    """The rank of the best mix: every number of nodes of every line."""
    most = [room.copy().take(line, 1000, 0.0) for line in lines]
    ranks = []
    for counts in itertools.product(*(range(cap + 1) for cap in most)):
        left, adds = room.copy(), [(line, n) for line, n in zip(lines, counts, strict=True) if n]
        if adds and all(left.take(line, n, 0.0) == n for line, n in adds):
            short = [max(0, round(_lacking(adds, [], wish, more))) for more in (1.0, wish.limits.headroom)]
            ranks.append((*short, _cost(adds, [], wish)))
    return min(ranks)


def test_no_other_mix_is_in_time_where_ours_is_not_and_none_is_much_cheaper():
    """Three sizes, Spot and dedicated, quotas and a ceiling that leave the cheapest size too few nodes."""
    dice, ratios = random.Random(7), []
    for _ in range(60):
        images, due = int(10 ** dice.uniform(2, 4.3)), dice.choice([20, 30, 60, 120]) * 60.0
        limits = Limits(
            max_nodes=6,
            quotas=(
                Quota(vcpus=dice.choice([8, 24, 48, 96]), spot=True),
                *(Quota(vcpus=dice.choice([0, 4, 24, 40]), family=offer.family) for offer in GPUS),
            ),
        )
        kind = KindDemand(kind="detect", depth=images, due=(Due(images=images, deadline=NOW + due),))
        lines = lines_of(kind, STATES, PRICES, limits, NOW)
        work = reachable(work_of(kind, limits, NOW), lines, limits, NOW)
        wish, room = Wish(work=work, limits=limits, start=NOW, now=NOW), room_of(STATES.values(), PRICES, limits)
        ours, best = choose(lines, wish, room), best_of_all(lines, wish, room)
        assert (round(ours.lacking), round(ours.short)) <= (best[0] + 1, best[1] + 1)
        if (round(ours.lacking), round(ours.short)) == best[:2]:
            ratios.append(ours.cost / best[2])
    assert max(ratios) < 1.2
    assert sum(ratios) / len(ratios) < 1.01
