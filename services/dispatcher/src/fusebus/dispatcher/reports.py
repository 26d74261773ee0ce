"""Turns a look into what people read: a decision with the numbers behind it, and a pool's status. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fusebus.costs import Rates, Verdict
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import PoolSettings
from fusebus.dispatcher.steps import Target
from fusebus.ledger import Decision, PoolStatus


def decision_on(
    pool: PoolSettings,
    target: Target,
    seen: PoolSeen,
    facts: Facts,
    memory: Memory,
    *,
    mode: str,
    rates: Rates,
    budget: Verdict,
) -> Decision:
    """What was decided, why, and everything it rests on."""
    return Decision(
        pool=pool.name,
        decided_at=facts.now,
        nodes=target.nodes,
        dedicated=target.dedicated,
        workers=target.workers,
        because=target.because,
        mode=mode,
        late=bool(target.late),
        facts={
            name: value
            for name, value in {**_facts(pool, seen, facts, memory), **_money(pool, rates, budget)}.items()
            if value is not None
        },
    )


def status_of(
    pool: PoolSettings,
    seen: PoolSeen,
    target: Target,
    facts: Facts,
    memory: Memory,
    *,
    mode: str,
    leader: str,
    term: int,
    problem: str,
    pools: Mapping[str, PoolSettings],
) -> PoolStatus:
    """The pool at this look."""
    used: dict[tuple[str, bool], int] = {}
    alike = {name: found for name, found in facts.known.items() if pools[name].batch == pool.batch}
    for name, found in alike.items():
        for node in found.nodes:
            key = (pools[name].quota_family, not node.dedicated)
            used[key] = used.get(key, 0) + pools[name].cores
    return PoolStatus(
        pool=pool.name,
        looked_at=facts.now,
        job_kind=pool.job_kind.value,
        vm_size=pool.vm_size,
        region=facts.place_of(pool),
        mode=mode,
        leader=leader,
        term=term,
        nodes=seen.by_state(),
        dedicated=len(seen.staying(True)),
        spot=len(seen.staying(False)),
        wanted_dedicated=target.dedicated,
        wanted_spot=target.spot,
        wanted_workers=target.workers,
        running=seen.running,
        waiting=len(seen.waiting),
        depth=facts.depths.get(pool.job_kind),
        max_nodes=pool.max_nodes,
        steady=seen.steady,
        because=target.because,
        problem=problem or seen.shortfall,
        breaker=memory.breaker_words(pool.name, facts.now),
        quota=facts.quota_of(pool).lines([pool], used, facts.place_of(pool)),
    )


def _facts(
    pool: PoolSettings, seen: PoolSeen, facts: Facts, memory: Memory
) -> dict[str, str | int | float | bool | None]:
    found = memory.pools[pool.name]
    rate, quota = found.rate, facts.quota_of(pool)
    runs = facts.runs_of(pool.job_kind)
    oldest = min((run.oldest_at for run in runs), default=None)
    ahead = [window for window in facts.windows or () if window.opens_at > facts.now]
    soon = [window for window in ahead if window.job_kind == pool.job_kind.value]
    return {
        "job_kind": pool.job_kind.value,
        "depth": facts.depths.get(pool.job_kind),
        "seconds_per_image": round(rate.seconds_per_image, 3),
        "measured": rate.measured,
        "boot_seconds": round(found.boot.p50, 1),
        "boot_measured": found.boot.measured,
        "busy": seen.busy,
        "idle": len(seen.idle),
        "coming": seen.coming,
        "broken": len(seen.broken) or None,
        "running": seen.running,
        "waiting": len(seen.waiting),
        "max_nodes": pool.max_nodes,
        "quota_cores_spot": quota.cores(pool.quota_family, spot=True) if pool.may_spot else None,
        "quota_cores_dedicated": quota.cores(pool.quota_family, spot=False) if pool.may_dedicated else None,
        "oldest_seconds": None if oldest is None else round((facts.now - oldest).total_seconds()),
        "open_runs": None if facts.open_runs is None else len({run.run_id for run in runs}),
        "next_window_seconds": round((soon[0].opens_at - facts.now).total_seconds()) if soon else None,
        "next_window_images": soon[0].images if soon else None,
        "shortfall": seen.shortfall or None,
        "breaker": memory.breaker_words(pool.name, facts.now) or None,
    }


def _money(pool: PoolSettings, rates: Rates, budget: Verdict) -> dict[str, str | int | float | bool | None]:
    return {
        "price_spot": rates.spot if pool.may_spot else None,
        "price_dedicated": rates.dedicated if pool.may_dedicated else None,
        "currency": rates.currency,
        "budget": budget.because,
    }
