"""Reads and changes one Batch pool (azure-mgmt-batch) and its nodes and worker tasks (azure-batch)."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from azure.batch import models as batch_models
from azure.batch.aio import BatchClient
from azure.core import MatchConditions
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.batch import models as arm_models
from azure.mgmt.batch.aio import BatchManagementClient

from fusebus.dispatcher.policy import AddWorkers, Fleet, RemoveNodes, Resize, Step, StopWaiting
from fusebus.dispatcher.settings import DispatcherSettings

REQUEST_RETRIES = 2  # of the SDK, within one look; the next look tries again anyway
MOST_DELETED_AT_ONCE = 20  # old tasks per look, so that a look stays short
GONE_OR_PASSED = (404, 409)  # a task that ended meanwhile needs no ending

_STARTING = {"creating", "starting", "waitingforstarttask", "rebooting", "reimaging", "upgradingos"}
_BROKEN = {"unusable", "starttaskfailed"}

LOCAL_KEY = AzureNamedKeyCredential("local", "bG9jYWw=")  # the local Batch takes any


class FleetError(Exception):
    """Batch could not be read or refused; the next look tries again."""


class BatchFleet:
    """One pool with one job of finite worker tasks. Every method raises FleetError and nothing of azure's."""

    def __init__(self, settings: DispatcherSettings) -> None:
        self._settings = settings
        self._place = (settings.resource_group, settings.account)
        self._etag: str | None = None
        self._quota: tuple[float, int | None] | None = None
        self._closing = contextlib.AsyncExitStack()
        if settings.batch_url:
            self._arm, self._data = _local_clients(settings)
        else:
            credential = DefaultAzureCredential()
            self._closing.push_async_callback(credential.close)
            options: dict[str, Any] = {"retry_total": REQUEST_RETRIES}
            self._arm = BatchManagementClient(credential, settings.subscription_id, **options)
            self._data = BatchClient(settings.batch_endpoint, credential, **options)

    async def __aenter__(self) -> Self:
        await self._closing.enter_async_context(self._arm)
        await self._closing.enter_async_context(self._data)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def ensure(self) -> None:
        """Make the job, and on a local Batch the pool, if they are missing."""
        async with self._translated():
            if self._settings.batch_url:
                await self._ensure_pool()
            try:
                await self._data.get_job(self._settings.job)
            except ResourceNotFoundError:
                pool = batch_models.BatchPoolInfo(pool_id=self._settings.pool)
                await self._data.create_job(batch_models.BatchJobCreateOptions(id=self._settings.job, pool_info=pool))

    async def read(self, now: datetime) -> Fleet:
        """Pool, nodes and tasks as they are; ended tasks that are old are deleted on the way."""
        async with self._translated():
            pool, nodes, tasks = await asyncio.gather(
                self._arm.pool.get(*self._place, self._settings.pool), self._nodes(), self._tasks()
            )
            await self._delete_old(tasks, now)
        self._etag = pool.etag
        since = now - timedelta(seconds=self._settings.failure_window_seconds)
        return fleet_of(pool.properties or arm_models.PoolProperties(), nodes, tasks, since)

    async def quota_nodes(self) -> int | None:
        """Nodes that the account may have; None where it can't be read. Believed for `quota_seconds`."""
        if self._quota is None or time.monotonic() - self._quota[0] > self._settings.quota_seconds:
            self._quota = (time.monotonic(), await self._read_quota())
        return self._quota[1]

    async def carry_out(self, step: Step) -> None:
        """Do one step of a plan."""
        async with self._translated():
            match step:
                case Resize(nodes):
                    await self._resize(nodes)
                case RemoveNodes(node_ids):
                    # Should one get a task in this moment, it finishes: a busy node is never taken away.
                    options = batch_models.BatchNodeRemoveOptions(
                        node_ids=list(node_ids),
                        node_deallocation_option=batch_models.BatchNodeDeallocationOption.TASK_COMPLETION,
                    )
                    await self._data.begin_remove_nodes(self._settings.pool, options)
                case AddWorkers(count):
                    for _ in range(count):
                        await self._data.create_task(self._settings.job, self._worker())
                case StopWaiting(task_ids):
                    for task_id in task_ids:
                        await self._stop(task_id)

    async def _resize(self, nodes: int) -> None:
        scale = arm_models.FixedScaleSettings(
            target_low_priority_nodes=nodes if self._settings.spot else 0,
            target_dedicated_nodes=0 if self._settings.spot else nodes,
        )
        properties = arm_models.PoolProperties(scale_settings=arm_models.ScaleSettings(fixed_scale=scale))
        guard: dict[str, Any] = {}
        if self._etag:
            guard = {"etag": self._etag, "match_condition": MatchConditions.IfNotModified}
        await self._arm.pool.update(*self._place, self._settings.pool, arm_models.Pool(properties=properties), **guard)

    def _worker(self) -> batch_models.BatchTaskCreateOptions:
        environment = [
            batch_models.EnvironmentSetting(name=name, value=value)
            for name, value in sorted(self._settings.worker_environment.items())
        ]
        return batch_models.BatchTaskCreateOptions(
            id=f"worker-{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
            command_line=self._settings.worker_command,
            environment_settings=environment,
            # A failed worker is not run again by Batch: the next look sees whether one is still wanted.
            constraints=batch_models.BatchTaskConstraints(max_task_retry_count=0),
        )

    async def _stop(self, task_id: str) -> None:
        """Terminated, not deleted: had it just begun, it would still get SIGTERM and give its work back."""
        try:
            await self._data.terminate_task(self._settings.job, task_id)
        except HttpResponseError as error:
            if error.status_code not in GONE_OR_PASSED:
                raise

    async def _ensure_pool(self) -> None:
        try:
            await self._arm.pool.get(*self._place, self._settings.pool)
        except ResourceNotFoundError:
            scale = arm_models.FixedScaleSettings(target_dedicated_nodes=0, target_low_priority_nodes=0)
            properties = arm_models.PoolProperties(
                vm_size=self._settings.vm_size, scale_settings=arm_models.ScaleSettings(fixed_scale=scale)
            )
            await self._arm.pool.create(*self._place, self._settings.pool, arm_models.Pool(properties=properties))

    async def _nodes(self) -> list[tuple[str, str]]:
        """Id and state."""
        listing = self._data.list_nodes(self._settings.pool, select=["id", "state"])
        return [(node.id, str(getattr(node.state, "value", node.state))) async for node in listing]

    async def _tasks(self) -> list[batch_models.BatchTask]:
        select = ["id", "state", "stateTransitionTime", "executionInfo"]
        return [task async for task in self._data.list_tasks(self._settings.job, select=select)]

    async def _delete_old(self, tasks: list[batch_models.BatchTask], now: datetime) -> None:
        before = now - timedelta(seconds=self._settings.task_retention_seconds)
        old = [task for task in tasks if _state(task) == "completed" and task.state_transition_time < before]
        for task in old[:MOST_DELETED_AT_ONCE]:
            with contextlib.suppress(ResourceNotFoundError):
                await self._data.delete_task(self._settings.job, task.id)

    async def _read_quota(self) -> int | None:
        try:
            async with self._translated():
                account = await self._arm.batch_account.get(*self._place)
        except FleetError:
            return None
        facts = account.properties
        cores = (
            None
            if facts is None
            else facts.low_priority_core_quota
            if self._settings.spot
            else facts.dedicated_core_quota
        )
        return None if cores is None else cores // self._settings.cores_per_node

    @contextlib.asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                yield
        except AzureError as error:
            raise FleetError(str(error.message)) from error
        except TimeoutError as error:
            raise FleetError(f"Batch did not answer within {self._settings.request_seconds:g} s") from error


def fleet_of(
    pool: arm_models.PoolProperties, nodes: list[tuple[str, str]], tasks: list[batch_models.BatchTask], since: datetime
) -> Fleet:
    """What the SDKs returned, as the policy sees it; failures count from `since` on."""
    by_state: dict[str, list[str]] = {}
    for node_id, state in nodes:
        by_state.setdefault(state.lower(), []).append(node_id)
    known = {"idle", "running", "leavingpool", "preempted"} | _STARTING | _BROKEN
    scale = pool.scale_settings.fixed_scale if pool.scale_settings else None
    steady = str(getattr(pool.allocation_state, "value", pool.allocation_state)).lower() == "steady"
    status = pool.resize_operation_status
    errors = (status.errors or []) if status is not None and steady else []
    return Fleet(
        steady=steady,
        target=(scale.target_low_priority_nodes or 0) + (scale.target_dedicated_nodes or 0) if scale else 0,
        starting=sum(len(by_state.get(state, ())) for state in _STARTING),
        idle=tuple(by_state.get("idle", ())),
        busy=len(by_state.get("running", ())),
        broken=tuple(node for state in sorted(_BROKEN) for node in by_state.get(state, ())),
        preempted=tuple(by_state.get("preempted", ())),
        other=sum(len(found) for state, found in by_state.items() if state not in known),
        leaving=len(by_state.get("leavingpool", ())),
        waiting=tuple(task.id for task in tasks if _state(task) == "active"),
        running=sum(_state(task) in ("running", "preparing") for task in tasks),
        failures=sum(_failed(task) and task.state_transition_time >= since for task in tasks),
        resize_failed_at=status.start_time if errors and status is not None else None,
        resize_problem="; ".join(f"{error.code}: {error.message}" for error in errors),
    )


def _state(task: batch_models.BatchTask) -> str:
    return str(getattr(task.state, "value", task.state)).lower()


def _failed(task: batch_models.BatchTask) -> bool:
    """Ended badly by itself; one that was terminated before its start was our own wish."""
    info = task.execution_info
    if _state(task) != "completed" or info is None or info.failure_info is None:
        return False
    return info.failure_info.code != "TaskEnded"


class _NoToken:
    """ARM's client insists on a credential; over plain http none may be sent."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""


def _local_clients(settings: DispatcherSettings) -> tuple[BatchManagementClient, BatchClient]:
    arm = BatchManagementClient(
        _NoToken(),
        settings.subscription_id or "00000000-0000-0000-0000-000000000000",
        base_url=settings.batch_url,
        authentication_policy=SansIOHTTPPolicy[Any, Any](),
        retry_total=REQUEST_RETRIES,
    )
    return arm, BatchClient(settings.batch_url, LOCAL_KEY, retry_total=REQUEST_RETRIES)
