"""Decides how many nodes and workers every pool should have, values in, values out."""

from __future__ import annotations

import msgspec

from fusebus.planning.buying import buy
from fusebus.planning.demand import Demand, KindDemand
from fusebus.planning.fleet import Fleet, PoolState
from fusebus.planning.insurance import given_up, insured
from fusebus.planning.lateness import late_of
from fusebus.planning.limits import Limits, Pin
from fusebus.planning.lines import Line, lines_of, without_worker
from fusebus.planning.plan import Late, Plan, PoolPlan
from fusebus.planning.prices import PoolOffer, Prices
from fusebus.planning.releasing import release, rest, warmed
from fusebus.planning.room import Room, applies, room_of
from fusebus.planning.view import Verdict, View, seconds
from fusebus.planning.work import reachable, work_of

FRUITLESS_SERVICES = 20.0  # service times without a result: then `Limits.stall` is not too hasty


def decide(fleet: Fleet, demand: Demand, limits: Limits, prices: Prices, now: float) -> Plan:
    """The plan of this moment, for every pool that could be read. `now`: seconds since 1970."""
    states = {state.name: state for state in fleet.pools}
    room = room_of(fleet.pools, prices, limits)
    plans: dict[str, PoolPlan] = {}
    late: list[Late] = []
    waits: list[float | None] = []
    owns = [_own(kind, states, prices) for kind in demand.kinds]
    views = [_view(kind, own, limits, prices, room, now) for kind, own in zip(demand.kinds, owns, strict=True)]
    if room.money is not None:
        room.money = max(0.0, room.money - sum(view.committed for view in views if view))
    verdicts = list[Verdict | None]()
    for view in views:
        verdict, alerts = _verdict(view) if view else (None, ())
        late += alerts
        verdicts.append(verdict)
    # Last, so that no kind insures itself with what another needs.
    both = zip(views, verdicts, strict=True)
    verdicts = [given_up(view, insured(view, found)) if view and found else found for view, found in both]
    for kind, own, verdict in zip(demand.kinds, owns, verdicts, strict=True):
        waits += [verdict.wait_until] if verdict else []
        plans |= {name: _pool_plan(state, kind, verdict) for name, state in own.items()}
    for state in fleet.pools:
        plan = plans.get(state.name) or _held(state, "its job kind is unknown here")
        plans[state.name] = _ordered(plan, state, limits, prices, now)
    return _plan(tuple(plans[state.name] for state in fleet.pools), late, waits)


def _plan(pools: tuple[PoolPlan, ...], late: list[Late], waits: list[float | None]) -> Plan:
    reasons: dict[str, list[str]] = {}
    for plan in pools:
        reasons.setdefault(plan.because, []).append(plan.pool)
    because = " | ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
    known = [wait for wait in waits if wait is not None]
    until = min(known) if known and len(known) == len(waits) else None
    return Plan(pools=pools, late=tuple(late), because=because, wait_until=until)


def _own(kind: KindDemand, states: dict[str, PoolState], prices: Prices) -> dict[str, PoolState]:
    """The pools of one kind that could be read."""
    offers = [offer for offer in prices.offers if offer.kind == kind.kind and offer.pool in states]
    return {offer.pool: states[offer.pool] for offer in offers}


def _view(
    kind: KindDemand, states: dict[str, PoolState], limits: Limits, prices: Prices, room: Room, now: float
) -> View | None:
    """What a decision for one kind sees; None: its depth is unknown, hold still."""
    if kind.depth is None:
        return None
    lines = lines_of(kind, states, prices, limits, now)
    since = [state.idle_since for state in states.values() if state.idle_since is not None]
    due = work_of(kind, limits, now) if kind.depth else []
    return View(
        kind=kind,
        lines=lines,
        due=due,
        work=reachable(due, lines, limits, now),
        idle_since=min(since, default=None),
        limits=limits,
        prices=prices,
        room=room,
        now=now,
    )


def _verdict(view: View) -> tuple[Verdict, tuple[Late, ...]]:
    """What is decided for one kind, and what will be late."""
    useless = _useless(view.kind, view.lines, view.limits)
    if useless:
        return Verdict(targets={line.key: 0 for line in view.lines}, because=useless), ()
    if not view.work:
        return warmed(view, rest(view)), ()
    verdict = buy(view) or warmed(view, release(view))
    return verdict, late_of(view, verdict)


def _useless(kind: KindDemand, lines: list[Line], limits: Limits) -> str:
    """Why nodes would do nothing for this queue; empty: they would."""
    if not kind.receiving:
        return f"the subscription of {kind.kind} is disabled: its {kind.depth} messages need 0 nodes"
    longest = max((line.service.p50 for line in lines), default=0.0)
    limit = max(limits.stall, FRUITLESS_SERVICES * longest)
    if kind.depth and kind.fruitless >= limit:
        return (
            f"{kind.depth} messages are left though workers tried for {seconds(kind.fruitless)} without finishing one "
            f"(limit {seconds(limit)}): poison or a broken worker, 0 nodes until something arrives"
        )
    return ""


def _pool_plan(state: PoolState, kind: KindDemand, verdict: Verdict | None) -> PoolPlan:
    if verdict is None:
        return _held(state, f"the depth of {kind.kind} is unknown: holding still")
    wanted = {spot: max(0, verdict.targets.get((state.name, spot), 0)) for spot in (False, True)}
    nodes = {spot: wanted[spot] if state.steady else state.counts(spot).target for spot in wanted}
    because = verdict.because
    if nodes != wanted:
        because += f"; {state.name} is resizing to {sum(nodes.values())}, {sum(wanted.values())} must wait"
    if stranded := sum(without_worker(state, spot) for spot in wanted):
        because += f"; {stranded} idle nodes of {state.name} get no worker and can go: {state.out_of_order}"
    # Workers leave by themselves when they find nothing; only where nodes go are they told to.
    useful = max(kind.depth, state.live) if kind.depth else 0
    workers = min(sum(nodes.values()), sum(wanted.values()), useful)
    ready = {spot: state.counts(spot).ready for spot in wanted}
    if any(ready[spot] > wanted[spot] for spot in wanted):
        # A worker that waits for a node to come would find one that is to go, and keep it.
        workers = min(workers, sum(min(ready[spot], wanted[spot]) for spot in wanted))
    return PoolPlan(pool=state.name, dedicated=nodes[False], spot=nodes[True], workers=workers, because=because)


def _held(state: PoolState, why: str) -> PoolPlan:
    """Everything as it is."""
    kept = {spot: state.counts(spot).target if not state.steady else _there(state, spot) for spot in (False, True)}
    because = f"{why}; keeps {sum(kept.values())} nodes and {state.live} workers"
    return PoolPlan(
        pool=state.name, dedicated=kept[False], spot=kept[True], workers=state.live, because=because, hold=True
    )


def _there(state: PoolState, spot: bool) -> int:
    counts = state.counts(spot)
    return counts.present - counts.broken


def _ordered(plan: PoolPlan, state: PoolState, limits: Limits, prices: Prices, now: float) -> PoolPlan:
    """What people ordered goes before what is computed: a pause before a pin, a pin before the rest."""
    if "*" in limits.paused or state.name in limits.paused:
        return _held(state, "paused by people")
    pins = [pin for pin in limits.pins if pin.pool == state.name and (pin.until is None or pin.until > now)]
    if not pins:
        return plan
    pin = pins[-1]
    offer = next((offer for offer in prices.offers if offer.pool == state.name), None)
    nodes, why = _allowed(pin, offer, limits)
    until = "until it is taken back" if pin.until is None else f"for {seconds(pin.until - now)}"
    because = f"pinned to {pin.nodes} nodes by people, {until}{why}"
    wanted = {pin.spot: nodes, not pin.spot: 0}
    if not state.steady:
        wanted = {spot: state.counts(spot).target for spot in wanted}
        because += f"; resizing to {sum(wanted.values())} first"
    workers = state.live if plan.hold else min(max(plan.workers, state.live), sum(wanted.values()))
    return PoolPlan(pool=plan.pool, dedicated=wanted[False], spot=wanted[True], workers=workers, because=because)


def _allowed(pin: Pin, offer: PoolOffer | None, limits: Limits) -> tuple[int, str]:
    """A pin within the ceilings and quotas."""
    caps = [(pin.nodes, ""), (limits.max_nodes, f"; at most {limits.max_nodes} nodes are allowed")]
    if offer is not None:
        caps.append((offer.max_nodes, f"; at most {offer.max_nodes} nodes are allowed in {offer.pool}"))
        for quota in limits.quotas:
            if applies(quota, offer, pin.spot):
                fits = quota.vcpus // offer.vcpus
                caps.append((fits, f"; the quota of {quota.vcpus} vCores is {fits} nodes"))
    nodes, why = min(caps, key=lambda cap: cap[0])
    return max(0, nodes), why


def same(before: Plan | None, after: Plan) -> bool:
    """Whether two plans ask for the same nodes and workers, whatever their reasons."""
    if before is None:
        return False
    bare = [tuple(msgspec.structs.replace(pool, because="") for pool in plan.pools) for plan in (before, after)]
    return bare[0] == bare[1]
