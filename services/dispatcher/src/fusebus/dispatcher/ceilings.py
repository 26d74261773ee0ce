"""How far a pin may reach: nodes over all pools, quotas, a spent budget. What is there may always stay. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fusebus.costs import Verdict, same_family
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.orders import Ceiling
from fusebus.dispatcher.settings import DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import Target


def ceilings(
    pool: PoolSettings, settings: DispatcherSettings, facts: Facts, wanted: Mapping[str, Target], budget: Verdict
) -> tuple[Ceiling, ...]:
    """For one pool; `wanted`: the targets of all, as far as they are decided."""
    seen = facts.pools[pool.name]
    others = [one for one in settings.all_pools if one.name != pool.name]
    there = {spot: len(seen.staying(not spot)) for spot in (True, False)}
    all_there = there[True] + there[False]
    elsewhere = sum(_taken(one.name, spot, facts, wanted) for one in others for spot in (True, False))
    words = f"at most {settings.max_nodes} nodes are allowed in all, {elsewhere} are other pools'"
    found = [Ceiling(nodes=max(all_there, settings.max_nodes - elsewhere), because=words)]
    if not budget.may_buy:
        found.append(Ceiling(nodes=all_there, because=f"nothing is bought: {budget.because}"))
    for spot in (True, False):
        for cores, family in _quotas(pool, facts, spot):
            sharing = [
                one
                for one in others
                if one.batch == pool.batch and (not family or same_family(one.quota_family, family))
            ]
            left = cores - sum(_taken(one.name, spot, facts, wanted) * one.cores for one in sharing)
            words = f"the quota of {cores} {'Spot' if spot else 'dedicated'} cores{' of ' + family if family else ''}"
            nodes = max(there[spot], left // pool.cores)
            found.append(Ceiling(nodes=nodes, spot=spot, because=f"{words} leaves {nodes} nodes"))
    return tuple(found)


def _taken(name: str, spot: bool, facts: Facts, wanted: Mapping[str, Target]) -> int:
    """Nodes that a pool has or is to have, whichever is more."""
    target, seen = wanted.get(name, Target()), facts.known.get(name)
    return max(target.spot if spot else target.dedicated, len(seen.staying(not spot)) if seen else 0)


def _quotas(pool: PoolSettings, facts: Facts, spot: bool) -> list[tuple[int, str]]:
    """Cores, and the family that they are for; empty: all. Unknown ones limit nothing."""
    quota = facts.quota_of(pool)
    found = [(quota.spot if spot else quota.dedicated, "")]
    if not spot and quota.per_family is not None:
        found.append((quota.cores(pool.quota_family, spot=False), pool.quota_family))
    return [(cores, family) for cores, family in found if cores is not None]
