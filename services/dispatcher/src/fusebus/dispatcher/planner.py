"""Shows the policy what was seen, in its own words, and returns a target for every pool. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from fusebus.contracts.messages import JobKind
from fusebus.costs import Rates, Verdict, same_family
from fusebus.dispatcher.breaker import Breaker
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.quota import Quota as QuotaRead
from fusebus.dispatcher.seen import BROKEN, IDLE, LEAVING, RUNNING, STARTING, WITHOUT_MACHINE, PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import Target
from fusebus.planning import (
    Demand,
    Due,
    Fleet,
    KindDemand,
    Late,
    Limits,
    NodeCounts,
    Plan,
    PoolOffer,
    PoolPlan,
    PoolState,
    PriceChange,
    Prices,
    Quota,
    Window,
    decide,
)

Coming = Mapping[str, Sequence[tuple[datetime, Rates]]]
"""By pool: from when on which rates hold."""
NO_CHANGES: Coming = {}
WAITED_FOR_SECONDS = 60.0  # for a pool that can't be read


def plan(
    settings: DispatcherSettings,
    facts: Facts,
    memory: Memory,
    rates: Mapping[str, Rates],
    budget: Verdict,
    coming: Coming = NO_CHANGES,
) -> Plan:
    """The policy's plan for every pool that could be read; `rates` by pool, `coming`: those known to follow."""
    found = decide(
        Fleet(tuple(_state(seen, facts, memory) for seen in facts.known.values())),
        Demand(tuple(_demand(settings, kind, facts, memory) for kind in memory.kinds)),
        _limits(settings, facts, budget),
        _prices(settings, facts, rates, coming),
        facts.now.timestamp(),
    )
    kinds = {late.kind: JobKind(late.kind) for late in found.late}
    late = tuple(one for one in found.late if not _held_in_time(kinds[one.kind], settings, facts, memory))
    return msgspec.structs.replace(found, late=late)


def targets(settings: DispatcherSettings, plan: Plan) -> dict[str, Target]:
    """By pool, with what will be late of its job kind in the reason."""
    kinds = {pool.name: pool.job_kind.value for pool in settings.all_pools}
    return {
        found.pool: _target(found, [late for late in plan.late if late.kind == kinds[found.pool]])
        for found in plan.pools
    }


def _target(found: PoolPlan, late: list[Late]) -> Target:
    words = "" if found.hold else "; ".join(one.because for one in late)
    return Target(
        dedicated=found.dedicated,
        spot=found.spot,
        workers=found.workers,
        hold=found.hold,
        because=f"{found.because}; LATE: {words}" if words else found.because,
        late=words,
    )


def _state(seen: PoolSeen, facts: Facts, memory: Memory) -> PoolState:
    pool = memory.pools[seen.name]
    idle = [node.since.timestamp() for node in seen.nodes if node.state == IDLE and node.since is not None]
    return PoolState(
        name=seen.name,
        steady=seen.steady and seen.name in facts.pools,
        dedicated=_counts(seen, dedicated=True),
        spot=_counts(seen, dedicated=False),
        running=seen.running,
        waiting=len(seen.waiting),
        boot=pool.boot,
        ordered_at=seen.resized_at.timestamp() if seen.coming and seen.resized_at else None,
        idle_since=min(idle, default=None),
        refusals=tuple(pool.refusals.values()),
        evicted=len(pool.evictions.times),
        evicted_at=pool.evictions.times[-1].timestamp() if pool.evictions.times else None,
        out_of_order=_out_of_order(pool.breaker, facts) or _emptied(seen.name, facts) or _unread(seen, facts),
    )


def _unread(seen: PoolSeen, facts: Facts) -> str:
    """A pool that has just not been read is waited for, as one that resizes; only then is more bought elsewhere."""
    seconds = facts.unread_seconds.get(seen.name, 0.0)
    return f"it can't be read for {seconds:.0f} s" if seconds > WAITED_FOR_SECONDS else ""


def _out_of_order(breaker: Breaker, facts: Facts) -> str:
    """Only while it is open: half-open, one node is to be tried."""
    return breaker.words(facts.now) if breaker.open_until is not None and facts.now < breaker.open_until else ""


def _emptied(name: str, facts: Facts) -> str:
    """A pool that people empty: its work is other pools'."""
    pause = facts.controls.pause_of(name) if facts.controls else None
    return f"it is emptied by {pause.set_by}" if pause is not None and pause.to_zero else ""


def _paused(settings: DispatcherSettings, facts: Facts) -> tuple[str, ...]:
    """Pools that are to be left as they are: what they can't do is bought in others."""
    if facts.controls is None:
        return ()
    pauses = {pool.name: facts.controls.pause_of(pool.name) for pool in settings.all_pools}
    return tuple(name for name, pause in pauses.items() if pause is not None and not pause.to_zero)


def _most_nodes(pool: PoolSettings, facts: Facts) -> int:
    """No more are bought than a pin leaves there: the rest of the work is other pools'."""
    pin = facts.controls.pins.get(pool.name) if facts.controls else None
    return pool.max_nodes if pin is None else min(pool.max_nodes, pin.nodes)


def _held_in_time(kind: JobKind, settings: DispatcherSettings, facts: Facts, memory: Memory) -> bool:
    """Whether people hold this work back, but end that early enough for it: then it is not late yet."""
    pools = [pool for pool in settings.all_pools if pool.job_kind is kind]
    ends = [end for pool in pools for end in _ends(pool, facts)]
    if not ends or None in ends:
        return False
    last = max(end for end in ends if end is not None)
    boot = max(memory.pools[pool.name].boot.p95 for pool in pools)
    age = memory.kinds[kind].ages.oldest(facts.depths.get(kind) or 0) or 0.0
    unknown = facts.now + timedelta(seconds=settings.deadline_seconds - age)
    first = min((run.deadline for run in facts.runs_of(kind)), default=unknown)
    # A boot, and one more in place of Spot that does not come.
    return last + timedelta(seconds=2 * boot + settings.fallback_seconds + settings.margin_seconds) <= first


def _ends(pool: PoolSettings, facts: Facts) -> list[datetime | None]:
    """When each order ends that keeps nodes from a pool; None: not by itself."""
    if facts.controls is None:
        return []
    pause, pin = facts.controls.pause_of(pool.name), facts.controls.pins.get(pool.name)
    pinned = [pin.until] if pin is not None and pin.nodes < pool.max_nodes else []
    return pinned + ([pause.until] if pause is not None else [])


def _counts(seen: PoolSeen, dedicated: bool) -> NodeCounts:
    states = [node.state for node in seen.nodes if node.dedicated is dedicated]
    known = STARTING | BROKEN | WITHOUT_MACHINE | {IDLE, RUNNING, LEAVING}
    return NodeCounts(
        target=seen.target_dedicated if dedicated else seen.target_spot,
        starting=sum(state in STARTING for state in states),
        idle=states.count(IDLE),
        busy=states.count(RUNNING),
        broken=sum(state in BROKEN for state in states),
        other=sum(state not in known for state in states),
        leaving=states.count(LEAVING),
        preempted=sum(state in WITHOUT_MACHINE for state in states),
    )


def _demand(settings: DispatcherSettings, kind: JobKind, facts: Facts, memory: Memory) -> KindDemand:
    now, found = facts.now.timestamp(), memory.kinds[kind]
    pools = [pool.name for pool in settings.all_pools if pool.job_kind is kind]
    service = {name: memory.pools[name].service for name in pools}
    quiet, depth = found.arrivals.quiet(now), facts.depths.get(kind)
    due = _due(kind, facts) if depth else ()
    # What the ledger does not know (or could not be asked for) came last: its age is that of the newest in the queue.
    unknown = (depth or 0) - sum(one.images for one in due)
    return KindDemand(
        kind=kind.value,
        depth=depth,
        due=due,
        windows=tuple(
            Window(opens_at=window.opens_at.timestamp(), images=window.images, deadline=window.deadline.timestamp())
            for window in facts.windows or ()
            if window.job_kind == kind.value and window.images  # none: its runs were cancelled, or went before
        ),
        oldest_age=found.ages.oldest(unknown) if unknown > 0 else None,
        in_flight=sum(facts.known[name].running for name in pools if name in facts.known),
        service={name: known for name, known in service.items() if known is not None},
        arrivals_per_second=found.arrivals.per_second(now),
        gap=found.arrivals.gap(now),
        quiet=quiet,
        delivery_age=found.arrivals.delivery_age(now),
        fruitless=found.progress.fruitless,
        receiving=kind not in facts.disabled,
    )


def _due(kind: JobKind, facts: Facts) -> tuple[Due, ...]:
    """One deadline for each delivery that is not over, and each of its terms: that of its oldest image."""
    return tuple(
        Due(
            images=run.images,
            deadline=run.deadline.timestamp(),
            since=run.oldest_at.timestamp(),
            total=run.total,
        )
        for run in facts.runs_of(kind)
    )


def _limits(settings: DispatcherSettings, facts: Facts, budget: Verdict) -> Limits:
    left = 0.0 if budget.left is None else budget.left
    return Limits(
        max_nodes=settings.max_nodes,
        quotas=_quotas(settings, facts),
        budget_left=None if math.isinf(left) else left,
        paused=_paused(settings, facts),
        deadline=settings.deadline_seconds,
        margin=settings.margin_seconds,
        least_use=settings.least_use_seconds,
        settle=settings.settle_seconds,
        fallback=settings.fallback_seconds,
        storm_seconds=settings.storm_seconds,
        storm_evictions=settings.storm_evictions,
        storms_per_hour=settings.storms_per_hour,
        most_premium=settings.most_premium,
        retry_refused=settings.retry_resize_seconds,
        stall=settings.stall_seconds,
    )


def _quotas(settings: DispatcherSettings, facts: Facts) -> tuple[Quota, ...]:
    """What could be read: each account's total of each price class, and the families' own."""
    found = list[Quota]()
    places = {pool.batch: facts.place_of(pool) for pool in settings.all_pools}
    for account, region in sorted(places.items()):
        quota = facts.quotas.get(account, QuotaRead())
        for spot, cores in ((True, quota.spot), (False, quota.dedicated)):
            if cores is not None:
                found.append(Quota(vcpus=cores, region=region, spot=spot))
        families = {pool.quota_family for pool in settings.all_pools if pool.batch == account}
        for family in sorted(families if quota.per_family is not None else ()):
            known = [cores for name, cores in (quota.per_family or {}).items() if same_family(name, family)]
            found.append(Quota(vcpus=known[0] if known else 0, family=family, region=region))
    return tuple(found)


def _prices(settings: DispatcherSettings, facts: Facts, rates: Mapping[str, Rates], coming: Coming) -> Prices:
    offers = [
        PoolOffer(
            pool=pool.name,
            kind=pool.job_kind.value,
            vm_size=pool.vm_size,
            family=pool.quota_family,
            vcpus=pool.cores,
            images_per_second=1.0 / pool.seconds_per_image,
            dedicated_per_hour=rates[pool.name].dedicated if pool.may_dedicated else None,
            spot_per_hour=rates[pool.name].spot if pool.may_spot else None,
            region=facts.place_of(pool),
            max_nodes=_most_nodes(pool, facts),
        )
        for pool in settings.all_pools
    ]
    currencies = {rate.currency for rate in rates.values()}
    changes = tuple(
        PriceChange(
            pool=pool.name,
            at=at.timestamp(),
            dedicated_per_hour=then.dedicated if pool.may_dedicated else None,
            spot_per_hour=then.spot if pool.may_spot else None,
        )
        for pool in settings.all_pools
        for at, then in coming.get(pool.name, ())
    )
    return Prices(offers=tuple(offers), changes=changes, currency=min(currencies, default=""))
