"""Makes one of several dispatchers the leader: a blob lease, on the store's clock, with a term that only grows.

Three guards, each for what the one before leaves open: a lease that only one can hold; our own clock, which gives up
leadership before the lease can have run out; and the term, written onto each pool under its ETag, so that a write of
an earlier leader that was held up on the way is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.identity.aio import DefaultAzureCredential
from azure.storage.blob.aio import BlobClient, BlobLeaseClient, BlobServiceClient

from fusebus.blobs import BlobSettings
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import SettingsError

SAFETY_SHARE = 0.2  # of the lease, by which leadership ends here before it can end in the store
TENDS_PER_LEASE = 4  # so that two renewals may fail
TAKEN = (409, 412)  # the lease is somebody else's
NAMESPACE = uuid.UUID("6f1d6f9a-6f0e-4d57-9d57-4f7573656275")  # of lease ids made from instance names

log = logging.getLogger(__name__)


class Leadership(msgspec.Struct, frozen=True, kw_only=True):
    """The blob's content: who leads, in which term."""

    term: int
    leader: str
    nonce: str = ""
    """Of the process: tells a copy with the same name from ourselves."""


NOBODY = Leadership(term=0, leader="")


def steady_clock() -> float:
    """Seconds that no one can set back; where the system allows, those in which it slept count too."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class BlobLeader:
    """`async with`: tries to lead from then on, and gives the lease back at the end."""

    def __init__(
        self, settings: DispatcherSettings, blobs: BlobSettings, clock: Callable[[], float] = steady_clock
    ) -> None:
        self._settings, self._blobs, self._clock = settings, blobs, clock
        self._nonce = uuid.uuid4().hex
        self.name = settings.instance or f"{socket.gethostname()}-{os.getpid()}"
        # With a lasting name a restarted copy gets its own lease back at once, instead of waiting for its end.
        self._lease_id = str(uuid.uuid5(NAMESPACE, settings.instance)) if settings.instance else str(uuid.uuid4())
        self._term: int | None = None
        self._valid_until = 0.0
        self._stumbles = 0  # turns that ended in an error nobody foresaw
        self.seen: Leadership | None = None
        self._lease: BlobLeaseClient | None = None
        self._left: BlobLeaseClient | None = None  # given up, and to be given back
        self._met = 0  # the latest term seen anywhere: a blob that was made anew begins at 0
        self._exits = contextlib.AsyncExitStack()
        self._service: BlobServiceClient | None = None
        self._blob: BlobClient | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._service = await self._exits.enter_async_context(await self._connect())
        self._blob = self._service.get_blob_client(self._settings.leader_container, self._settings.leader_blob)
        await self.tend()
        self._task = asyncio.create_task(self._keep_tending(), name="leadership")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self.term() is not None and self._lease is not None:
            with contextlib.suppress(AzureError, TimeoutError):
                async with asyncio.timeout(self._request_seconds):
                    await self._lease.release()
        self._term = None
        await self._exits.aclose()

    def term(self) -> int | None:
        """The term in which we lead; None where we don't, or can't be sure any more."""
        return self._term if self._clock() < self._valid_until else None

    def step_down(self, met: int) -> None:
        """Somebody's later term was met: lead no more until the lease is won anew, in a term after that one."""
        log.warning("leadership is given up: term %d was met, ours is %s", met, self._term)
        self._met = max(self._met, met)
        self._left = self._lease or self._left
        self._term, self._lease, self._lease_id = None, None, str(uuid.uuid4())

    async def tend(self) -> None:
        """Renew the lease, or try to get it; what fails is tried again a fraction of the lease later."""
        try:
            async with asyncio.timeout(self._request_seconds):
                if self._left is not None:
                    await self._give_back(self._left)
                await (self._acquire() if self._lease is None else self._renew(self._lease))
        except (AzureError, TimeoutError) as error:
            log.warning("the lease can't be reached: %s", str(error).partition("\n")[0])
        except Exception:  # the task must live on: without it nobody would ever lead here again
            self._stumbles += 1
            log.exception("the lease could not be tended, for a reason nobody foresaw (%d so far)", self._stumbles)

    async def _keep_tending(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / TENDS_PER_LEASE)
            await self.tend()

    async def _acquire(self, may_create: bool = True) -> None:
        asked = self._clock()
        lease = BlobLeaseClient(self._there, lease_id=self._lease_id)
        try:
            await lease.acquire(lease_duration=self._settings.lease_seconds)
        except HttpResponseError as error:
            if error.status_code == 404 and may_create:
                await self._create()
                await self._acquire(may_create=False)
            elif error.status_code in TAKEN:
                self.seen = await self._read()
            else:
                raise
            return
        before = await self._read()
        mine = Leadership(term=max(before.term, self._met) + 1, leader=self.name, nonce=self._nonce)
        await self._there.upload_blob(msgspec.json.encode(mine), overwrite=True, lease=lease)
        self._lease, self.seen, self._term, self._met = lease, mine, mine.term, mine.term
        self._believe(asked)
        log.info("leading in term %d", mine.term)

    async def _give_back(self, lease: BlobLeaseClient) -> None:
        """Of a lease that was given up, so that nobody waits for its end; a copy with our name may hold it by now."""
        with contextlib.suppress(HttpResponseError):  # the blob or the lease is gone: nothing to give back
            if (await self._read()).nonce in (self._nonce, NOBODY.nonce):
                await lease.release()
        self._left = None

    async def _renew(self, lease: BlobLeaseClient) -> None:
        asked = self._clock()
        try:
            await lease.renew()
        except HttpResponseError as error:
            if error.status_code not in TAKEN and error.status_code != 404:
                raise
            log.warning("the lease is lost")
            self._term, self._lease = None, None
            return
        found = await self._read()
        if found.nonce != self._nonce:  # a second copy under our own name has taken over
            self.seen = found
            self.step_down(found.term)
            return
        self._believe(asked)

    def _believe(self, asked: float) -> None:
        """The store counts from when it answered, which is not before we asked."""
        self._valid_until = asked + self._settings.lease_seconds * (1 - SAFETY_SHARE)

    async def _read(self) -> Leadership:
        stream = await self._there.download_blob()
        content = await stream.readall()
        try:
            return msgspec.json.decode(content, type=Leadership) if content else NOBODY
        except msgspec.DecodeError as error:
            # Whoever leads next writes it anew. Should its term be too low, the pools tell the right one.
            log.error("the lease's blob can't be understood, it counts as empty: %s", error)
            return NOBODY

    async def _create(self) -> None:
        """The container and the empty blob."""
        assert self._service is not None
        with contextlib.suppress(ResourceExistsError):
            await self._service.create_container(self._settings.leader_container)
        with contextlib.suppress(ResourceExistsError):
            await self._there.upload_blob(b"", overwrite=False)

    @property
    def _there(self) -> BlobClient:
        if self._blob is None:
            raise RuntimeError("the leader is used outside of its `async with`")
        return self._blob

    @property
    def _request_seconds(self) -> float:
        """For one turn: a lease that takes longer to renew is not worth having."""
        return self._settings.lease_seconds / 2

    async def _connect(self) -> BlobServiceClient:
        patience: dict[str, Any] = {
            "connection_timeout": self._request_seconds / 2,
            "read_timeout": self._request_seconds / 2,
            "retry_total": 0,
        }
        if self._blobs.connection:
            return BlobServiceClient.from_connection_string(self._blobs.connection.reveal(), **patience)
        if not self._blobs.endpoint:
            raise SettingsError(["neither FUSEBUS_BLOBS_CONNECTION nor FUSEBUS_BLOBS_ENDPOINT is set: for the lease"])
        credential = await self._exits.enter_async_context(DefaultAzureCredential())
        return BlobServiceClient(self._blobs.endpoint, credential=credential, **patience)
