"""A local Batch with clients of both SDKs, synchronous or asynchronous behind one `call`."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import reduce
from pathlib import Path
from typing import Any, Protocol

import pytest
from azure.batch import BatchClient as SyncBatchClient
from azure.batch import models as batch_models
from azure.batch.aio import BatchClient
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.batch import BatchManagementClient as SyncBatchManagementClient
from azure.mgmt.batch import models as arm_models
from azure.mgmt.batch.aio import BatchManagementClient

from fusebus.localbatch import AccountLimits, LocalBatch, LocalBatchOptions

GROUP, NAME, SUBSCRIPTION = "local", "local", "00000000-0000-0000-0000-000000000000"
KEY = AzureNamedKeyCredential("local", "bG9jYWw=")
DEADLINE_SECONDS = 60.0
FAST = {
    "boot_seconds": 0.1,
    "leave_seconds": 0.02,
    "reboot_seconds": 0.05,
    "stop_seconds": 0.05,
    "preempted_seconds": 0.1,
    "terminate_grace_seconds": 0.5,
    "minimum_resize_timeout_seconds": 0.0,
}


class NoToken:
    """ARM insists on a credential; over plain http none is sent."""

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)


class Clients:
    """`call("arm.pool.get", ...)` and `call("data.get_task", ...)`: the same for both ways of both SDKs."""

    def __init__(self, url: str, *, sync: bool, **options: Any) -> None:
        arm, data = (SyncBatchManagementClient, SyncBatchClient) if sync else (BatchManagementClient, BatchClient)
        self.sync = sync
        policy = SansIOHTTPPolicy()
        self.arm = arm(NoToken(), SUBSCRIPTION, base_url=url, authentication_policy=policy, **options)
        self.data = data(url, KEY, **options)

    async def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """The result: a list of what a pager yields, the end of a poller, the bytes of a download."""
        function = reduce(getattr, name.split("."), self)
        if name.startswith(("arm.pool.", "arm.batch_account.get")):
            arguments = (GROUP, NAME, *arguments)
        if self.sync:
            return await asyncio.to_thread(lambda: _finished(function(*arguments, **named)))
        return await _finished_soon(function(*arguments, **named))


def _finished(result: Any) -> Any:
    if hasattr(result, "by_page"):
        return list(result)
    if hasattr(result, "polling_method"):
        return result.result()
    return b"".join(result) if isinstance(result, Iterator) else result


async def _finished_soon(result: Any) -> Any:
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "by_page"):
        return [item async for item in result]
    if hasattr(result, "polling_method"):
        return await result.result()
    return b"".join([chunk async for chunk in result]) if isinstance(result, AsyncIterator) else result


class Place:
    """A server with its clients, and short ways to say what most tests need."""

    def __init__(self, server: LocalBatch, clients: Clients) -> None:
        self.server, self.clients = server, clients
        self.call = clients.call

    async def make_pool(self, pool_id: str = "gpu", *, spot: int = 0, dedicated: int = 0, **properties: Any) -> Any:
        fixed = arm_models.FixedScaleSettings(target_low_priority_nodes=spot, target_dedicated_nodes=dedicated)
        facts = {"vm_size": "Standard_NC4as_T4_v3", **properties}
        scale = arm_models.ScaleSettings(fixed_scale=fixed)
        pool = arm_models.Pool(properties=arm_models.PoolProperties(scale_settings=scale, **facts))
        return await self.call("arm.pool.create", pool_id, pool)

    async def scale(
        self, spot: int = 0, dedicated: int = 0, *, guard: dict[str, Any] | None = None, **more: Any
    ) -> Any:
        fixed = arm_models.FixedScaleSettings(target_low_priority_nodes=spot, target_dedicated_nodes=dedicated, **more)
        scale = arm_models.ScaleSettings(fixed_scale=fixed)
        pool = arm_models.Pool(properties=arm_models.PoolProperties(scale_settings=scale))
        return await self.call("arm.pool.update", "gpu", pool, **(guard or {}))

    async def make_job(self, job_id: str = "work", pool_id: str = "gpu", **more: Any) -> None:
        pool = batch_models.BatchPoolInfo(pool_id=pool_id)
        await self.call("data.create_job", batch_models.BatchJobCreateOptions(id=job_id, pool_info=pool, **more))

    async def add(self, task_id: str, command: str, **more: Any) -> None:
        task = batch_models.BatchTaskCreateOptions(id=task_id, command_line=command, **more)
        await self.call("data.create_task", "work", task)

    async def properties(self) -> Any:
        return (await self.call("arm.pool.get", "gpu")).properties

    async def errors(self) -> list[str]:
        """The codes of the last resize's errors."""
        status = (await self.properties()).resize_operation_status
        return [error.code for error in (status.errors or [])]

    async def nodes(self) -> list[Any]:
        return await self.call("data.list_nodes", "gpu")

    async def steady(self) -> Any:
        async def holds() -> bool:
            return (await self.properties()).allocation_state == "Steady"

        await self.until(holds)
        return await self.properties()

    async def nodes_are(self, *states: str) -> list[Any]:
        """Wait until the pool's nodes are in these states, in any order."""

        async def holds() -> bool:
            return sorted(node.state.value for node in await self.nodes()) == sorted(states)

        await self.until(holds)
        return await self.nodes()

    async def task_is(self, task_id: str, state: str) -> Any:
        async def holds() -> bool:
            return (await self.call("data.get_task", "work", task_id)).state == state

        await self.until(holds)
        return await self.call("data.get_task", "work", task_id)

    async def output(self, task_id: str, name: str = "stdout.txt", **more: Any) -> str:
        content: bytes = await self.call("data.download_task_file", "work", task_id, name, **more)
        return content.decode()

    @staticmethod
    async def until(holds: Callable[[], Awaitable[bool]]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, "did not happen in time"
            await asyncio.sleep(0.02)


class Starting(Protocol):
    async def __call__(self, *, sync: bool = False, client: dict[str, Any] | None = None, **limits: Any) -> Place: ...


@pytest.fixture
async def start_batch(tmp_path: Path) -> AsyncIterator[Starting]:
    """Starts a server and its clients; all is closed in the end."""
    async with AsyncExitStack() as stack:

        async def start(*, sync: bool = False, client: dict[str, Any] | None = None, **limits: Any) -> Place:
            options = LocalBatchOptions(work_dir=tmp_path / "batch", limits=AccountLimits(**{**FAST, **limits}))
            server = await stack.enter_async_context(LocalBatch(options))
            clients = Clients(server.url, sync=sync, **(client or {}))
            for one in (clients.arm, clients.data):
                if sync:
                    stack.enter_context(one)
                else:
                    await stack.enter_async_context(one)
            return Place(server, clients)

        yield start


@pytest.fixture(params=["sync", "aio"])
async def place(request: pytest.FixtureRequest, start_batch: Starting) -> Place:
    """A server with the pool `gpu`, without nodes, and the job `work`; through both ways of the SDKs."""
    return await _furnished(await start_batch(sync=request.param == "sync"))


@pytest.fixture
async def aio_place(start_batch: Starting) -> Place:
    """The same for what does not depend on the way of the SDK."""
    return await _furnished(await start_batch())


async def _furnished(place: Place) -> Place:
    await place.make_pool()
    await place.make_job()
    return place
