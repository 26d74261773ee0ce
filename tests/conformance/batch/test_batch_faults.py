"""Faults as clients feel them: throttling, errors, late and lost answers; and the ways to inject them."""

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.batch import models as batch_models
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from fusebus.localbatch import fault_command
from fusebus.localbatch.entities import BatchProblem


async def test_a_throttled_request_says_when_to_come_again_and_the_sdk_does(aio_place: Any) -> None:
    aio_place.server.inject("throttle", plane="arm", next=1, retry_after=1)
    before = time.monotonic()
    await aio_place.properties()  # the SDK waits and asks again
    assert time.monotonic() - before >= 1
    assert await aio_place.nodes() == [], "the other plane is not throttled"


async def test_without_retries_throttling_is_an_error_with_its_code(start_batch: Any) -> None:
    place = await start_batch(client={"retry_total": 0})
    await place.make_pool()
    place.server.inject("throttle", for_seconds=60, retry_after=7)
    for call in ("arm.pool.get", "data.get_pool"):
        with pytest.raises(HttpResponseError) as refused:
            await place.call(call, "gpu")
        assert (refused.value.status_code, refused.value.error.code) == (429, "TooManyRequests")
        assert refused.value.response.headers["Retry-After"] == "7"


async def test_a_steady_rate_above_the_limit_is_throttled(start_batch: Any) -> None:
    place = await start_batch(requests_per_second=3, client={"retry_total": 0})
    await place.make_pool()
    with pytest.raises(HttpResponseError) as refused:
        for _ in range(200):
            await place.properties()
    assert refused.value.status_code == 429


async def test_an_injected_error_hits_only_what_it_is_for_and_does_nothing(start_batch: Any) -> None:
    place = await start_batch(client={"retry_total": 0})
    await place.make_pool()
    await place.make_job()
    place.server.inject("error", status=503, code="ServerBusy", method="post", path="/tasks$", next=1)
    assert (await place.properties()).allocation_state == "Steady"
    with pytest.raises(HttpResponseError) as refused:
        await place.add("one", "true")
    assert (refused.value.status_code, refused.value.error.code) == (503, "ServerBusy")
    assert await place.call("data.list_tasks", "work") == []
    await place.add("one", "true")


async def test_a_lost_answer_leaves_the_work_done(start_batch: Any) -> None:
    place = await start_batch(client={"retry_total": 0})
    await place.make_pool()
    await place.make_job()
    place.server.inject("lose", path="/tasks$", next=1)
    with pytest.raises(AzureError, match="disconnected"):
        await place.add("one", "true")
    with pytest.raises(ResourceExistsError):
        await place.add("one", "true")


async def test_a_late_answer_comes_late(start_batch: Any) -> None:
    place = await start_batch()
    await place.make_pool()
    place.server.inject("delay", seconds=0.3, next=1)
    before = time.monotonic()
    await place.properties()
    assert time.monotonic() - before >= 0.3


async def test_quota_can_fall_and_everything_can_be_cleared(aio_place: Any) -> None:
    place = aio_place
    place.server.inject("quota", spot=0, family="standardNCASv3_T4Family", cores=8)
    place.server.inject("boot", seconds=600)
    account = (await place.call("arm.batch_account.get")).properties
    assert (account.low_priority_core_quota, account.dedicated_core_quota_per_vm_family_enforced) == (0, True)
    async with aiohttp.ClientSession() as session:
        url = f"{place.server.url}/local/faults"
        assert (await (await session.get(url)).json())["boot"]["seconds"] == 600
        assert (await session.delete(url)).status == 204
    await place.scale(spot=1)
    await place.nodes_are("idle")
    assert (await place.call("arm.batch_account.get")).properties.low_priority_core_quota == 1_000_000


@pytest.mark.parametrize(
    "order",
    [
        {"fault": "explode"},
        {"fault": "preempt"},
        {"fault": "preempt", "pool": 3},
        {"fault": "preempt", "pool": "gpu", "colour": "red"},
        {"fault": "announce", "pool": "gpu", "event": "Rain"},
        {"fault": "throttle", "path": "("},
        {"fault": "quota", "family": "x"},
    ],
)
async def test_an_order_that_makes_no_sense_is_refused(aio_place: Any, order: dict[str, Any]) -> None:
    with pytest.raises(BatchProblem) as refused:
        aio_place.server.inject(**order)
    assert refused.value.status == 400


async def test_a_web_page_can_not_ask(aio_place: Any) -> None:
    async with aiohttp.ClientSession() as session:
        for headers in ({"Origin": "http://example.org"}, {"Host": "example.org"}):
            answer = await session.get(f"{aio_place.server.url}/pools", headers=headers)
            assert answer.status == 403


# --- output files


async def test_output_files_are_in_storage_when_the_task_has_ended(aio_place: Any, azurite: Any) -> None:
    place = aio_place
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        container = service.create_container(f"c{uuid.uuid4().hex}")
        signature = generate_container_sas(
            service.account_name,
            container.container_name,
            account_key=service.credential.account_key,
            permission=ContainerSasPermissions(write=True, create=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

        def output(pattern: str, url: str, path: str, when: str) -> batch_models.OutputFile:
            target = batch_models.OutputFileBlobContainerDestination(container_url=url, path=path)
            return batch_models.OutputFile(
                file_pattern=pattern,
                destination=batch_models.OutputFileDestination(container=target),
                upload_options=batch_models.OutputFileUploadConfiguration(upload_condition=when),
            )

        url = f"{container.url}?{signature}"
        files = [
            output("../std*.txt", url, "logs/one", "taskcompletion"),
            output("result.json", url, "r.json", "tasksuccess"),
            output("**/*", url, "never", "taskfailure"),
            output("../../../../secret.txt", url, "secret", "taskcompletion"),
        ]
        place.server.options.work_dir.mkdir(exist_ok=True)
        (place.server.options.work_dir / "secret.txt").write_text("x")  # lies outside of the task's folder
        await place.add("one", "/bin/sh -c 'echo said; echo {} > result.json'", output_files=files)
        await place.add("two", "true", output_files=[output("../stdout.txt", container.url, "x", "taskcompletion")])
        await place.scale(spot=1)
        await place.task_is("one", "completed")
        assert {blob.name for blob in container.list_blobs()} == {
            "logs/one/stdout.txt",
            "logs/one/stderr.txt",
            "r.json",
        }
        assert container.download_blob("logs/one/stdout.txt").readall() == b"said\n"
        info = (await place.task_is("two", "completed")).execution_info
        assert (info.exit_code, info.result) == (0, "failure")
        assert info.failure_info.code in ("FileUploadAccessDenied", "FileUploadContainerNotFound")


async def test_a_task_whose_files_find_no_end_can_be_ended(aio_place: Any) -> None:
    place, asked = aio_place, asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as storage:
        host, port = storage.sockets[0].getsockname()[:2]
        target = batch_models.OutputFileBlobContainerDestination(container_url=f"http://{host}:{port}/c?sig=x")
        file = batch_models.OutputFile(
            file_pattern="../stdout.txt",
            destination=batch_models.OutputFileDestination(container=target),
            upload_options=batch_models.OutputFileUploadConfiguration(upload_condition="taskcompletion"),
        )
        await place.add("one", "true", output_files=[file])
        await place.scale(spot=1)
        await asyncio.wait_for(asked.wait(), 30)
        assert (await place.call("data.get_task", "work", "one")).state == "running"
        await place.call("data.terminate_task", "work", "one")
        info = (await place.task_is("one", "completed")).execution_info
        assert (info.exit_code, info.failure_info.code) == (0, "TaskEnded")


# --- the command


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    arguments = ["--work-dir", str(tmp_path), "--boot-seconds", "0.1", "--spot-cores", "8", "--boot-spread", "0.3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusebus.localbatch", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().split()[1]
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


def test_faults_are_injected_listed_and_cleared_from_the_command_line(
    served: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*arguments: str) -> tuple[int, str, str]:
        code = fault_command.main(["--url", served, *arguments])
        return code, *capsys.readouterr()

    code, answer, _ = fault("market", "--size", "Standard_NC4as_T4_v3", "--spot", "0")
    assert (code, json.loads(answer)) == (0, {"fault": "market"})
    listed = json.loads(fault("list")[1])
    assert listed["market"] == [{"size": "standard_nc4as_t4_v3", "dedicated": False, "nodes": 0}]
    assert listed["quota"]["spot"] == 8
    code, _, complaint = fault("preempt", "--pool", "none")
    assert (code, "pool none does not exist" in complaint) == (1, True)
    assert fault("clear")[0] == 0
    assert json.loads(fault("list")[1])["market"] == []


def test_the_help_of_faults_has_an_example_and_a_wrong_use_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "fusebus.localbatch", "fault", "--help"]
    told = subprocess.run(command, check=False, capture_output=True, text=True)
    assert told.returncode == 0
    assert "example:" in told.stdout and "exit codes:" in told.stdout and "preempt" in told.stdout
    with pytest.raises(SystemExit) as wrong:
        fault_command.main(["--url", "http://127.0.0.1:9", "announce", "--pool", "gpu"])
    assert wrong.value.code == 2
    assert fault_command.main(["--url", "http://127.0.0.1:9", "list"]) == 1
    assert "no local Batch at" in capsys.readouterr().err
