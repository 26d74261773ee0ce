"""What the dispatcher tells OpenTelemetry: pools, work and money as the last look saw them, and how looks went.

While another dispatcher leads, or after looks that saw nothing, there is no value: unknown is not zero.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from fusebus.costs import Budget, MonthSoFar
from fusebus.dispatcher.accounts import Accounts
from fusebus.dispatcher.facts import Facts
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.steps import Target

LOOK_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
POOL, STATE, KIND, PRICE = "fusebus.pool.name", "fusebus.state", "fusebus.job.kind", "fusebus.price.class"

Found = dict[str, list[Observation]]

_meter = metrics.get_meter("fusebus.dispatcher")
_looks = _meter.create_histogram(
    "fusebus.dispatcher.look.duration",
    unit="s",
    description="What one look took, with what was done after it.",
    explicit_bucket_boundaries_advisory=LOOK_SECONDS,
)
GAUGES = {
    "fusebus.dispatcher.leading": ("{flag}", "1 where this dispatcher leads."),
    "fusebus.pool.nodes": ("{node}", "Nodes by state and price class."),
    "fusebus.pool.wanted.nodes": ("{node}", "Nodes that there should be, by price class."),
    "fusebus.pool.workers": ("{worker}", "Worker tasks that run, or wait for a node."),
    "fusebus.pool.wanted.workers": ("{worker}", "Worker tasks that there should be."),
    "fusebus.pool.readable": ("{flag}", "1 where Batch answered for the pool, 0 where it did not."),
    "fusebus.pool.refused": ("{flag}", "1 where the last resize got fewer nodes than were asked for."),
    "fusebus.pool.breaker.open": ("{flag}", "1 where nothing is bought because nodes or workers failed."),
    "fusebus.pool.late": ("{flag}", "1 where work of the pool will not be done in time."),
    "fusebus.pool.boot.duration": ("s", "Median time from asking for a node until it works."),
    "fusebus.pool.image.duration": ("s", "Time of one image on one node, as counted on."),
    "fusebus.work.waiting": ("{image}", "Images that wait or are worked on."),
    "fusebus.work.oldest.age": ("s", "Age of the oldest image without a final."),
    "fusebus.cost.spent": ("{currency}", "Metered cost of this month so far."),
    "fusebus.cost.forecast": ("{currency}", "What this month will have cost at its end."),
    "fusebus.cost.budget": ("{currency}", "What this month may cost."),
    "fusebus.cost.rate": ("{currency}/h", "What all nodes cost an hour now."),
}


class Gauges:
    """Holds the last look's values for whoever collects them, for `fresh_seconds` at the most."""

    def __init__(self, fresh_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh_seconds, self._clock = fresh_seconds, clock
        self._found: Found = {}
        self._at = clock()
        for name, (unit, description) in GAUGES.items():
            _meter.create_observable_gauge(name, [self._read(name)], unit=unit, description=description)

    def show(self, facts: Facts, targets: Mapping[str, Target], memory: Memory, accounts: Accounts) -> None:
        """The values of one look."""
        found: Found = {"fusebus.dispatcher.leading": [Observation(1)]}
        for name in memory.pools:
            _add(found, "fusebus.pool.readable", int(name in facts.pools), {POOL: name})
        for name, seen in facts.pools.items():
            _add_pool(found, seen, facts, memory)
            if name in targets:
                _add_target(found, name, targets[name])
        for kind, depth in facts.depths.items():
            _add(found, "fusebus.work.waiting", depth, {KIND: kind.value})
            if facts.open_runs is not None:
                oldest = min((run.oldest_at for run in facts.runs_of(kind)), default=facts.now)
                _add(found, "fusebus.work.oldest.age", (facts.now - oldest).total_seconds(), {KIND: kind.value})
        if accounts.so_far is not None:
            _add_money(found, accounts.so_far, accounts.budget)
        self._found, self._at = found, self._clock()

    def clear(self) -> None:
        """Somebody else leads."""
        self._found = {"fusebus.dispatcher.leading": [Observation(0)]}
        self._at = self._clock()

    def _read(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return self._found.get(name, []) if self._clock() - self._at <= self._fresh_seconds else []

        return read


@contextmanager
def look() -> Iterator[None]:
    """One look, with the type of what it ended in."""
    began, attributes = time.perf_counter(), dict[str, str]()
    try:
        yield
    except Exception as error:
        attributes["error.type"] = type(error).__qualname__
        raise
    finally:
        _looks.record(time.perf_counter() - began, attributes)


def _add_pool(found: Found, seen: PoolSeen, facts: Facts, memory: Memory) -> None:
    pool, known = {POOL: seen.name}, memory.pools[seen.name]
    for dedicated, price in ((True, "dedicated"), (False, "spot")):
        for state in {"idle", "running", *(node.state for node in seen.nodes)}:
            count = seen.count(state, dedicated=dedicated)
            _add(found, "fusebus.pool.nodes", count, {**pool, STATE: state, PRICE: price})
    _add(found, "fusebus.pool.workers", seen.running, {**pool, STATE: "running"})
    _add(found, "fusebus.pool.workers", len(seen.waiting), {**pool, STATE: "waiting"})
    _add(found, "fusebus.pool.refused", int(bool(seen.shortfall)), pool)
    _add(found, "fusebus.pool.breaker.open", int(bool(memory.breaker_words(seen.name, facts.now))), pool)
    _add(found, "fusebus.pool.boot.duration", known.boot.p50, pool)
    _add(found, "fusebus.pool.image.duration", known.rate.seconds_per_image, pool)


def _add_target(found: Found, name: str, target: Target) -> None:
    pool = {POOL: name}
    if not target.hold:
        _add(found, "fusebus.pool.wanted.nodes", target.dedicated, {**pool, PRICE: "dedicated"})
        _add(found, "fusebus.pool.wanted.nodes", target.spot, {**pool, PRICE: "spot"})
        _add(found, "fusebus.pool.wanted.workers", target.workers, pool)
    _add(found, "fusebus.pool.late", int(bool(target.late)), pool)


def _add_money(found: Found, so_far: MonthSoFar, budget: Budget) -> None:
    unit = {"fusebus.currency": budget.currency}
    _add(found, "fusebus.cost.spent", so_far.spent, unit)
    _add(found, "fusebus.cost.forecast", so_far.forecast, unit)
    _add(found, "fusebus.cost.budget", budget.amount or None, unit)
    _add(found, "fusebus.cost.rate", so_far.burning_per_hour, unit)


def _add(found: Found, name: str, value: float | None, attributes: dict[str, str]) -> None:
    values = found.setdefault(name, [])
    if value is not None:
        values.append(Observation(value, attributes))
