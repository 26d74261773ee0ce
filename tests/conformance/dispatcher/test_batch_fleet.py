"""What the dispatcher reads and does through both SDKs, on a local Batch that can go wrong."""

import importlib
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fusebus.dispatcher.adapters import BatchFleet
from fusebus.dispatcher.errors import FleetError, PoolBusy, PoolChanged, Refused, Throttled
from fusebus.dispatcher.seen import PoolSeen
from fusebus.dispatcher.settings import DispatcherSettings, PoolEntry
from fusebus.dispatcher.steps import AddWorkers, DrainWorkers, RemoveNodes, Resize, Step, StopWaiting
from fusebus.host import SettingsError, load_settings
from fusebus.localbatch import LocalBatch

Settings = Callable[..., DispatcherSettings]
Until = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
ME = "tester term 1"


def now() -> datetime:
    return datetime.now(UTC)


async def do(fleet: BatchFleet, *steps: Step, author: str = ME) -> None:
    """Each step on a fresh look."""
    for step in steps:
        await fleet.carry_out(await fleet.read("gpu"), step, author)


@pytest.fixture
def seen_with(until: Until) -> Callable[[BatchFleet, Callable[[PoolSeen], bool]], Awaitable[PoolSeen]]:
    """Look until it is as wanted."""

    async def look(fleet: BatchFleet, holds: Callable[[PoolSeen], bool]) -> PoolSeen:
        async def check() -> bool:
            return holds(await fleet.read("gpu"))

        await until(check)
        return await fleet.read("gpu")

    return look


async def test_ensure_may_be_repeated(fleet: BatchFleet) -> None:
    await fleet.ensure()
    seen = await fleet.read("gpu")
    assert (seen.steady, seen.present, seen.live, seen.term, seen.shortfall) == (True, 0, 0, 0, "")


async def test_a_pool_grows_works_and_shrinks_to_nothing(fleet: BatchFleet, seen_with: Any) -> None:
    await do(fleet, AddWorkers(1), Resize(0, 2))
    assert (await fleet.read("gpu")).coming == 2
    seen = await seen_with(fleet, lambda found: found.busy == 1 and len(found.idle) == 1)
    assert (seen.present, seen.running, seen.billed) == (2, 1, 2)
    await do(fleet, RemoveNodes(seen.idle))
    seen = await seen_with(fleet, lambda found: found.steady)
    assert (seen.present, seen.busy, seen.target_spot) == (1, 1, 1)
    await do(fleet, DrainWorkers(tuple(worker.id for worker in seen.workers)))
    seen = await seen_with(fleet, lambda found: len(found.idle) == 1)
    assert not any(worker.failed for worker in seen.workers), "drained is not failed"


async def test_dedicated_and_spot_nodes_live_in_one_pool(fleet: BatchFleet, seen_with: Any) -> None:
    await do(fleet, Resize(1, 2))
    seen = await seen_with(fleet, lambda found: len(found.idle) == 3)
    assert (len(seen.staying(True)), len(seen.staying(False))) == (1, 2)
    assert (seen.target_dedicated, seen.target_spot) == (1, 2)


async def test_workers_that_wait_are_called_off(fleet: BatchFleet) -> None:
    await do(fleet, AddWorkers(2))
    waiting = (await fleet.read("gpu")).waiting
    assert waiting == ("worker-000000001", "worker-000000002")
    await do(fleet, StopWaiting((*waiting, waiting[0])))
    seen = await fleet.read("gpu")
    assert (seen.live, [worker.failed for worker in seen.workers]) == (0, [False, False])


async def test_a_failed_workers_last_words_are_fetched_without_secrets(
    batch: LocalBatch, settings_for: Settings, seen_with: Any
) -> None:
    line = f"""{sys.executable} -c 'import sys; sys.exit("no driver AccountKey=abc123 " + "x" * 5000 + "end")'"""
    async with BatchFleet(settings_for(worker_command=line)) as fleet:
        await fleet.ensure()
        await do(fleet, AddWorkers(1), Resize(0, 1))
        seen = await seen_with(fleet, lambda found: any(worker.failed for worker in found.workers))
        said = await fleet.worker_log("gpu", seen.workers[0].id)
        assert said.endswith("xend") and len(said) <= 2000
        assert "FailureExitCode" in seen.workers[0].problem
        assert await fleet.worker_log("gpu", "worker-9") == ""


async def test_old_tasks_are_cleaned_up_but_for_the_newest(
    batch: LocalBatch, settings_for: Settings, seen_with: Any
) -> None:
    async with BatchFleet(settings_for(worker_command="true", task_retention_seconds=60)) as fleet:
        await fleet.ensure()
        await do(fleet, AddWorkers(2), Resize(0, 1))
        seen = await seen_with(fleet, lambda found: found.live == 0 and len(found.idle) == 1)
        await fleet.tidy(seen, now())
        assert len(batch.state.job("workers").tasks) == 2
        await fleet.tidy(seen, now() + timedelta(minutes=5))
        assert list(batch.state.job("workers").tasks) == ["worker-000000002"]
        await do(fleet, AddWorkers(1))
        assert "worker-000000003" in batch.state.job("workers").tasks, "no name comes twice"


async def test_the_quota_is_read_and_a_resize_above_it_is_seen(fleet: BatchFleet, seen_with: Any) -> None:
    assert (await fleet.quota()).spot == 12
    await do(fleet, Resize(0, 5))
    seen = await seen_with(fleet, lambda found: found.steady)
    assert (seen.present, seen.target_spot) == (3, 5)
    assert "AccountLowPriorityCoreQuotaReached" in seen.shortfall
    assert seen.resize_failed_lately(now(), 60)


async def test_errors_of_a_resize_before_our_last_one_are_old_news(
    batch: LocalBatch, fleet: BatchFleet, seen_with: Any
) -> None:
    await do(fleet, Resize(0, 5))
    seen = await seen_with(fleet, lambda found: found.steady)
    await do(fleet, Resize(0, 4))
    # Azure may go on showing the earlier resize's end for a while.
    fleet._resized_at["gpu"] = now() + timedelta(seconds=60)
    seen = await seen_with(fleet, lambda found: found.steady)
    assert (seen.shortfall, seen.target_spot) == ("", 4)


async def test_a_resize_that_gets_no_nodes_is_given_up_after_the_five_minutes_that_the_policy_plans_with(
    batch: LocalBatch, fleet: BatchFleet
) -> None:
    await do(fleet, Resize(0, 1))
    assert batch.state.pool("gpu").resize_timeout == 300.0


async def test_a_resize_while_resizing_is_pool_busy(batch: LocalBatch, fleet: BatchFleet) -> None:
    batch.inject("boot", seconds=60.0)
    await do(fleet, Resize(0, 1))
    with pytest.raises(PoolBusy):
        await do(fleet, Resize(0, 2))


@pytest.mark.parametrize("step", [Resize(0, 1), RemoveNodes(("tvm-none",))])
async def test_every_write_after_somebody_elses_is_refused(batch: LocalBatch, fleet: BatchFleet, step: Step) -> None:
    seen = await fleet.read("gpu")
    batch.state.update_pool("gpu", {"displayName": "changed"})
    with pytest.raises(PoolChanged):
        await fleet.carry_out(seen, step, ME)


async def test_a_worker_that_got_a_node_since_it_was_seen_waiting_is_not_ended(
    fleet: BatchFleet, seen_with: Any
) -> None:
    await do(fleet, AddWorkers(1))
    waiting = await fleet.read("gpu")
    await do(fleet, Resize(0, 1))
    running = await seen_with(fleet, lambda found: found.running == 1)
    await fleet.carry_out(waiting, StopWaiting(waiting.waiting), ME)
    assert (await fleet.read("gpu")).running == 1
    await fleet.carry_out(running, DrainWorkers(("worker-000000001",)), ME)
    await seen_with(fleet, lambda found: found.live == 0)


async def test_two_that_saw_the_same_can_not_both_queue_workers(batch: LocalBatch, fleet: BatchFleet) -> None:
    seen = await fleet.read("gpu")
    await fleet.carry_out(seen, AddWorkers(2), ME)
    with pytest.raises(PoolChanged):
        await fleet.carry_out(seen, AddWorkers(2), "another term 2")
    await fleet.carry_out(seen, AddWorkers(2), ME)  # a repeat of our own is a success
    assert len(batch.state.job("workers").tasks) == 2


async def test_a_job_that_has_ended_is_refused_and_not_busy(batch: LocalBatch, fleet: BatchFleet) -> None:
    seen = await fleet.read("gpu")
    batch.state.terminate_job("workers")
    batch._step()
    with pytest.raises(FleetError, match="JobCompleted") as caught:
        await fleet.carry_out(seen, AddWorkers(1), ME)
    assert not isinstance(caught.value, PoolBusy | PoolChanged)


@pytest.mark.parametrize(
    ("code", "kind"), [("JobDisabled", Refused), ("JobCompleted", Refused), ("PoolBeingResized", PoolBusy)]
)
async def test_a_conflict_is_told_by_its_code(
    batch: LocalBatch, fleet: BatchFleet, code: str, kind: type[FleetError]
) -> None:
    seen = await fleet.read("gpu")
    batch.inject("error", plane="data", method="POST", status=409, code=code)
    with pytest.raises(kind, match=code):
        await fleet.carry_out(seen, AddWorkers(1), ME)


async def test_a_job_that_somebody_deleted_is_made_anew(batch: LocalBatch, fleet: BatchFleet) -> None:
    await do(fleet, AddWorkers(1))
    waiting = (await fleet.read("gpu")).waiting
    await do(fleet, StopWaiting(waiting))
    batch.state.delete_job("workers")
    batch._step()
    assert "workers" not in batch.state.jobs
    assert (await fleet.read("gpu")).live == 0
    await do(fleet, AddWorkers(1))
    await do(fleet, StopWaiting(waiting))
    assert (await fleet.read("gpu")).live == 0, "the new task of the same name is told to end too"


async def test_an_answer_that_is_lost_leaves_no_worker_twice(batch: LocalBatch, fleet: BatchFleet) -> None:
    batch.inject("lose", plane="data", method="POST", path="addtaskcollection")
    seen = await fleet.read("gpu")
    with pytest.raises(FleetError):
        await fleet.carry_out(seen, AddWorkers(3), ME)
    assert (await fleet.read("gpu")).live == 3, "the next look sees what was done"
    await fleet.carry_out(seen, AddWorkers(3), ME)
    assert len(batch.state.job("workers").tasks) == 3


async def test_of_workers_that_are_queued_together_each_stands_by_itself_and_what_is_missing_is_missed(
    batch: LocalBatch, fleet: BatchFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("fusebus.localbatch.routes.tasks")
    added = module._added

    def all_but_the_second(state: Any, job_id: str, body: Any, base: str) -> dict[str, Any]:
        if not body["id"].endswith("2"):
            return added(state, job_id, body, base)
        error = {"code": "ServerBusy", "message": {"lang": "en-us", "value": "Try later."}}
        return {"status": "servererror", "taskId": body["id"], "error": error}

    monkeypatch.setattr(module, "_added", all_but_the_second)
    with pytest.raises(FleetError, match="1 of 3 workers could not be queued: ServerBusy: Try later"):
        await do(fleet, AddWorkers(3))
    assert (await fleet.read("gpu")).live == 2
    await do(fleet, AddWorkers(1))
    assert (await fleet.read("gpu")).waiting[-1] == "worker-000000004"


async def test_a_lost_answer_to_a_resize_shows_as_a_change_and_is_done_once(
    batch: LocalBatch, fleet: BatchFleet
) -> None:
    batch.inject("lose", plane="arm", method="PATCH")
    with pytest.raises(FleetError):
        await do(fleet, Resize(0, 2))
    assert (await fleet.read("gpu")).target_spot == 2


async def test_a_claim_keeps_other_metadata_and_ends_an_earlier_leaders_writes(
    batch: LocalBatch, fleet: BatchFleet
) -> None:
    batch.state.update_pool("gpu", {"metadata": [{"name": "owner", "value": "ops"}]})
    before = await fleet.read("gpu")
    await fleet.claim(before, 3)
    with pytest.raises(PoolChanged):
        await fleet.carry_out(before, Resize(0, 1), ME)
    seen = await fleet.read("gpu")
    assert seen.term == 3
    assert {"name": "owner", "value": "ops"} in batch.state.pool("gpu").properties["metadata"]
    with pytest.raises(PoolChanged):
        await fleet.claim(seen, 2)
    assert (await fleet.read("gpu")).term == 3


async def test_a_pool_can_be_claimed_while_it_resizes(fleet: BatchFleet) -> None:
    await do(fleet, Resize(0, 1))
    await fleet.claim(await fleet.read("gpu"), 1)
    assert (await fleet.read("gpu")).term == 1


@pytest.mark.parametrize("plane", ["arm", "data"])
async def test_a_throttled_plane_is_left_alone_as_long_as_it_asked(
    batch: LocalBatch, fleet: BatchFleet, plane: str
) -> None:
    batch.inject("throttle", plane=plane, retry_after=1)
    with pytest.raises(Throttled) as caught:
        await fleet.read("gpu")
    assert caught.value.retry_after_seconds == 1
    with pytest.raises(Throttled, match="left alone"):
        await fleet.read("gpu")
    for plane_kept in (fleet._management, fleet._nodes):
        plane_kept._closed_until = 0.0
    assert (await fleet.read("gpu")).steady


@pytest.mark.parametrize("status", [500, 503, 403])
async def test_whatever_batch_answers_is_a_fleet_error(batch: LocalBatch, fleet: BatchFleet, status: int) -> None:
    batch.inject("error", plane="arm", status=status)
    with pytest.raises(FleetError):
        await fleet.read("gpu")


async def test_an_answer_that_does_not_come_is_given_up(batch: LocalBatch, settings_for: Settings) -> None:
    async with BatchFleet(settings_for(request_seconds=0.5)) as fleet:
        batch.inject("delay", seconds=3.0)
        with pytest.raises(FleetError, match="did not answer"):
            await fleet.read("gpu")


async def test_a_start_task_that_fails_shows_as_broken_with_its_log(
    batch: LocalBatch, fleet: BatchFleet, seen_with: Any
) -> None:
    command = {"commandLine": "true", "waitForSuccess": True}
    batch.state.update_pool("gpu", {"startTask": command})
    batch.inject("start-task", pool="gpu", next=1)
    await do(fleet, Resize(0, 1))
    seen = await seen_with(fleet, lambda found: len(found.broken) == 1)
    (node,) = seen.nodes
    assert "start task" in node.problem
    assert await fleet.node_log("gpu", node.id)
    await do(fleet, RemoveNodes(seen.broken))
    await seen_with(fleet, lambda found: found.present == 0)


async def test_unusable_nodes_are_broken_and_say_why(batch: LocalBatch, fleet: BatchFleet, seen_with: Any) -> None:
    batch.inject("unusable", pool="gpu", next=1)
    await do(fleet, Resize(0, 1))
    seen = await seen_with(fleet, lambda found: len(found.broken) == 1)
    assert seen.nodes[0].problem


async def test_several_pools_have_jobs_of_their_own(batch: LocalBatch, settings_for: Settings) -> None:
    pools = [PoolEntry(name="gpu", job="workers"), PoolEntry(name="cpu", vm_size="Standard_D4s_v5", buy="dedicated")]
    async with BatchFleet(settings_for(pools=pools)) as fleet:
        await fleet.ensure()
        await fleet.carry_out(await fleet.read("cpu"), AddWorkers(2), ME)
        assert ((await fleet.read("gpu")).live, (await fleet.read("cpu")).live) == (0, 2)
    assert set(batch.state.jobs) == {"workers", "cpu-workers"}
    assert batch.state.pool("cpu").properties["vmSize"] == "Standard_D4s_v5"


async def test_a_worker_gets_its_variables_and_nothing_else(
    batch: LocalBatch, settings_for: Settings, seen_with: Any, tmp_path: Path
) -> None:
    line = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    async with BatchFleet(settings_for(worker_command=line, worker_environment={"FUSEBUS_SETTINGS": "x"})) as fleet:
        await fleet.ensure()
        await do(fleet, AddWorkers(1), Resize(0, 1))
        await seen_with(fleet, lambda found: found.live == 0)
    (output,) = (tmp_path / "batch" / "tasks" / "workers").glob("*/stdout.txt")
    seen = json.loads(output.read_text())
    assert {name for name in seen if name.startswith("FUSEBUS")} == {"FUSEBUS_SETTINGS"}
    assert seen["AZ_BATCH_TASK_ID"].startswith("worker-")


async def test_without_an_answer_it_is_a_fleet_error(settings_for: Settings) -> None:
    chosen = msgspec.structs.replace(settings_for(), batch_url="http://127.0.0.1:9", request_seconds=0.5)
    async with BatchFleet(chosen) as fleet:
        with pytest.raises(FleetError):
            await fleet.read("gpu")
        with pytest.raises(FleetError):
            await fleet.quota()


def test_settings_without_any_batch_say_what_is_missing() -> None:
    with pytest.raises(SettingsError, match="FUSEBUS_DISPATCHER_BATCH_ENDPOINT"):
        load_settings(DispatcherSettings, "dispatcher", {})


def test_pools_are_read_from_settings_and_take_what_they_leave_out_from_the_rest() -> None:
    pools = [{"name": "t4"}, {"name": "cpu", "job_kind": "convert", "vm_size": "D4s_v5", "cores": 2, "max_nodes": 9}]
    environment = {
        "FUSEBUS_DISPATCHER_BATCH_URL": "http://localhost:1",
        "FUSEBUS_DISPATCHER_POOLS": json.dumps(pools),
        "FUSEBUS_DISPATCHER_MAX_NODES": "3",
    }
    t4, cpu = load_settings(DispatcherSettings, "dispatcher", environment).all_pools
    assert (t4.vm_size, t4.cores, t4.max_nodes, t4.job_id) == ("Standard_NC4as_T4_v3", 4, 3, "t4-workers")
    assert (cpu.job_kind, cpu.vm_size, cpu.cores, cpu.max_nodes) == ("convert", "D4s_v5", 2, 9)


def test_the_pools_of_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "dispatcher.md").read_text()
    file = tmp_path / "settings.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    environment = {"FUSEBUS_SETTINGS": str(file), "FUSEBUS_DISPATCHER_BATCH_URL": "http://localhost:1"}
    t4, a100, cpu = load_settings(DispatcherSettings, "dispatcher", environment).all_pools
    assert (t4.buy, t4.cores, t4.max_nodes) == ("both", 4, 8)
    assert (a100.cores, a100.max_nodes, a100.seconds_per_image) == (24, 2, 0.15)
    assert (cpu.job_kind, cpu.worker_environment) == ("convert", {"FUSEBUS_CONVERT_IDLE_EXIT_SECONDS": "60"})


@pytest.mark.parametrize("pools", [[{"name": "a"}, {"name": "a"}], [{"name": "a b"}], [{"name": "a", "vmsize": "x"}]])
def test_wrong_pools_are_named(pools: list[dict[str, str]]) -> None:
    environment = {
        "FUSEBUS_DISPATCHER_BATCH_URL": "http://localhost:1",
        "FUSEBUS_DISPATCHER_POOLS": json.dumps(pools),
    }
    with pytest.raises(SettingsError, match="FUSEBUS_DISPATCHER_POOLS"):
        load_settings(DispatcherSettings, "dispatcher", environment)
