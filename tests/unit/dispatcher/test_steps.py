"""From a target to steps, by table: pools and targets in, steps out."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState
from fusebus.dispatcher.steps import (
    AddWorkers,
    DrainWorkers,
    RemoveNodes,
    Resize,
    Step,
    StopWaiting,
    Target,
    overdue,
    steps,
)
from fusebus.planning.lines import GIVEN_UP, OVERDUE


def pool(states: str = "", *, target: int | None = None, steady: bool = True, waiting: int = 0) -> PoolSeen:
    """One letter a node: b(usy), i(dle), s(tarting), o(ffline), x broken, p(reempted), l(eaving); big: dedicated."""
    names = {"b": "running", "i": "idle", "s": "starting", "x": "unusable", "p": "preempted", "l": "leavingpool"}
    names["o"] = "offline"
    nodes = tuple(
        NodeSeen(id=f"{letter}{number}", state=names[letter.lower()], dedicated=letter.isupper())
        for number, letter in enumerate(states)
    )
    running = [
        WorkerSeen(id=f"on-{node.id}", state=WorkerState.RUNNING, node=node.id)
        for node in nodes
        if node.state == "running"
    ]
    queued = [WorkerSeen(id=f"w{number}", state=WorkerState.WAITING) for number in range(waiting)]
    spot = sum(letter.islower() and letter != "l" for letter in states)
    return PoolSeen(
        name="gpu",
        steady=steady,
        target_dedicated=sum(letter.isupper() and letter != "L" for letter in states),
        target_spot=spot if target is None else target,
        nodes=nodes,
        workers=(*running, *queued),
    )


@pytest.mark.parametrize(
    ("name", "wanted", "seen", "expected"),
    [
        ("grow from nothing", (0, 2, 2), pool(), [AddWorkers(2), Resize(0, 2)]),
        ("grow in both kinds", (1, 2, 3), pool(), [AddWorkers(3), Resize(1, 2)]),
        ("nothing to change", (0, 2, 2), pool("bb"), []),
        ("a resizing pool is left alone, workers are queued", (0, 3, 3), pool(target=2, steady=False), [AddWorkers(3)]),
        ("idle nodes go", (0, 0, 0), pool("ii"), [RemoveNodes(("i0", "i1"))]),
        ("of two only the idle one goes", (0, 1, 1), pool("bi"), [RemoveNodes(("i1",))]),
        (
            "busy nodes never go, their workers are told to end",
            (0, 0, 0),
            pool("bb"),
            [DrainWorkers(("on-b1", "on-b0"))],
        ),
        ("fewer workers than run are no reason to end one while its node stays", (0, 2, 0), pool("bb"), []),
        ("the kind that is too many is drained", (1, 1, 2), pool("BBb"), [DrainWorkers(("on-B1",))]),
        (
            "starting nodes of which some are wanted are waited for, surplus workers called off",
            (0, 1, 1),
            pool("ss", waiting=2),
            [StopWaiting(("w1",))],
        ),
        (
            "where no node is wanted at all, starting ones go too",
            (0, 0, 0),
            pool("ss", waiting=2),
            [StopWaiting(("w0", "w1")), RemoveNodes(("s0", "s1"))],
        ),
        ("and those that are offline", (0, 0, 0), pool("oO"), [RemoveNodes(("O1", "o0"))]),
        ("the last one queued is called off first", (0, 2, 1), pool("ss", waiting=2), [StopWaiting(("w1",))]),
        ("an idle node is kept while a worker waits for it", (0, 0, 1), pool("i", waiting=1), []),
        ("broken and preempted nodes go before idle ones", (0, 1, 0), pool("ixp"), [RemoveNodes(("x1", "p2"))]),
        ("a lost node goes although work waits", (0, 1, 1), pool("pp", waiting=1), [RemoveNodes(("p0",))]),
        ("a broken node goes although work waits", (0, 1, 1), pool("x", waiting=1), [RemoveNodes(("x0",))]),
        ("once it is gone another is asked for", (0, 1, 1), pool("l", target=0, waiting=1), [Resize(0, 1)]),
        ("a target that a failed resize left is taken back", (0, 1, 1), pool("b", target=3), [Resize(0, 1)]),
        ("growing one kind shrinks no other", (1, 0, 2), pool("bb"), [DrainWorkers(("on-b1", "on-b0")), Resize(1, 2)]),
        ("surplus of one kind goes while the other stays", (0, 1, 1), pool("bI"), [RemoveNodes(("I1",))]),
    ],
)
def test_steps_lead_to_the_target(
    name: str, wanted: tuple[int, int, int], seen: PoolSeen, expected: list[Step]
) -> None:
    dedicated, spot, workers = wanted
    assert list(steps(Target(dedicated=dedicated, spot=spot, workers=workers), seen)) == expected, name


NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize("state", ["starting", "waitingforstarttask", "rebooting", "offline", "unknown"])
def test_a_node_that_stays_unready_too_long_goes_although_it_is_wanted(state: str) -> None:
    node = NodeSeen(id="n", state=state, since=NOW)
    seen = PoolSeen(name="gpu", steady=True, target_spot=1, nodes=(node,))
    target, limit = Target(spot=1, workers=0), GIVEN_UP * 300.0 + OVERDUE
    assert steps(target, seen, overdue(seen, NOW + timedelta(seconds=limit), 300.0)) == ()
    late = overdue(seen, NOW + timedelta(seconds=limit + 1), 300.0)
    assert steps(target, seen, late) == (RemoveNodes(("n",)),)


def test_a_node_that_holds_a_worker_is_never_overdue_nor_one_that_may_come_back_or_works() -> None:
    found = tuple(
        NodeSeen(id=state, state=state, since=NOW)
        for state in ("offline", "running", "idle", "preempted", "leavingpool")
    )
    worker = WorkerSeen(id="w", state=WorkerState.RUNNING, node="offline")
    seen = PoolSeen(name="gpu", steady=True, target_spot=5, nodes=found, workers=(worker,))
    assert overdue(seen, NOW + timedelta(days=2), 300.0) == frozenset()
    assert steps(Target(), seen) == (DrainWorkers(("w",)), RemoveNodes(("preempted", "idle")))


def test_a_target_that_holds_takes_no_step() -> None:
    assert steps(Target(hold=True), pool("iixb")) == ()


def test_a_remove_request_stays_within_batchs_limit() -> None:
    (step,) = steps(Target(), pool("i" * 250))
    assert isinstance(step, RemoveNodes)
    assert len(step.node_ids) == 100


POOLS = st.builds(
    pool,
    st.text(alphabet="bisoxplBISOXPL", max_size=12),
    target=st.one_of(st.none(), st.integers(0, 12)),
    steady=st.booleans(),
    waiting=st.integers(0, 4),
)
TARGETS = st.builds(Target, dedicated=st.integers(0, 9), spot=st.integers(0, 9), workers=st.integers(0, 12))


@given(target=TARGETS, seen=POOLS)
def test_whatever_is_wanted_no_busy_node_goes_and_no_resize_takes_one_away(target: Target, seen: PoolSeen) -> None:
    states = {node.id: node.state for node in seen.nodes}
    for step in steps(target, seen):
        match step:
            case RemoveNodes(node_ids):
                assert seen.steady
                unready = set() if target.nodes else {"starting", "offline"}
                assert {states[name] for name in node_ids} <= {"idle", "preempted", "unusable"} | unready
            case Resize(dedicated, spot):
                assert seen.steady
                assert dedicated >= len(seen.staying(True)) and spot >= len(seen.staying(False))
            case AddWorkers(count):
                assert count == target.workers - seen.live
            case StopWaiting(task_ids):
                assert set(task_ids) <= set(seen.waiting)
            case DrainWorkers(task_ids):
                assert len(task_ids) <= seen.running
    assert sum(isinstance(step, RemoveNodes | Resize) for step in steps(target, seen)) <= 1


@given(seen=POOLS)
def test_a_pool_that_is_as_wanted_is_left_alone(seen: PoolSeen) -> None:
    target = Target(dedicated=len(seen.staying(True)), spot=len(seen.staying(False)), workers=seen.live)
    changes = [step for step in steps(target, seen) if not isinstance(step, Resize)]
    assert all(isinstance(step, RemoveNodes) and set(step.node_ids) <= set(seen.broken) for step in changes)
