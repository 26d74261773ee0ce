"""Reads and changes the pools of one Batch account (azure-mgmt-batch), their nodes and worker tasks (azure-batch)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from azure.batch import models as batch_models
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.mgmt.batch import models as arm_models

from fusebus.dispatcher.adapters import reading
from fusebus.dispatcher.adapters.clients import open_clients
from fusebus.dispatcher.adapters.files import tail_of
from fusebus.dispatcher.adapters.translation import Plane, code_of
from fusebus.dispatcher.errors import FleetError, PoolChanged
from fusebus.dispatcher.quota import Quota
from fusebus.dispatcher.seen import PoolSeen, WorkerState
from fusebus.dispatcher.settings import BatchAccount, DispatcherSettings, PoolSettings
from fusebus.dispatcher.steps import AddWorkers, DrainWorkers, RemoveNodes, Resize, Step, StopWaiting

MOST_DELETED_AT_ONCE = 20  # old tasks per look, so that a look stays short
MOST_ADDED_AT_ONCE = 100  # Batch's limit of one collection
MOST_REMEMBERED = 10_000  # tasks that were told to end
GONE_OR_PASSED = (404, 409)  # a task that ended meanwhile needs no ending
RESIZE_TIMEOUT = timedelta(minutes=5)  # the least that Batch takes, and what policy and simulator plan with
NODE_LOG = "startup/stderr.txt"  # of the start task, in Batch's layout of a node
WORKER_LOG = "stderr.txt"


class BatchFleet:
    """The pools of one account, each with one job of finite worker tasks; without an account, of the first.

    Every method raises FleetError and nothing of azure's.
    """

    def __init__(self, settings: DispatcherSettings, account: BatchAccount | None = None) -> None:
        self._settings = settings
        self._account = account or settings.all_accounts[0]
        self._pools = {pool.name: pool for pool in settings.all_pools if pool.batch == self._account.name}
        self._place = (self._account.resource_group, self._account.account)
        self._ensured: set[str] = set()
        self._resized_at: dict[str, datetime] = {}
        self._stopped: dict[tuple[str, str], None] = {}  # pool and task, the latest last
        self._closing = contextlib.AsyncExitStack()
        self._arm, self._data = open_clients(self._account, self._closing)
        self._management = Plane(f"Batch management of {self._account.name}", settings.request_seconds)
        self._nodes = Plane(f"Batch of {self._account.name}", settings.request_seconds)

    async def __aenter__(self) -> Self:
        await self._closing.enter_async_context(self._arm)
        await self._closing.enter_async_context(self._data)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()

    async def ensure(self) -> None:
        """Make each pool's job, and on a local Batch the pools, if they are missing."""
        for name in self._pools:
            await self._ensure(name)

    async def read(self, name: str) -> PoolSeen:
        """Pool, nodes and tasks as they are; a job that was deleted meanwhile is made anew, and what `ensure` could
        not make yet is made now."""
        if not self._settings.shadow:
            await self._ensure(name)
        async with self._management.requests():
            pool = await self._arm.pool.get(*self._place, name)
        async with self._nodes.requests():
            version, nodes, tasks = await asyncio.gather(
                self._data.get_pool(name, select=["id", "eTag"]), self._list_nodes(name), self._list_tasks(name)
            )
        return reading.pool_seen(name, pool, version.etag or "", nodes, tasks, self._resized_at.get(name))

    async def claim(self, seen: PoolSeen, term: int) -> None:
        """Leave our term on the pool: what an earlier leader has still on the way is refused from now on."""
        async with self._management.requests():
            pool = await self._arm.pool.get(*self._place, seen.name)
            facts = pool.properties or arm_models.PoolProperties()
            if reading.term_of(facts) > term:
                raise PoolChanged(f"pool {seen.name} was taken over in term {reading.term_of(facts)}")
            change = arm_models.PoolProperties(metadata=reading.with_term(facts, term))
            await self._update(seen.name, change, pool.etag or "")

    async def carry_out(self, seen: PoolSeen, step: Step, author: str) -> None:
        """Do one step on what was seen. Raises PoolChanged where somebody else was there meanwhile.

        `author` is written onto what is made, so that a repeat knows its own success.
        """
        pool = self._pools[seen.name]
        match step:
            case Resize():
                async with self._management.requests():
                    await self._resize(seen, step)
            case RemoveNodes(node_ids):
                async with self._nodes.requests():
                    await self._remove(seen, node_ids)
            case AddWorkers(count):
                async with self._nodes.requests():
                    await self._add_workers(pool, seen, count, author)
            case StopWaiting(task_ids) | DrainWorkers(task_ids):
                async with self._nodes.requests():
                    for task_id in task_ids:
                        await self._stop(pool, seen, task_id)

    async def tidy(self, seen: PoolSeen, now: datetime) -> None:
        """Delete ended tasks that are old, but never the newest: its name says which number comes next."""
        before = now - timedelta(seconds=self._settings.task_retention_seconds)
        old = [
            worker
            for worker in seen.workers[:-1]
            if worker.state is WorkerState.ENDED and worker.since is not None and worker.since < before
        ]
        async with self._nodes.requests():
            for worker in old[:MOST_DELETED_AT_ONCE]:
                with contextlib.suppress(ResourceNotFoundError, ResourceModifiedError):
                    await self._data.delete_task(self._pools[seen.name].job_id, worker.id, **_guard(worker.version))

    async def quota(self) -> Quota:
        """What the account may have, in cores."""
        async with self._management.requests():
            account = await self._arm.batch_account.get(*self._place)
        facts = account.properties
        if facts is None:
            return Quota()
        per_family: Mapping[str, int] | None = None
        if facts.dedicated_core_quota_per_vm_family_enforced:
            lines = facts.dedicated_core_quota_per_vm_family or ()
            per_family = {line.name or "": line.core_quota or 0 for line in lines}
        return Quota(
            region=account.location or "",
            dedicated=facts.dedicated_core_quota,
            spot=facts.low_priority_core_quota,
            per_family=per_family,
        )

    async def node_log(self, name: str, node_id: str) -> str:
        """The end of what a node's start task said; empty where it can't be read."""
        with contextlib.suppress(FleetError):
            async with self._nodes.requests():
                return await tail_of(
                    lambda: self._data.get_node_file_properties(name, node_id, NODE_LOG),
                    lambda part: self._data.download_node_file(name, node_id, NODE_LOG, ocp_range=part),
                )
        return ""

    async def worker_log(self, name: str, task_id: str) -> str:
        """The end of what a worker said; empty where it can't be read."""
        job = self._pools[name].job_id
        with contextlib.suppress(FleetError):
            async with self._nodes.requests():
                return await tail_of(
                    lambda: self._data.get_task_file_properties(job, task_id, WORKER_LOG),
                    lambda part: self._data.download_task_file(job, task_id, WORKER_LOG, ocp_range=part),
                )
        return ""

    async def _resize(self, seen: PoolSeen, step: Resize) -> None:
        scale = arm_models.FixedScaleSettings(
            target_low_priority_nodes=step.spot,
            target_dedicated_nodes=step.dedicated,
            resize_timeout=RESIZE_TIMEOUT,
        )
        change = arm_models.PoolProperties(scale_settings=arm_models.ScaleSettings(fixed_scale=scale))
        after = await self._update(seen.name, change, seen.pool_version)
        status = after.properties.resize_operation_status if after.properties else None
        if status is not None and status.start_time is not None:
            self._resized_at[seen.name] = status.start_time

    async def _update(self, name: str, change: arm_models.PoolProperties, version: str) -> arm_models.Pool:
        return await self._arm.pool.update(
            *self._place,
            name,
            arm_models.Pool(properties=change),
            **_guard(version),
        )

    async def _remove(self, seen: PoolSeen, node_ids: tuple[str, ...]) -> None:
        # Should one get a task in this moment, it finishes: a busy node is never taken away.
        options = batch_models.BatchNodeRemoveOptions(
            node_ids=list(node_ids),
            node_deallocation_option=batch_models.BatchNodeDeallocationOption.TASK_COMPLETION,
        )
        try:
            await self._data.begin_remove_nodes(seen.name, options, **_guard(seen.node_version))
        except ResourceNotFoundError as error:
            raise PoolChanged(f"pool {seen.name}: a node was gone before it could be removed") from error

    async def _add_workers(self, pool: PoolSettings, seen: PoolSeen, count: int, author: str) -> None:
        """Names count up from the last one seen: of two dispatchers that saw the same, one fails.

        A task that could not be made is missed by the next look.
        """
        first = next_number(seen)
        numbers = list(range(first, first + count))
        for start in range(0, count, MOST_ADDED_AT_ONCE):
            tasks = [self._worker(pool, number, author) for number in numbers[start : start + MOST_ADDED_AT_ONCE]]
            answer = await self._data.create_task_collection(
                pool.job_id, batch_models.BatchTaskGroup(task_values=tasks)
            )
            await self._judge(pool, answer.result_values or [], author)

    async def _judge(self, pool: PoolSettings, results: list[batch_models.BatchTaskCreateResult], author: str) -> None:
        """Each task of a collection stands or falls by itself."""
        failed = [result for result in results if result.error is not None]
        for result in failed:
            if result.error is not None and result.error.code == "TaskExists":
                there = await self._data.get_task(pool.job_id, result.task_id, select=["id", "displayName"])
                if there.display_name != author:
                    raise PoolChanged(f"job {pool.job_id}: {result.task_id} was made by {there.display_name}")
        others = [result.error for result in failed if result.error is not None and result.error.code != "TaskExists"]
        if others:
            message = others[0].message.value if others[0].message else ""
            text = f"{len(others)} of {len(results)} workers could not be queued: {others[0].code}: {message}"
            raise FleetError(text)

    def _worker(self, pool: PoolSettings, number: int, author: str) -> batch_models.BatchTaskCreateOptions:
        environment = [
            batch_models.EnvironmentSetting(name=name, value=value)
            for name, value in sorted(pool.worker_environment.items())
        ]
        return batch_models.BatchTaskCreateOptions(
            id=f"worker-{number:09d}",
            display_name=author,
            command_line=pool.worker_command,
            environment_settings=environment,
            # A failed worker is not run again by Batch: the next look sees whether one is still wanted.
            constraints=batch_models.BatchTaskConstraints(max_task_retry_count=0),
        )

    async def _stop(self, pool: PoolSettings, seen: PoolSeen, task_id: str) -> None:
        """Terminated, not deleted: it gets SIGTERM, gives its work back and ends. Once: ending may take some looks.

        One that has changed since it was seen (it waits no more, say) is left to the next look.
        """
        if (pool.name, task_id) in self._stopped:
            return
        version = next((worker.version for worker in seen.workers if worker.id == task_id), "")
        try:
            await self._data.terminate_task(pool.job_id, task_id, **_guard(version))
        except ResourceModifiedError:
            return
        except HttpResponseError as error:
            if error.status_code not in GONE_OR_PASSED:
                raise
        self._stopped[pool.name, task_id] = None
        while len(self._stopped) > MOST_REMEMBERED:
            self._stopped.pop(next(iter(self._stopped)))

    async def _ensure(self, name: str) -> None:
        """Once in a life: a pool's job, and on a local Batch the pool."""
        pool = self._pools[name]
        if name in self._ensured:
            return
        if self._account.batch_url:
            await self._ensure_pool(pool)
        async with self._nodes.requests():
            try:
                await self._data.get_job(pool.job_id)
            except ResourceNotFoundError:
                await self._make_job(pool)
        self._ensured.add(name)

    async def _ensure_pool(self, pool: PoolSettings) -> None:
        async with self._management.requests():
            try:
                await self._arm.pool.get(*self._place, pool.name)
            except ResourceNotFoundError:
                scale = arm_models.FixedScaleSettings(target_dedicated_nodes=0, target_low_priority_nodes=0)
                properties = arm_models.PoolProperties(
                    vm_size=pool.vm_size, scale_settings=arm_models.ScaleSettings(fixed_scale=scale)
                )
                await self._arm.pool.create(*self._place, pool.name, arm_models.Pool(properties=properties))

    async def _list_nodes(self, name: str) -> list[batch_models.BatchNode]:
        return [node async for node in self._data.list_nodes(name, select=reading.NODE_FIELDS)]

    async def _list_tasks(self, name: str) -> list[batch_models.BatchTask]:
        listing = self._data.list_tasks(self._pools[name].job_id, select=reading.TASK_FIELDS)
        try:
            return [task async for task in listing]
        except ResourceNotFoundError as error:
            if code_of(error) != "JobNotFound" or self._settings.shadow:
                raise
        await self._make_job(self._pools[name])
        return []

    async def _make_job(self, pool: PoolSettings) -> None:
        info = batch_models.BatchPoolInfo(pool_id=pool.name)
        await self._data.create_job(batch_models.BatchJobCreateOptions(id=pool.job_id, pool_info=info))
        # Its tasks are numbered from 1 again: nobody told those to end.
        self._stopped = {told: None for told in self._stopped if told[0] != pool.name}


def _guard(version: str) -> dict[str, Any]:
    """For a request that shall be refused (412) where somebody else was there since."""
    return {"etag": version, "match_condition": MatchConditions.IfNotModified}


def next_number(seen: PoolSeen) -> int:
    """One more than the highest in any worker's name."""
    numbers = [worker.id.rpartition("-")[2] for worker in seen.workers]
    return max((int(number) for number in numbers if number.isdecimal()), default=0) + 1
