"""The dispatcher's policy, by table: fleets and demands in, plans and steps out."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.dispatcher.policy import (
    AddWorkers,
    Demand,
    Fleet,
    Limits,
    Plan,
    RemoveNodes,
    Resize,
    Step,
    StopWaiting,
    decide,
    steps,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(max_nodes=4, deadline_seconds=1000, boot_seconds=200)
EMPTY = Fleet(steady=True, target=0)
TWO_BUSY = Fleet(steady=True, target=2, busy=2, running=2)
TWO_STARTING = Fleet(steady=True, target=2, starting=2, waiting=("a", "b"))
TWO_IDLE = Fleet(steady=True, target=2, idle=("n1", "n2"))
ONE_OF_EACH = Fleet(steady=True, target=2, busy=1, idle=("n1",), running=1)
FAILED_RESIZE = Fleet(
    steady=True, target=3, busy=1, running=1, resize_failed_at=NOW - timedelta(seconds=60), resize_problem="no cores"
)


def demand(depth: int | None, seconds: float = 1.0) -> Demand:
    return Demand(depth=depth, seconds_per_image=seconds)


@pytest.mark.parametrize(
    ("name", "fleet", "depth", "nodes", "workers", "words"),
    [
        ("nothing to do, nothing there", EMPTY, 0, 0, 0, "nothing is in flight"),
        ("a first image starts a first node", EMPTY, 1, 1, 1, "need 1 worker;"),
        ("800 s are left after booting: 801 images are too many for one", EMPTY, 801, 2, 2, "in 800 s"),
        ("with a node ready the whole deadline counts", ONE_OF_EACH, 999, 1, 1, "in 1000 s"),
        ("more than may be is cut, and says so", EMPTY, 10_000, 4, 4, "at most 4 nodes"),
        ("what already starts is counted, not asked for again", TWO_STARTING, 1500, 2, 2, "2 coming"),
        ("more work than what starts can do asks for the rest", TWO_STARTING, 2400, 3, 3, "need 3 workers"),
        ("a draining queue stops no worker", TWO_BUSY, 1, 2, 2, "is kept"),
        ("an empty queue waits for workers to leave", TWO_BUSY, 0, 2, 2, "still run"),
        ("an empty queue lets idle nodes go, busy ones stay", ONE_OF_EACH, 0, 1, 1, "still run"),
        ("an empty queue calls off workers that have no node", TWO_STARTING, 0, 0, 0, "nothing is in flight"),
        ("after a failed resize it makes do with what is there", FAILED_RESIZE, 5000, 1, 1, "no cores"),
    ],
)
def test_the_plan_follows_the_work(name: str, fleet: Fleet, depth: int, nodes: int, workers: int, words: str) -> None:
    plan = decide(fleet, demand(depth), LIMITS, NOW)
    assert (plan.nodes, plan.workers) == (nodes, workers), name
    assert words in plan.because


@pytest.mark.parametrize("fleet", [EMPTY, TWO_BUSY, TWO_STARTING, TWO_IDLE, ONE_OF_EACH])
def test_an_unknown_depth_holds_still(fleet: Fleet) -> None:
    plan = decide(fleet, demand(None), LIMITS, NOW)
    assert plan.hold
    assert steps(plan, fleet) == ()


def test_a_failed_resize_is_tried_again_later() -> None:
    later = NOW + timedelta(seconds=LIMITS.retry_resize_seconds)
    plan = decide(FAILED_RESIZE, demand(5000), LIMITS, later)
    assert plan.nodes == 4
    assert Resize(4) in steps(plan, FAILED_RESIZE)


@pytest.mark.parametrize(("quota", "nodes"), [(None, 4), (0, 0), (2, 2), (9, 4)])
def test_a_known_quota_caps_and_an_unknown_one_does_not(quota: int | None, nodes: int) -> None:
    limits = msgspec.structs.replace(LIMITS, quota_nodes=quota)
    assert decide(EMPTY, demand(10_000), limits, NOW).nodes == nodes


def test_workers_that_keep_failing_are_not_replaced_for_now() -> None:
    fleet = Fleet(steady=True, target=1, idle=("n1",), failures=6)
    plan = decide(fleet, demand(10), LIMITS, NOW)
    assert plan.workers == 0
    assert "failed lately" in plan.because


def test_a_long_boot_leaves_some_time_to_plan_with() -> None:
    limits = msgspec.structs.replace(LIMITS, boot_seconds=2000)
    assert decide(EMPTY, demand(500), limits, NOW).nodes == 2  # 500 s of work in a quarter of 1000 s


@pytest.mark.parametrize(
    ("name", "plan", "fleet", "expected"),
    [
        ("grow from nothing", (2, 2), EMPTY, [AddWorkers(2), Resize(2)]),
        ("nothing to change", (2, 2), TWO_BUSY, []),
        ("a resizing pool is left alone, workers are queued", (3, 3), Fleet(steady=False, target=2), [AddWorkers(3)]),
        ("idle nodes go", (0, 0), TWO_IDLE, [RemoveNodes(("n1", "n2"))]),
        ("of three only the idle one goes", (0, 1), ONE_OF_EACH, [RemoveNodes(("n1",))]),
        ("busy nodes never go", (0, 0), TWO_BUSY, []),
        ("starting nodes are waited for, their workers called off", (0, 0), TWO_STARTING, [StopWaiting(("a", "b"))]),
        ("the last one queued is called off first", (2, 1), TWO_STARTING, [StopWaiting(("b",))]),
        (
            "an idle node is kept while a worker waits for it",
            (0, 1),
            Fleet(steady=True, target=1, idle=("n1",), waiting=("a",)),
            [],
        ),
        (
            "broken and preempted nodes go before idle ones",
            (1, 0),
            Fleet(steady=True, target=3, idle=("n1",), broken=("x",), preempted=("p",)),
            [RemoveNodes(("x", "p"))],
        ),
        (
            "a broken node is replaced",
            (1, 1),
            Fleet(steady=True, target=1, broken=("x",), waiting=("a",)),
            [RemoveNodes(("x",))],
        ),
        (
            "a target that a failed resize left is taken back",
            (1, 1),
            Fleet(steady=True, target=3, busy=1, running=1),
            [Resize(1)],
        ),
        (
            "nodes on their way out don't count",
            (1, 1),
            Fleet(steady=True, target=0, leaving=2),
            [AddWorkers(1), Resize(1)],
        ),
    ],
)
def test_steps_lead_to_the_plan(name: str, plan: tuple[int, int], fleet: Fleet, expected: list[Step]) -> None:
    nodes, workers = plan
    assert list(steps(Plan(nodes=nodes, workers=workers, because=""), fleet)) == expected, name
