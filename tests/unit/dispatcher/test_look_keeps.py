"""What a dispatcher learnt outlives it: a restart forgets no breaker, poison, storm or speed."""

from datetime import timedelta

import msgspec
import pytest
from dispatcher_world import NOW, World, dispatcher_in, empty, nodes, workers

from fusebus.dispatcher.breaker import Breaker, Cause
from fusebus.dispatcher.errors import LostLeadership
from fusebus.dispatcher.keeping import KindNotes, PoolNotes, kind_notes, pool_notes, recall_kind, recall_pool
from fusebus.dispatcher.learning import Boots, Evictions, Progress
from fusebus.dispatcher.memory import KindMemory, PoolMemory
from fusebus.dispatcher.rate import Rate
from fusebus.dispatcher.seen import NodeSeen, PoolSeen
from fusebus.dispatcher.steps import RemoveNodes, Resize
from fusebus.dispatcher.waiting import Ages
from fusebus.ledger import Remembered
from fusebus.planning import Refusal


async def break_three(world: World) -> None:
    """Three nodes in a row turn out unusable."""
    dispatcher = dispatcher_in(world)
    for number in range(3):
        node = NodeSeen(id=f"bad{number}", state="starttaskfailed", problem="start task: exit code 1")
        world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=(node,))
        await dispatcher.look()
        world.now += timedelta(seconds=60)
    world.pools["gpu"] = empty()
    world.steps.clear()


async def test_a_restart_forgets_no_breaker(world: World) -> None:
    await break_three(world)
    targets = await dispatcher_in(world).look()
    assert Resize(0, 1) not in world.steps
    assert "3 nodes in a row turned out unusable" in targets["gpu"].because
    assert "bad2: start task: exit code 1; bad2: no such driver" in world.statuses["gpu"].breaker
    world.now += timedelta(seconds=700)
    await dispatcher_in(world).look()
    assert Resize(0, 1) in world.steps, "its time goes on"


async def test_nodes_that_were_usable_before_a_restart_close_no_breaker(world: World) -> None:
    await break_three(world)
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("idle"))
    world.now += timedelta(seconds=700)
    dispatcher = dispatcher_in(world)
    await dispatcher.look()
    assert "may try again" in world.statuses["gpu"].breaker


async def test_a_restart_forgets_no_poison(world: World) -> None:
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("running"), workers=workers(1)
    )
    await dispatcher_in(world).look()
    found = msgspec.json.decode(world.notes["kind:detect"].notes, type=KindNotes)
    stale = msgspec.structs.replace(found, fruitless=3700.0)
    world.notes["kind:detect"] = msgspec.structs.replace(
        world.notes["kind:detect"], notes=msgspec.json.encode(stale).decode()
    )
    world.pools["gpu"] = PoolSeen(name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("idle"))
    targets = await dispatcher_in(world, stall_seconds=3600).look()
    assert targets["gpu"].nodes == 0
    assert RemoveNodes(("n1",)) in world.steps


async def test_what_a_later_leader_kept_is_left_as_it_is_and_ends_leadership(world: World) -> None:
    dispatcher = dispatcher_in(world)
    await dispatcher.look()
    later = msgspec.structs.replace(world.notes["gpu"], term=5)
    world.notes["gpu"] = later
    world.steps.clear()
    world.now += timedelta(minutes=2)
    world.pools["gpu"] = PoolSeen(
        name="gpu", steady=True, term=1, target_spot=1, nodes=nodes("unusable"), shortfall="AllocationFailed"
    )
    with pytest.raises(LostLeadership):
        await dispatcher.look()
    assert (world.steps, world.notes["gpu"], world.met) == ([], later, 5)


async def test_a_new_term_begins_with_what_the_leader_between_had_learnt(world: World) -> None:
    dispatcher = dispatcher_in(world)
    await dispatcher.look()
    breaker = Breaker(cause=Cause.NODES, open_until=NOW + timedelta(hours=1), openings=1, because="2 nodes broke")
    text = msgspec.json.encode(PoolNotes(breaker=breaker)).decode()
    world.notes["gpu"] = Remembered(subject="gpu", term=2, kept_at=NOW, notes=text)
    world.leads = 3
    await dispatcher.look()
    assert "2 nodes broke" in world.statuses["gpu"].breaker


async def test_notes_that_can_not_be_read_yet_are_read_later_and_not_written_over(world: World) -> None:
    await break_three(world)
    before = dict(world.notes)
    world.broken = {"ledger"}
    dispatcher = dispatcher_in(world)
    await dispatcher.look()
    assert world.notes == before
    world.broken = set()
    targets = await dispatcher.look()
    assert "3 nodes in a row turned out unusable" in targets["gpu"].because


async def test_notes_of_another_release_are_learnt_anew(world: World) -> None:
    for subject in ("gpu", "kind:detect"):
        world.notes[subject] = Remembered(subject=subject, term=1, kept_at=NOW, notes='{"breaker": 7, "late": 7}')
    await dispatcher_in(world).look()
    assert Resize(0, 1) in world.steps


async def test_what_changes_all_the_time_is_written_once_a_minute(world: World) -> None:
    dispatcher, written = dispatcher_in(world), []
    for second in range(0, 120, 15):
        world.now = NOW + timedelta(seconds=second)
        await dispatcher.look()
        written.append(world.notes["kind:detect"].kept_at)
    assert len(set(written)) == 2


async def test_a_shadow_keeps_nothing(world: World) -> None:
    await dispatcher_in(world, shadow=True).look()
    assert world.notes == {}


def test_everything_worth_keeping_comes_back() -> None:
    pool = PoolMemory(dispatcher_in(World())._settings.all_pools[0])
    pool.breaker = Breaker(broken={"n1": NOW}, cause=Cause.WORKERS, open_until=NOW, openings=2, because="x")
    pool.evictions = Evictions(gone=frozenset({"n2"}), times=(NOW,))
    pool.refusals = {True: Refusal(spot=True, at=5.0, reason="AllocationTimedout")}
    pool.boots, pool.logs = Boots(samples=(200.0, 300.0)), {"n1": "no driver"}
    pool.rate = Rate(seconds_per_image=2.5, measured=True, samples=(2.0, 3.0))
    other = PoolMemory(dispatcher_in(World())._settings.all_pools[0])
    recall_pool(other, msgspec.json.decode(msgspec.json.encode(pool_notes(pool)), type=PoolNotes))
    assert (other.boot, other.service, other.refusals) == (pool.boot, pool.service, pool.refusals)
    assert (other.logs, other.evictions) == (pool.logs, pool.evictions)
    assert msgspec.structs.replace(other.breaker, sound=frozenset()) == pool.breaker


def test_what_waits_goes_on_waiting_while_nobody_looks() -> None:
    kind, later = KindMemory(), KindMemory()
    kind.ages = Ages(groups=((100.0, 5.0), (400.0, 7.0)), at=500.0)
    kind.progress = Progress(depth=12, at=500.0, fruitless=90.0)
    notes = msgspec.json.decode(msgspec.json.encode(kind_notes(kind, NOW, 500.0)), type=KindNotes)
    recall_kind(later, notes, NOW + timedelta(seconds=60), 7.0)
    assert later.ages.oldest(12) == pytest.approx(460.0, abs=1)
    assert (later.progress.fruitless, later.depth) == (90.0, 12)


def test_notes_of_a_very_large_fleet_and_queue_fit_into_a_column() -> None:
    pool, kind = PoolMemory(dispatcher_in(World())._settings.all_pools[0]), KindMemory()
    names = [f"tvmps_{number:064d}_p" for number in range(2000)]
    pool.breaker = Breaker(broken=dict.fromkeys(names, NOW), sound=frozenset(names))
    pool.evictions = Evictions(gone=frozenset(names), times=(NOW,) * 2000)
    pool.logs = dict.fromkeys(names[:40], "x" * 5000)
    kind.ages = Ages(groups=tuple((60.0 * number, 1000.5) for number in range(5000)), at=300_000.0)
    assert len(msgspec.json.encode(pool_notes(pool))) < 30_000
    notes = kind_notes(kind, NOW, 300_000.0)
    assert len(msgspec.json.encode(notes)) < 30_000
    assert sum(images for _, images in notes.waiting) == pytest.approx(5000 * 1000.5)
