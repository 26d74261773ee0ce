"""The breaker from look to look: when it opens, for how long, and what closes it."""

from datetime import UTC, datetime, timedelta

from fusebus.dispatcher.breaker import Breaker, BreakerLimits
from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = BreakerLimits(most_broken=2, most_failed=3, open_seconds=100, longest_open_seconds=300, proof_seconds=30)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def nodes(**states: str) -> PoolSeen:
    found = tuple(NodeSeen(id=name, state=state) for name, state in states.items())
    return PoolSeen(name="gpu", steady=True, nodes=found)


def failed(count: int, seconds: float) -> tuple[WorkerSeen, ...]:
    return tuple(
        WorkerSeen(id=f"w{seconds}-{n}", state=WorkerState.ENDED, since=at(seconds), failed=True, problem="exit 1")
        for n in range(count)
    )


def with_workers(*workers: WorkerSeen) -> PoolSeen:
    return PoolSeen(name="gpu", steady=True, workers=workers)


def opened() -> Breaker:
    breaker = Breaker()
    for second, name in enumerate(("a", "b")):
        breaker = breaker.observe(nodes(**{name: "unusable"}), LIMITS, at(second))
    assert breaker.room(nodes(), at(1)) == (0, 0)
    return breaker


def test_one_broken_node_is_bad_luck_two_in_a_row_are_a_reason() -> None:
    breaker = Breaker().observe(nodes(a="unusable"), LIMITS, at(0))
    assert breaker.room(nodes(), at(0)) is None
    assert breaker.observe(nodes(a="unusable"), LIMITS, at(9)).room(nodes(), at(9)) is None, "still the same one"
    breaker = breaker.observe(nodes(b="starttaskfailed"), LIMITS, at(10))
    assert "2 nodes in a row" in breaker.words(at(10))


def test_a_node_that_comes_up_in_between_starts_the_count_anew() -> None:
    breaker = Breaker().observe(nodes(a="unusable"), LIMITS, at(0))
    breaker = breaker.observe(nodes(ok="idle"), LIMITS, at(10))
    assert breaker.observe(nodes(ok="idle", b="unusable"), LIMITS, at(20)).room(nodes(), at(20)) is None


def test_while_open_what_is_there_may_stay() -> None:
    there = nodes(one="running", two="idle", bad="unusable")
    assert opened().room(there, at(50)) == (2, 0)


def test_after_a_while_one_may_try_and_a_success_closes_it() -> None:
    breaker = opened().observe(nodes(), LIMITS, at(150))
    assert breaker.room(nodes(), at(150)) == (1, 1)
    breaker = breaker.observe(nodes(c="starting"), LIMITS, at(160))
    breaker = breaker.observe(nodes(c="idle"), LIMITS, at(170))
    assert breaker.room(nodes(), at(170)) is None
    assert breaker.openings == 0


def test_a_probe_that_breaks_as_well_doubles_the_pause_up_to_a_limit() -> None:
    breaker, now = opened(), 1.0
    for pause, name in ((100, "c"), (200, "d"), (300, "e"), (300, "f")):
        assert breaker.room(nodes(), at(now + pause - 1)) == (0, 0)
        now += pause
        assert breaker.room(nodes(), at(now)) == (1, 1)
        breaker = breaker.observe(nodes(**{name: "unusable"}), LIMITS, at(now))


def test_workers_that_fail_open_it_and_one_that_runs_a_while_closes_it() -> None:
    breaker = Breaker().observe(with_workers(*failed(3, 0)), LIMITS, at(1))
    assert "3 workers failed within 120 s" in breaker.words(at(1))
    probe = WorkerSeen(id="p", state=WorkerState.RUNNING, since=at(110))
    breaker = breaker.observe(with_workers(*failed(3, 0), probe), LIMITS, at(115))
    assert breaker.room(nodes(), at(115)) == (1, 1), "it has just begun"
    breaker = breaker.observe(with_workers(*failed(3, 0), probe), LIMITS, at(145))
    assert breaker.room(nodes(), at(145)) is None


def test_a_probe_that_fails_keeps_it_open() -> None:
    breaker = Breaker().observe(with_workers(*failed(3, 0)), LIMITS, at(1))
    breaker = breaker.observe(with_workers(*failed(1, 110)), LIMITS, at(112))
    assert breaker.room(nodes(), at(112)) == (0, 0)
    assert breaker.openings == 2


def test_a_worker_that_was_stopped_proves_nothing() -> None:
    breaker = Breaker().observe(with_workers(*failed(3, 0)), LIMITS, at(1))
    stopped = WorkerSeen(id="s", state=WorkerState.ENDED, since=at(110), problem="stopped")
    assert breaker.observe(with_workers(stopped), LIMITS, at(115)).room(nodes(), at(115)) == (1, 1)


def test_failures_that_are_long_past_open_nothing() -> None:
    assert Breaker().observe(with_workers(*failed(3, 0)), LIMITS, at(200)).room(nodes(), at(200)) is None
