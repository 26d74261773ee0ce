"""What the policy is shown of quotas, deliveries, windows and evictions, and what it makes of them."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.contracts.messages import JobKind
from fusebus.costs import Rates, Verdict
from fusebus.costs.settings import CostSettings
from fusebus.dispatcher import planner
from fusebus.dispatcher.breaker import Cause
from fusebus.dispatcher.eyes import open_parts
from fusebus.dispatcher.facts import Facts, OpenRun
from fusebus.dispatcher.learning import Boots, Evictions, Progress, at_it, refusals
from fusebus.dispatcher.memory import Memory
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import NodeSeen, PoolSeen, WorkerSeen, WorkerState
from fusebus.dispatcher.settings import DispatcherSettings, PoolEntry
from fusebus.dispatcher.steps import Target
from fusebus.dispatcher.waiting import Ages
from fusebus.ledger import Controls, ImageFacts, LedgerSettings, UploadRow, Window

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FREE = Verdict(left=math.inf, alerts=(), because="there is no budget")
RATES: Mapping[str, Rates] = {
    "t4": Rates(dedicated=0.5, spot=0.1, currency="GBP", detail=""),
    "a100": Rates(dedicated=4.0, spot=1.0, currency="GBP", detail=""),
    "cpu": Rates(dedicated=0.2, spot=0.05, currency="GBP", detail=""),
}
POOLS = [
    PoolEntry(name="t4", vm_size="Standard_NC4as_T4_v3", cores=4, buy="both", seconds_per_image=1.0),
    PoolEntry(name="a100", vm_size="Standard_NC24ads_A100_v4", cores=24, buy="both", seconds_per_image=0.2),
    PoolEntry(name="cpu", job_kind=JobKind.CONVERT, vm_size="Standard_D4s_v5", cores=4, buy="dedicated"),
]


def settings_with(**more: Any) -> DispatcherSettings:
    return DispatcherSettings(
        bus=BusSettings(),
        ledger=LedgerSettings(),
        blobs=BlobSettings(),
        costs=CostSettings(),
        batch_url="http://local",
        pools=POOLS,
        **{"max_nodes": 50, **more},
    )


def facts_with(**more: Any) -> Facts:
    pools = {name: PoolSeen(name=name, steady=True) for name in ("t4", "a100", "cpu")}
    depths = {JobKind.DETECT: 0, JobKind.CONVERT: 0}
    return Facts(**{"now": NOW, "pools": pools, "depths": depths, "controls": Controls(), **more})


def targets(facts: Facts, budget: Verdict = FREE, memory: Memory | None = None, **more: Any) -> dict[str, Target]:
    settings = settings_with(**more)
    memory = memory or Memory(settings)
    memory.observe(facts, 0.0)
    return planner.targets(settings, planner.plan(settings, facts, memory, RATES, budget))


def nodes(found: dict[str, Target]) -> int:
    return sum(target.nodes for name, target in found.items() if name != "cpu")


def detect(count: int) -> dict[JobKind, int | None]:
    return {JobKind.DETECT: count, JobKind.CONVERT: 0}


def test_work_of_a_kind_goes_to_its_own_pools() -> None:
    found = targets(facts_with(depths={JobKind.DETECT: 0, JobKind.CONVERT: 100}))
    assert (nodes(found), found["cpu"].dedicated) == (0, 1)


def test_spot_is_bought_where_it_may_be_and_dedicated_where_it_must() -> None:
    found = targets(facts_with(depths=detect(500)))
    assert sum(found[name].spot for name in ("t4", "a100")) >= 1
    assert sum(found[name].dedicated for name in ("t4", "a100")) == 0


@pytest.mark.parametrize(("spot", "dedicated"), [(0, 0), (3, 3)])
def test_a_quota_too_small_for_one_node_buys_none_and_says_so(spot: int, dedicated: int) -> None:
    found = targets(facts_with(depths=detect(500), quotas={"local": Quota(spot=spot, dedicated=dedicated)}))
    assert nodes(found) == 0
    assert found["t4"].late
    assert "quota" in found["t4"].because


def test_a_family_quota_counts_by_its_name_however_it_is_written() -> None:
    families = {"standardNCASv3_T4Family": 0, "standardNCADSA100v4Family": 48}
    quota = Quota(spot=0, dedicated=1000, per_family=families)
    found = targets(facts_with(depths=detect(500), quotas={"local": quota}))
    assert (found["t4"].nodes, found["a100"].spot, found["a100"].dedicated > 0) == (0, 0, True)


@pytest.mark.parametrize("left", [0.0, None])
def test_a_spent_or_unknown_budget_buys_nothing(left: float | None) -> None:
    assert nodes(targets(facts_with(depths=detect(500)), Verdict(left=left, alerts=(), because="spent"))) == 0


def part(images: int, came: float, deadline: float, kind: JobKind = JobKind.DETECT) -> OpenRun:
    """Times in seconds from now on."""
    return OpenRun(
        run_id="r", job_kind=kind, images=images, total=images, oldest_at=at(came), deadline=at(deadline)
    )  # fmt: skip


def capacity(found: dict[str, Target]) -> float:
    return found["t4"].nodes / 1.0 + found["a100"].nodes / 0.2


def test_a_delivery_that_came_long_ago_has_less_time_left() -> None:
    def bought(seconds: float) -> float:
        run = part(2000, -seconds, 1800 - seconds)
        return capacity(targets(facts_with(depths=detect(2000), open_runs=(run,))))

    assert bought(900) > bought(0)


def test_a_supplier_with_a_later_deadline_of_its_own_needs_fewer_nodes() -> None:
    def bought(allowed: float) -> float:
        return capacity(targets(facts_with(depths=detect(4000), open_runs=(part(4000, -60, allowed),))))

    assert bought(1200) > bought(7200)


def test_each_kind_has_the_deadlines_of_its_own_deliveries_while_both_have_work() -> None:
    both = {JobKind.DETECT: 10, JobKind.CONVERT: 10}
    runs = (part(10, -9 * 3600, -8 * 3600, JobKind.CONVERT), part(10, -60, 3600))
    found = targets(facts_with(depths=both, open_runs=runs))
    assert (bool(found["cpu"].late), bool(found["t4"].late)) == (True, False)


@pytest.mark.parametrize("runs", [None, ()])
def test_what_the_ledger_does_not_tell_is_bought_for_before_its_deadline_counted_from_its_first_look(
    runs: tuple[OpenRun, ...] | None,
) -> None:
    settings = settings_with()
    memory, bought_at = Memory(settings), None
    for seconds in range(0, 1800, 60):
        facts = facts_with(now=at(seconds), depths={JobKind.DETECT: 10, JobKind.CONVERT: 10}, open_runs=runs)
        memory.observe(facts, float(seconds))
        found = planner.targets(settings, planner.plan(settings, facts, memory, RATES, FREE))
        if nodes(found) and found["cpu"].nodes:
            bought_at = seconds
            break
    assert bought_at is not None and bought_at < 1500
    demand = planner._demand(settings, JobKind.DETECT, facts, memory)
    assert demand.oldest_age == bought_at


def test_the_rows_of_a_delivery_fall_into_job_kinds_and_times_allowed() -> None:
    def row(name: str, came: float, **more: Any) -> UploadRow:
        facts = (
            {"image": ImageFacts(image_id="i", sha256="0", format="jpeg", width=1, height=1)}
            if "reject_reason" not in more
            else {}
        )
        return UploadRow(
            upload_id=name, supplier="s", container="c", blob_name=name, blob_etag="e", size=1, uploaded_at=at(came),
            run_id="r", entered_at=at(came), **facts, **more,
        )  # fmt: skip

    rows = [
        row("plain", 0),
        row("later", 10),
        row("own", 5, deadline_seconds=600.0),
        row("other", 7, job_kind=JobKind.CONVERT),
    ]
    found = {(one.job_kind, one.deadline): one for one in open_parts("r", rows, JobKind.DETECT, 1800.0)}
    assert {key: (one.images, one.oldest_at) for key, one in found.items()} == {
        (JobKind.DETECT, at(1800)): (2, at(0)),
        (JobKind.DETECT, at(605)): (1, at(5)),
        (JobKind.CONVERT, at(1807)): (1, at(7)),
    }


def test_what_arrived_counts_once_although_a_pool_can_not_be_read() -> None:
    memory = Memory(settings_with())
    one_hidden = {"t4": PoolSeen(name="t4", steady=True)}
    memory.observe(facts_with(), 0.0)
    for seconds in (60, 120, 180):
        memory.observe(facts_with(now=at(seconds), depths=detect(100), pools=one_hidden), float(seconds))
    assert memory.kinds[JobKind.DETECT].arrivals.last == at(60).timestamp()


def test_ages_are_those_of_first_come_first_done_also_in_a_steady_flow() -> None:
    ages = Ages().observe(0, 100, 0.0).observe(300, 150, 0.0)
    assert (ages.oldest(150), ages.oldest(50), ages.oldest(60)) == (300, 0, 300)
    assert ages.observe(310, None, 9.0) == ages
    assert ages.observe(400, 40, 0.0).oldest(40) == 100, "110 are gone: the 100 that came first among them"
    flow = Ages()
    for second in range(0, 6000, 60):
        flow = flow.observe(second, 120, 1.0)
    oldest = flow.oldest(120)
    assert oldest is not None and oldest <= 180
    assert flow.observe(6100, 0, 1.0).oldest(1) is None


def test_nodes_are_warm_when_an_announced_window_opens() -> None:
    opens = NOW + timedelta(seconds=295)
    window = Window(job_kind="detect", opens_at=opens, deadline=opens + timedelta(seconds=500), images=3000)
    assert nodes(targets(facts_with(windows=()))) == 0
    assert nodes(targets(facts_with(windows=(window,)))) >= 1


def test_a_lower_price_of_the_night_is_waited_for_if_the_deadline_allows_it() -> None:
    night = {"t4": [(at(3600), msgspec.structs.replace(RATES["t4"], spot=0.03))]}

    def bought(allowed: float) -> int:
        settings = settings_with()
        facts = facts_with(depths=detect(4000), open_runs=(part(4000, -60, allowed),))
        memory = Memory(settings)
        memory.observe(facts, 0.0)
        return nodes(planner.targets(settings, planner.plan(settings, facts, memory, RATES, FREE, night)))

    assert bought(8 * 3600) == 0
    assert bought(1800) > 0


def test_a_price_that_will_rise_buys_more_nodes_before() -> None:
    settings, facts = (
        settings_with(storms_per_hour=0.0),
        facts_with(depths=detect(8000), open_runs=(part(8000, -60, 8 * 3600),)),
    )
    memory = Memory(settings)
    memory.observe(facts, 0.0)
    dear = {name: [(at(5400), Rates(dedicated=9.0, spot=3.0, currency="GBP", detail=""))] for name in RATES}

    def spot(coming: Mapping[str, Any]) -> int:
        found = planner.targets(settings, planner.plan(settings, facts, memory, RATES, FREE, coming))
        return found["t4"].spot

    assert (spot({}), spot(dear)) == (1, 2)


def test_a_pool_whose_breaker_is_open_is_passed_over_for_another() -> None:
    memory = Memory(settings_with())
    broken = msgspec.structs.replace(memory.pools["t4"].breaker, open_until=NOW + timedelta(hours=1), because="bad")
    memory.pools["t4"].breaker = msgspec.structs.replace(broken, cause=Cause.NODES)
    found = targets(facts_with(depths=detect(500)), memory=memory)
    assert (found["t4"].nodes, found["a100"].nodes > 0) == (0, True)


def test_a_pool_that_could_not_be_read_gets_no_target() -> None:
    pools = {"t4": PoolSeen(name="t4", steady=True)}
    assert list(targets(facts_with(pools=pools, depths=detect(5)))) == ["t4"]


# --- what is learnt


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def pool_of(*found: NodeSeen, **more: Any) -> PoolSeen:
    return PoolSeen(name="t4", steady=True, nodes=found, **more)


def test_a_boot_is_measured_from_the_resize_to_the_first_use() -> None:
    boots = Boots().observe(pool_of(resized_at=at(0)))
    fresh = NodeSeen(id="n", state="idle", since=at(250), allocated_at=at(60))
    boots = boots.observe(pool_of(fresh, resized_at=at(0)))
    assert boots.samples == (250.0,)
    assert boots.observe(pool_of(fresh, resized_at=at(0))).samples == (250.0,), "once"


def test_a_node_that_was_there_before_or_comes_back_by_itself_is_no_boot() -> None:
    there = NodeSeen(id="n", state="running", since=at(250), allocated_at=at(60))
    assert Boots().observe(pool_of(there, resized_at=at(0))).samples == ()
    back = NodeSeen(id="m", state="idle", since=at(950), allocated_at=at(60))
    assert Boots(looked=True).observe(pool_of(back, resized_at=at(900))).samples == ()


def test_evictions_are_counted_once_each_and_forgotten_after_a_storm() -> None:
    gone = NodeSeen(id="n", state="preempted")
    found = Evictions().observe(pool_of(gone), at(0), 100).observe(pool_of(gone), at(15), 100)
    assert len(found.times) == 1
    assert len(found.observe(pool_of(), at(30), 100).observe(pool_of(gone), at(45), 100).times) == 2
    assert found.observe(pool_of(), at(200), 100).times == ()


def test_seconds_without_result_grow_until_the_queue_moves_however_many_work() -> None:
    found = Progress().observe(0, 3, True).observe(10, 3, True).observe(25, 3, True)
    assert found.fruitless == 10 + 15
    assert found.observe(30, 3, False).fruitless == 25
    assert found.observe(30, None, True).fruitless == 25
    assert found.observe(40, 2, True).fruitless == 0


def test_workers_that_wait_beside_an_idle_node_cost_as_those_do_that_run() -> None:
    idle, waits = NodeSeen(id="n", state="idle"), WorkerSeen(id="w", state=WorkerState.WAITING)
    assert at_it([pool_of(idle, workers=(waits,))])
    assert not at_it([pool_of(idle)])
    assert not at_it([pool_of(workers=(waits,))]), "its node may still come"


def test_a_refusal_is_kept_although_batch_forgets_it_with_the_next_resize() -> None:
    short = pool_of(target_spot=4, resized_at=at(0), shortfall="AllocationFailed: none left")
    found = refusals({}, short, at(60))
    assert {spot: one.at for spot, one in found.items()} == {True: at(0).timestamp()}
    assert refusals(found, pool_of(resized_at=at(70)), at(80)) == found


def test_refusals_in_a_row_are_counted_until_a_later_resize_brings_a_node() -> None:
    def short(asked: float) -> PoolSeen:
        return pool_of(target_spot=2, shortfall="AllocationTimedout", resized_at=at(asked))

    found = refusals({}, short(60), at(400))
    found = refusals(found, short(60), at(415))
    assert found[True].times == 1, "the same one, seen again"
    found = refusals(found, short(900), at(1300))
    assert found[True].times == 2
    partly = pool_of(NodeSeen(id="n1", state="idle", allocated_at=at(950)), resized_at=at(900))
    assert refusals(found, partly, at(1400)) == found, "what the refused resize brought says nothing"
    came = pool_of(NodeSeen(id="n2", state="idle", allocated_at=at(2050)), resized_at=at(2000))
    assert refusals(found, came, at(2100)) == {}
