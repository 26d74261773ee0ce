"""The local Batch through both real SDKs, unmodified: azure-mgmt-batch for pools, azure-batch for the rest."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.batch import BatchClient as SyncBatchClient
from azure.batch import models as batch_models
from azure.batch.aio import BatchClient
from azure.batch.models._models import BatchJobTerminateOptions
from azure.core import MatchConditions
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.batch import BatchManagementClient as SyncBatchManagementClient
from azure.mgmt.batch import models as arm_models
from azure.mgmt.batch.aio import BatchManagementClient

from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

GROUP, ACCOUNT, SUBSCRIPTION = "local", "local", "00000000-0000-0000-0000-000000000000"
KEY = AzureNamedKeyCredential("local", "bG9jYWw=")
LIMITS = AccountLimits(
    boot_seconds=0.2, leave_seconds=0.05, terminate_grace_seconds=0.5, preempted_seconds=0.1, capacity=3
)
DEADLINE_SECONDS = 60.0


class NoToken:
    """ARM insists on a credential; over plain http none is sent."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)


def pool_of(spot: int = 0, dedicated: int = 0) -> arm_models.Pool:
    scale = arm_models.FixedScaleSettings(target_low_priority_nodes=spot, target_dedicated_nodes=dedicated)
    return arm_models.Pool(
        properties=arm_models.PoolProperties(
            vm_size="Standard_NC4as_T4_v3", scale_settings=arm_models.ScaleSettings(fixed_scale=scale)
        )
    )


def scaled(spot: int, option: str = "Requeue") -> arm_models.Pool:
    fixed = arm_models.FixedScaleSettings(target_low_priority_nodes=spot, node_deallocation_option=option)
    return arm_models.Pool(
        properties=arm_models.PoolProperties(scale_settings=arm_models.ScaleSettings(fixed_scale=fixed))
    )


class Account:
    """Both aio clients on one local Batch, with the job `work` on the pool `gpu`."""

    def __init__(self, server: LocalBatch) -> None:
        self.server = server
        self.arm = BatchManagementClient(
            NoToken(), SUBSCRIPTION, base_url=server.url, authentication_policy=SansIOHTTPPolicy()
        )
        self.batch = BatchClient(server.url, KEY)

    async def pool(self) -> arm_models.PoolProperties:
        found = await self.arm.pool.get(GROUP, ACCOUNT, "gpu")
        assert found.properties is not None
        return found.properties

    async def scale(self, spot: int, **more: Any) -> arm_models.Pool:
        return await self.arm.pool.update(GROUP, ACCOUNT, "gpu", scaled(spot, **more))

    async def add(self, task_id: str, *command: str, retries: int = 0, **environment: str) -> None:
        line = shlex.join([sys.executable, *command])
        settings = [batch_models.EnvironmentSetting(name=name, value=value) for name, value in environment.items()]
        constraints = batch_models.BatchTaskConstraints(max_task_retry_count=retries)
        await self.batch.create_task(
            "work",
            batch_models.BatchTaskCreateOptions(
                id=task_id, command_line=line, environment_settings=settings, constraints=constraints
            ),
        )

    async def nodes(self) -> list[batch_models.BatchNode]:
        return [node async for node in self.batch.list_nodes("gpu")]

    async def task(self, task_id: str) -> batch_models.BatchTask:
        return await self.batch.get_task("work", task_id)

    async def output(self, task_id: str, name: str = "stdout.txt") -> str:
        chunks = await self.batch.download_task_file("work", task_id, name)
        return b"".join([chunk async for chunk in chunks]).decode()

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, "did not happen in time"
            await asyncio.sleep(0.03)

    async def steady_with(self, nodes: int) -> None:
        async def holds() -> bool:
            pool = await self.pool()
            return (pool.allocation_state, pool.current_low_priority_nodes) == ("Steady", nodes)

        await self.until(holds)

    async def task_is(self, task_id: str, state: str) -> batch_models.BatchTask:
        async def holds() -> bool:
            return (await self.task(task_id)).state == state

        await self.until(holds)
        return await self.task(task_id)


@pytest.fixture
async def account(tmp_path: Path) -> AsyncIterator[Account]:
    async with LocalBatch(LocalBatchOptions(work_dir=tmp_path, limits=LIMITS)) as server:
        account = Account(server)
        async with account.arm, account.batch:
            await account.arm.pool.create(GROUP, ACCOUNT, "gpu", pool_of())
            job = batch_models.BatchJobCreateOptions(id="work", pool_info=batch_models.BatchPoolInfo(pool_id="gpu"))
            await account.batch.create_job(job)
            yield account


async def test_a_pool_grows_boots_and_shrinks(account: Account) -> None:
    resizing = await account.scale(2)
    assert resizing.properties is not None and resizing.properties.allocation_state == "Resizing"
    await account.steady_with(2)
    states = {node.state for node in await account.nodes()}
    assert states <= {batch_models.BatchNodeState.STARTING, batch_models.BatchNodeState.IDLE}

    async def all_idle() -> bool:
        return [node.state for node in await account.nodes()] == [batch_models.BatchNodeState.IDLE] * 2

    await account.until(all_idle)
    pool = await account.pool()
    assert pool.scale_settings and pool.scale_settings.fixed_scale
    assert pool.scale_settings.fixed_scale.target_low_priority_nodes == 2
    assert pool.resize_operation_status and not pool.resize_operation_status.errors
    await account.scale(0)
    await account.steady_with(0)


async def test_an_update_with_a_stale_etag_is_refused(account: Account) -> None:
    before = await account.arm.pool.get(GROUP, ACCOUNT, "gpu")
    await account.arm.pool.update(
        GROUP, ACCOUNT, "gpu", scaled(0), etag=before.etag, match_condition=MatchConditions.IfNotModified
    )
    with pytest.raises(ResourceModifiedError):
        await account.arm.pool.update(
            GROUP, ACCOUNT, "gpu", scaled(1), etag=before.etag, match_condition=MatchConditions.IfNotModified
        )


async def test_a_resize_of_a_resizing_pool_is_a_conflict(account: Account) -> None:
    account.server.inject("market", size="Standard_NC4as_T4_v3", spot=0)  # so that it goes on resizing
    await account.scale(1)
    with pytest.raises(HttpResponseError) as refused:
        await account.scale(2)
    assert refused.value.status_code == 409
    assert refused.value.error is not None and refused.value.error.code == "PoolBeingResized"


async def test_the_quota_shows_as_a_resize_error(account: Account) -> None:
    await account.scale(5)
    await account.steady_with(3)
    status = (await account.pool()).resize_operation_status
    assert status is not None and status.errors and status.start_time is not None
    assert status.errors[0].code == "AccountLowPriorityCoreQuotaReached"
    quota = await account.arm.batch_account.get(GROUP, ACCOUNT)
    assert quota.properties is not None and quota.properties.low_priority_core_quota == 12


async def test_a_task_runs_as_a_process_with_its_settings_and_its_output_is_kept(account: Account) -> None:
    program = "import os, sys; print(os.environ['WORD'], os.environ['AZ_BATCH_TASK_ID']); print('oh', file=sys.stderr)"
    await account.add("one", "-c", program, WORD="hello")
    await account.scale(1)
    task = await account.task_is("one", "completed")
    assert task.execution_info is not None
    assert (task.execution_info.exit_code, task.execution_info.result) == (0, "success")
    assert task.node_info is not None and task.node_info.node_id == (await account.nodes())[0].id
    assert await account.output("one") == "hello one\n"
    assert await account.output("one", "stderr.txt") == "oh\n"
    properties = await account.batch.get_task_file_properties("work", "one", "stdout.txt")
    assert int(properties.content_length) == 10
    names = {file.name async for file in account.batch.list_task_files("work", "one")}
    assert names == {"stdout.txt", "stderr.txt", "wd"}
    counts = await account.batch.get_job_task_counts("work")
    assert (counts.task_counts.completed, counts.task_counts.succeeded) == (1, 1)


async def test_a_task_sees_no_other_variable_of_the_machine(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    await account.add("one", "-c", "import os; print(os.environ.get('SOME_SECRET'))")
    await account.scale(1)
    await account.task_is("one", "completed")
    assert await account.output("one") == "None\n"


async def test_a_file_outside_the_task_folder_is_not_found(account: Account, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    await account.add("one", "-c", "pass")
    with pytest.raises(ResourceNotFoundError):
        await account.output("one", "../../../secret.txt")


async def test_tasks_take_turns_on_one_node(account: Account) -> None:
    for name in ("a", "b", "c"):
        await account.add(name, "-c", "import time; print(time.time())")
    await account.scale(1)
    times = []
    for name in ("a", "b", "c"):
        await account.task_is(name, "completed")
        times.append(float(await account.output(name)))
    assert times == sorted(times)
    (node,) = await account.nodes()
    assert node.total_tasks_run == 3
    assert [task.task_id for task in node.recent_tasks or []] == ["c", "b", "a"]


async def test_a_task_process_killed_from_outside_fails_and_is_retried(account: Account) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    await account.add("one", "-c", program, retries=1)
    await account.scale(1)
    task = await account.task_is("one", "completed")
    info = task.execution_info
    assert info is not None and info.failure_info is not None
    assert (info.exit_code, info.retry_count, info.result) == (137, 1, "failure")
    assert info.failure_info.code == "FailureExitCode"


async def test_a_command_that_does_not_exist_is_a_failure_with_its_reason(account: Account) -> None:
    line = batch_models.BatchTaskCreateOptions(id="one", command_line="/no/such/program --now")
    await account.batch.create_task("work", line)
    await account.scale(1)
    info = (await account.task_is("one", "completed")).execution_info
    assert info is not None and info.failure_info is not None
    assert info.failure_info.code == "CommandProgramNotFound"


async def test_terminate_asks_first_and_kills_after_the_grace(account: Account) -> None:
    then = "print('up', flush=True); time.sleep(60)"
    polite = f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {then}"
    stubborn = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {then}"
    await account.add("polite", "-c", polite)
    await account.add("stubborn", "-c", stubborn)
    await account.scale(2)
    for name, code in (("polite", 7), ("stubborn", 137)):

        async def is_up(name: str = name) -> bool:
            running = (await account.task(name)).state == "running"
            return running and (await account.output(name)) == "up\n"

        await account.task_is(name, "running")
        await account.until(is_up)
        await account.batch.terminate_task("work", name)
        info = (await account.task_is(name, "completed")).execution_info
        assert info is not None and info.failure_info is not None
        assert (info.exit_code, info.failure_info.code) == (code, "TaskEnded")
    with pytest.raises(ResourceExistsError):
        await account.batch.terminate_task("work", "polite")


async def test_removed_nodes_leave_and_their_task_runs_elsewhere(account: Account) -> None:
    await account.add("one", "-c", "import time; time.sleep(60)")
    await account.scale(1)
    first = (await account.task_is("one", "running")).node_info
    assert first is not None and first.node_id is not None
    options = batch_models.BatchNodeRemoveOptions(node_ids=[first.node_id], node_deallocation_option="requeue")
    await (await account.batch.begin_remove_nodes("gpu", options, polling_interval=0)).result()
    assert await account.nodes() == []
    assert (await account.task("one")).state == "active"
    await account.scale(1)
    second = await account.task_is("one", "running")
    assert second.node_info is not None and second.node_info.node_id != first.node_id
    assert second.execution_info is not None and second.execution_info.requeue_count == 1


async def test_a_preempted_node_gives_its_task_back(account: Account) -> None:
    await account.add("one", "-c", "import time; time.sleep(60)")
    await account.scale(1)
    node = (await account.task_is("one", "running")).node_info
    assert node is not None and node.node_id is not None
    account.server.state.preempt("gpu", node.node_id)
    account.server._step()

    async def again() -> bool:
        info = (await account.task("one")).execution_info
        return info is not None and info.requeue_count == 1 and (await account.task("one")).state == "running"

    await account.until(again)


async def test_a_deleted_task_ends_its_process_and_its_folder(account: Account, tmp_path: Path) -> None:
    await account.add("one", "-c", "import time; time.sleep(60)")
    await account.scale(1)
    await account.task_is("one", "running")
    await account.batch.delete_task("work", "one")

    async def folder_gone() -> bool:
        return not (tmp_path / "tasks" / "work" / "one").exists()

    await account.until(folder_gone)
    with pytest.raises(ResourceNotFoundError):
        await account.task("one")


async def test_a_job_is_terminated_and_deleted_through_its_pollers(account: Account) -> None:
    await account.add("one", "-c", "import time; time.sleep(60)")
    await account.scale(1)
    await account.task_is("one", "running")
    # Without options the SDK fails on its own missing content type, and it does not export them.
    why = BatchJobTerminateOptions(termination_reason="test")
    await (await account.batch.begin_terminate_job("work", why, polling_interval=0)).result()
    execution = (await account.batch.get_job("work")).execution_info
    assert execution is not None and execution.termination_reason == "test"
    assert (await account.task("one")).state == "completed"
    await (await account.batch.begin_delete_job("work", polling_interval=0)).result()
    with pytest.raises(ResourceNotFoundError):
        await account.batch.get_job("work")


async def test_lists_are_filtered_and_paged(account: Account) -> None:
    names = [f"t{number}" for number in range(7)]
    results = await account.batch.create_tasks(
        "work", [batch_models.BatchTaskCreateOptions(id=name, command_line="true") for name in [*names, "t0"]]
    )
    assert [entry.status for entry in (results.result_values or [])].count("success") == 7
    pages = account.batch.list_tasks("work", max_results=3, filter="state eq 'active'").by_page()
    found = [[task.id async for task in page] async for page in pages]
    assert [len(page) for page in found] == [3, 3, 1]
    assert sorted(name for page in found for name in page) == names
    assert [task async for task in account.batch.list_tasks("work", filter="state eq 'completed'")] == []


async def test_a_pool_is_deleted_through_its_poller(account: Account) -> None:
    await account.scale(1)
    await account.steady_with(1)
    poller = await account.arm.pool.begin_delete(GROUP, ACCOUNT, "gpu", polling_interval=0)
    await poller.result()
    with pytest.raises(ResourceNotFoundError):
        await account.pool()


async def test_an_unknown_call_says_so(account: Account) -> None:
    with pytest.raises(HttpResponseError) as refused:
        await account.batch.get_job_schedule("nightly")
    assert refused.value.status_code == 501


# --- the command, and the synchronous clients


def alive(pid: int) -> bool:
    """True while the process lives; one that only waits to be reaped counts as gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    arguments = ["--port", "0", "--boot-seconds", "0.1", "--grace-seconds", "0.3", "--work-dir", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fusebus.localbatch", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    word, url = process.stdout.readline().split()
    assert word == "ready"
    yield process, url
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_no_task_outlives_the_command(command: tuple[subprocess.Popen[str], str], sent: signal.Signals) -> None:
    process, url = command
    arm = SyncBatchManagementClient(NoToken(), SUBSCRIPTION, base_url=url, authentication_policy=SansIOHTTPPolicy())
    with arm, SyncBatchClient(url, KEY) as batch:
        arm.pool.create(GROUP, ACCOUNT, "gpu", pool_of(dedicated=1))
        pool_info = batch_models.BatchPoolInfo(pool_id="gpu")
        batch.create_job(batch_models.BatchJobCreateOptions(id="work", pool_info=pool_info))
        line = f"{sys.executable} -c 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'"
        batch.create_task("work", batch_models.BatchTaskCreateOptions(id="one", command_line=line))
        deadline, output = time.monotonic() + DEADLINE_SECONDS, b""
        while not output.endswith(b"\n") and time.monotonic() < deadline:
            time.sleep(0.05)
            if batch.get_task("work", "one").state == "running":
                try:
                    output = b"".join(batch.download_task_file("work", "one", "stdout.txt"))
                except ResourceNotFoundError:  # the process is still being started
                    continue
    task_pid = int(output)
    os.kill(process.pid, sent)
    assert process.wait(DEADLINE_SECONDS) == (0 if sent is signal.SIGTERM else -sent)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while alive(task_pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(task_pid)


def test_the_help_has_an_example_and_the_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fusebus.localbatch", "--help"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "example:" in done.stdout and "exit codes:" in done.stdout


def test_a_missing_folder_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, "-m", "fusebus.localbatch"], check=False, capture_output=True, text=True)
    assert (done.returncode, "--work-dir" in done.stderr) == (2, True)
