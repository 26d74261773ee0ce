"""Nodes through azure-batch: start tasks, restarts, scheduling, breakage, notices, and the files that lie on them."""

import asyncio
import sys
from typing import Any

import aiohttp
import pytest
from azure.batch import models as batch_models
from azure.batch.models._models import BatchNodeRebootOptions
from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.mgmt.batch import models as arm_models

from fusebus.inferencer import eviction

# The SDK fails on its own missing content type without options, and does not export those of a restart.
REQUEUE = BatchNodeRebootOptions(node_reboot_kind="requeue")
NO_TASK = batch_models.BatchNodeDisableSchedulingOptions(node_disable_scheduling_option="requeue")
DRAIN = batch_models.BatchNodeDisableSchedulingOptions(node_disable_scheduling_option="taskcompletion")
SLEEP = f"{sys.executable} -c 'import time; time.sleep(60)'"


def start_task(line: str, **more: Any) -> arm_models.StartTask:
    return arm_models.StartTask(command_line=line, wait_for_success=True, **more)


async def test_a_start_task_runs_before_any_task_and_its_files_can_be_read(place: Any) -> None:
    line = "/bin/sh -c 'echo ready on $AZ_BATCH_NODE_ID; echo x > $AZ_BATCH_NODE_SHARED_DIR/model'"
    await place.make_pool("gpu", start_task=start_task(line))
    await place.add("one", "/bin/sh -c 'cat $AZ_BATCH_NODE_SHARED_DIR/model'")
    await place.scale(spot=1)
    await place.task_is("one", "completed")
    (node,) = await place.nodes_are("idle")
    info = node.start_task_info
    assert (info.state, info.exit_code, info.result, info.retry_count) == ("completed", 0, "success", 0)
    log = await place.call("data.download_node_file", "gpu", node.id, "startup/stdout.txt")
    assert log.decode() == f"ready on {node.id}\n"
    facts = await place.call("data.get_node_file_properties", "gpu", node.id, "shared/model")
    assert int(facts.content_length) == 2
    names = {file.name for file in await place.call("data.list_node_files", "gpu", node.id, recursive=True)}
    assert {"startup/stderr.txt", "shared/model", "workitems/work/job-1/one/stdout.txt"} <= names
    flat = {file.name for file in await place.call("data.list_node_files", "gpu", node.id)}
    assert flat == {"startup", "shared", "workitems"}
    task_log = await place.call(
        "data.download_node_file", "gpu", node.id, "workitems/work/job-1/one/stdout.txt", ocp_range="bytes=0-0"
    )
    assert task_log == b"x"


async def test_a_failing_start_task_is_retried_then_the_node_takes_no_task(aio_place: Any) -> None:
    place = aio_place
    await place.make_pool(
        "gpu", start_task=start_task("/bin/sh -c 'echo no driver >&2; exit 3'", max_task_retry_count=1)
    )
    await place.add("one", "true")
    await place.scale(spot=1)
    (node,) = await place.nodes_are("starttaskfailed")
    info = node.start_task_info
    assert (info.exit_code, info.result, info.retry_count) == (3, "failure", 1)
    assert info.failure_info.code == "FailureExitCode"
    log = await place.call("data.download_node_file", "gpu", node.id, "startup/stderr.txt")
    assert log.decode() == "no driver\n" * 2
    assert (await place.call("data.get_task", "work", "one")).state == "active"
    (counts,) = await place.call("data.list_pool_node_counts")
    assert counts.low_priority.start_task_failed == 1


async def test_a_restart_mends_an_injected_failure_of_the_start_task(place: Any) -> None:
    await place.make_pool("gpu", start_task=start_task("true"))
    place.server.inject("start-task", pool="gpu", exit_code=9)
    await place.scale(spot=1)
    (node,) = await place.nodes_are("starttaskfailed")
    assert node.start_task_info.exit_code == 9
    await place.call("data.begin_reboot_node", "gpu", node.id, REQUEUE, polling_interval=0)
    (again,) = await place.nodes_are("idle")
    assert (again.id, again.start_task_info.exit_code) == (node.id, 0)
    assert again.last_boot_time > node.last_boot_time


async def test_a_restart_gives_the_task_back_first(aio_place: Any) -> None:
    place = aio_place
    await place.add("one", SLEEP)
    await place.scale(spot=1)
    (node,) = await place.nodes_are("running")
    await place.call("data.begin_reboot_node", "gpu", node.id, REQUEUE, polling_interval=0)

    async def again() -> bool:
        info = (await place.task_is("one", "running")).execution_info
        return info.requeue_count == 1

    await place.until(again)
    with pytest.raises(ResourceNotFoundError):
        await place.call("data.begin_reboot_node", "gpu", "tvm-none", REQUEUE, polling_interval=0)


async def test_a_node_without_scheduling_ends_its_task_and_is_offline(place: Any) -> None:
    await place.scale(spot=1)
    (node,) = await place.nodes_are("idle")
    await place.call("data.disable_node_scheduling", "gpu", node.id, NO_TASK)
    (node,) = await place.nodes_are("offline")
    assert node.scheduling_state == "disabled"
    with pytest.raises(ResourceExistsError) as refused:
        await place.call("data.disable_node_scheduling", "gpu", node.id, NO_TASK)
    assert refused.value.status_code == 409
    await place.add("one", "true")
    assert (await place.call("data.get_task", "work", "one")).state == "active"
    await place.call("data.enable_node_scheduling", "gpu", node.id)
    await place.task_is("one", "completed")


async def test_a_draining_node_finishes_its_task_and_takes_no_other(aio_place: Any, tmp_path: Any) -> None:
    place, gate = aio_place, tmp_path / "gate"
    await place.add("one", f"/bin/sh -c 'while [ ! -e {gate} ]; do sleep 0.02; done'")
    await place.scale(spot=1)
    (node,) = await place.nodes_are("running")
    await place.call("data.disable_node_scheduling", "gpu", node.id, DRAIN)
    await place.add("two", "true")
    gate.touch()
    await place.nodes_are("offline")
    info = (await place.call("data.get_task", "work", "one")).execution_info
    assert (info.result, info.requeue_count) == ("success", 0)
    assert (await place.call("data.get_task", "work", "two")).state == "active"


async def test_an_unusable_node_costs_says_why_and_can_only_be_removed(aio_place: Any) -> None:
    place = aio_place
    await place.add("one", SLEEP)
    await place.scale(spot=2)
    await place.nodes_are("running", "idle")
    (name,) = place.server.inject("unusable", pool="gpu")["nodes"]
    await place.nodes_are("running", "unusable")  # the task went to the other one
    node = await place.call("data.get_node", "gpu", name)
    assert node.errors[0].code == "NodeUnusable"
    for call, more in (("data.begin_reboot_node", [REQUEUE]), ("data.list_node_files", [])):
        with pytest.raises(ResourceExistsError) as refused:  # so the SDK calls a 409
            await place.call(call, "gpu", name, *more)
        assert refused.value.error.code == "NodeStateUnusable"
    before = place.server.state.billed_node_seconds("gpu")[False]
    options = batch_models.BatchNodeRemoveOptions(node_ids=[name])
    await place.call("data.begin_remove_nodes", "gpu", options, polling_interval=0)
    await place.nodes_are("running")
    assert place.server.state.billed_node_seconds("gpu")[False] > before
    with pytest.raises(ResourceNotFoundError):
        await place.call("data.list_node_files", "gpu", name)


async def test_nodes_can_come_up_broken(aio_place: Any) -> None:
    aio_place.server.inject("unusable", pool="gpu", next=1)
    await aio_place.scale(spot=2)
    await aio_place.nodes_are("idle", "unusable")


# --- Scheduled Events


async def test_a_notice_stands_in_the_nodes_document_until_the_machine_is_taken(start_batch: Any) -> None:
    place = await start_batch(preempted_seconds=3600.0)
    await place.make_pool()
    await place.make_job()
    await place.add("one", "/bin/sh -c 'echo $LOCALBATCH_METADATA_URL; sleep 60'")
    await place.scale(spot=1)
    (node,) = await place.nodes_are("running")

    async def printed() -> bool:
        return (await place.output("one")).endswith("\n")

    await place.until(printed)
    url = (await place.output("one")).strip()
    events = f"{url}/scheduledevents?api-version=2020-07-01"
    async with aiohttp.ClientSession(headers={"Metadata": "true"}) as session:
        quiet = await (await session.get(events)).json()
        assert quiet == {"DocumentIncarnation": 1, "Events": []}
        place.server.inject("preempt", pool="gpu", notice=3600)
        document = await (await session.get(events)).json()
        (event,) = document["Events"]
        assert document["DocumentIncarnation"] == 2
        assert (event["EventType"], event["EventStatus"], event["Resources"]) == ("Preempt", "Scheduled", [node.id])
        assert event["NotBefore"].endswith(" GMT") and event["DurationInSeconds"] == -1
        assert (await place.call("data.get_node", "gpu", node.id)).state == "running"
        start = {"StartRequests": [{"EventId": event["EventId"]}]}
        assert (await session.post(events, json=start)).status == 200
        await place.nodes_are("preempted")
        assert (await session.get(events)).status == 404
    async with aiohttp.ClientSession() as session:
        assert (await session.get(events)).status == 400, "without the header Metadata: true"
    assert (await place.task_is("one", "active")).execution_info.requeue_count == 1


async def test_the_inferencer_hears_the_notice_of_its_own_node_only(aio_place: Any) -> None:
    place = aio_place
    await place.scale(spot=2)
    first, second = sorted(node.id for node in await place.nodes_are("idle", "idle"))
    heard = {name: asyncio.Event() for name in (first, second)}
    watches = [
        asyncio.create_task(eviction.watch(place.server.metadata_url("gpu", name), 0.02, heard[name].set))
        for name in heard
    ]
    place.server.inject("preempt", pool="gpu", node=second, notice=30)
    await asyncio.wait_for(heard[second].wait(), 30)
    assert not heard[first].is_set()
    for watch in watches:
        watch.cancel()


async def test_the_market_takes_spot_nodes_by_itself_when_it_is_told_to(start_batch: Any) -> None:
    place = await start_batch(spot_lifetime_seconds=0.1, notice_seconds=0.05, preempted_seconds=30.0)
    await place.make_pool(spot=2, dedicated=1)
    await place.nodes_are("preempted", "preempted", "idle")


async def test_only_a_spot_node_can_be_preempted(aio_place: Any) -> None:
    await aio_place.scale(dedicated=1)
    await aio_place.nodes_are("idle")
    with pytest.raises(Exception, match="The pool has 0 such nodes"):
        aio_place.server.inject("preempt", pool="gpu")
    aio_place.server.inject("announce", pool="gpu", event="Reboot", notice=0)
    (node,) = await aio_place.nodes_are("idle")
    assert node.last_boot_time >= node.allocation_time


async def test_a_start_task_without_a_command_fails_and_says_so(aio_place: Any) -> None:
    await aio_place.make_pool("gpu", start_task=start_task("   "))
    await aio_place.scale(spot=1)
    (node,) = await aio_place.nodes_are("starttaskfailed")
    assert node.start_task_info.failure_info.code == "CommandProgramNotFound"
