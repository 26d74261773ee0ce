"""Jobs, tasks and their files through azure-batch: states, conditions, filters, pages, reactivation, retention."""

from datetime import timedelta
from typing import Any

import pytest
from azure.batch import models as batch_models
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError


async def test_a_job_is_changed_disabled_enabled_and_ended(place: Any) -> None:
    first = await place.call("data.get_job", "work")
    await place.call("data.update_job", "work", batch_models.BatchJobUpdateOptions(priority=7))
    changed = await place.call("data.get_job", "work")
    assert (first.priority, changed.priority) == (0, 7)
    stale: dict[str, Any] = {"etag": first.etag, "match_condition": MatchConditions.IfNotModified}
    with pytest.raises(ResourceModifiedError):
        await place.call("data.update_job", "work", batch_models.BatchJobUpdateOptions(priority=8), **stale)
    await place.add("one", "sleep 60")
    await place.scale(spot=1)
    await place.task_is("one", "running")
    options = batch_models.BatchJobDisableOptions(disable_tasks="requeue")
    await place.call("data.begin_disable_job", "work", options, polling_interval=0)
    job = await place.call("data.get_job", "work")
    assert (job.state, job.previous_state) == ("disabled", "disabling")
    assert (await place.call("data.get_task", "work", "one")).execution_info.requeue_count == 1
    await place.call("data.begin_enable_job", "work", polling_interval=0)
    await place.task_is("one", "running")
    await place.call("data.begin_delete_job", "work", polling_interval=0)
    with pytest.raises(ResourceNotFoundError):
        await place.call("data.get_job", "work")
    assert await place.call("data.list_jobs") == []


async def test_a_job_ends_with_its_tasks_if_it_is_told_to(aio_place: Any) -> None:
    place = aio_place
    mode = batch_models.BatchAllTasksCompleteMode.TERMINATE_JOB
    await place.make_job("finite", all_tasks_complete_mode=mode)
    task = batch_models.BatchTaskCreateOptions(id="only", command_line="true")
    await place.call("data.create_task", "finite", task)
    await place.scale(spot=1)

    async def completed() -> bool:
        return (await place.call("data.get_job", "finite")).state == "completed"

    await place.until(completed)
    assert (await place.call("data.get_job", "finite")).execution_info.termination_reason == "AllTasksCompleted"
    with pytest.raises(ResourceExistsError):
        await place.call("data.create_task", "finite", batch_models.BatchTaskCreateOptions(id="x", command_line="x"))


async def test_many_tasks_are_added_at_once_and_listed_in_pages_that_stay_true(aio_place: Any) -> None:
    place = aio_place
    names = [f"t{number:03}" for number in range(130)]
    tasks = [batch_models.BatchTaskCreateOptions(id=name, command_line="true") for name in names]
    results = (await place.call("data.create_tasks", "work", tasks)).result_values
    assert {result.status for result in results} == {"success"} and len(results) == 130
    counts = (await place.call("data.get_job_task_counts", "work")).task_counts
    assert (counts.active, counts.running, counts.completed) == (130, 0, 0)
    again = (await place.call("data.create_tasks", "work", tasks[:1])).result_values
    assert [(result.status, result.error.code) for result in again] == [("clienterror", "TaskExists")]
    listed = await place.call("data.list_tasks", "work", max_results=50, select=["id", "state"])
    assert [task.id for task in listed] == names
    assert (listed[0].state, listed[0].command_line) == ("active", None)
    pages = aiter(place.clients.data.list_tasks("work", max_results=60).by_page())
    first = [task.id async for task in await anext(pages)]
    await place.call("data.delete_task", "work", "t010")  # before the second page is asked for
    rest = [task.id async for page in pages async for task in page]
    assert first + rest == names


async def test_lists_are_filtered(aio_place: Any) -> None:
    place = aio_place
    await place.add("good", "true")
    await place.add("bad", "false")
    await place.add("other", "true", display_name="it's")
    await place.scale(spot=1)
    for name in ("good", "bad", "other"):
        await place.task_is(name, "completed")

    async def found(expression: str) -> list[str]:
        return [task.id for task in await place.call("data.list_tasks", "work", filter=expression)]

    assert await found("state eq 'completed' and executionInfo/exitCode ne 0") == ["bad"]
    assert await found("startswith(id, 'g') or (displayName eq 'it''s' and not (id eq 'bad'))") == ["good", "other"]
    assert await found("stateTransitionTime gt DateTime'2020-01-01T00:00:00Z'") == ["bad", "good", "other"]
    assert await found("stateTransitionTime lt DateTime'2020-01-01'") == []
    assert await found("executionInfo/exitCode ge 1") == ["bad"]
    with pytest.raises(HttpResponseError) as refused:
        await found("state like 'x'")
    assert refused.value.status_code == 400
    (node,) = await place.call("data.list_nodes", "gpu", filter="state eq 'idle'", select=["id"])
    assert node.id == "tvm-gpu-0001"


async def test_a_failed_task_is_reactivated_and_a_good_one_is_not(place: Any, tmp_path: Any) -> None:
    mark = tmp_path / "mark"
    await place.add("one", f"/bin/sh -c 'test -e {mark} || {{ touch {mark}; exit 5; }}'")
    await place.scale(spot=1)
    failed = await place.task_is("one", "completed")
    assert (failed.execution_info.exit_code, failed.execution_info.result) == (5, "failure")
    await place.call("data.reactivate_task", "work", "one")

    async def succeeded() -> bool:
        return (await place.task_is("one", "completed")).execution_info.result == "success"

    await place.until(succeeded)
    with pytest.raises(ResourceExistsError) as refused:
        await place.call("data.reactivate_task", "work", "one")
    assert refused.value.error.code == "TaskSucceeded"


async def test_files_of_a_task_are_read_in_parts_deleted_and_end_with_their_retention(place: Any) -> None:
    keep = batch_models.BatchTaskConstraints(retention_time=timedelta(seconds=0))
    await place.add("kept", "/bin/sh -c 'echo 0123456789; mkdir a; echo x > a/b'")
    await place.add("short", "echo gone", constraints=keep)
    await place.scale(spot=1)
    for name in ("kept", "short"):
        await place.task_is(name, "completed")
    assert await place.output("kept", ocp_range="bytes=3-5") == "345"
    files = await place.call("data.list_task_files", "work", "kept", recursive=True)
    assert [(file.name, file.is_directory) for file in files if file.name.startswith("wd")] == [
        ("wd", True),
        ("wd/a", True),
        ("wd/a/b", False),
    ]
    await place.call("data.delete_task_file", "work", "kept", "wd/a/b")
    with pytest.raises(ResourceNotFoundError):
        await place.output("kept", "wd/a/b")
    with pytest.raises(HttpResponseError) as refused:
        await place.output("short")
    assert refused.value.status_code == 409
    (node,) = await place.nodes()
    options = batch_models.BatchNodeRemoveOptions(node_ids=[node.id])
    await place.call("data.begin_remove_nodes", "gpu", options, polling_interval=0)
    with pytest.raises(ResourceNotFoundError):  # they were on the node
        await place.output("kept")
    assert (await place.call("data.get_task", "work", "kept")).execution_info.exit_code == 0


@pytest.mark.parametrize("pattern", ["a**", "[", "../**/*", "\0*", "*/\0"])
async def test_files_that_cant_be_matched_end_the_task_and_free_the_node(aio_place: Any, pattern: str) -> None:
    place = aio_place
    destination = batch_models.OutputFileDestination(
        container=batch_models.OutputFileBlobContainerDestination(container_url="http://127.0.0.1:1/box?sig=x")
    )
    options = batch_models.OutputFileUploadConfiguration(upload_condition="taskcompletion")
    file = batch_models.OutputFile(file_pattern=pattern, destination=destination, upload_options=options)
    await place.add("one", "true", output_files=[file])
    await place.add("two", "true")
    await place.scale(spot=1)
    await place.task_is("one", "completed")
    await place.task_is("two", "completed")
    await place.nodes_are("idle")
