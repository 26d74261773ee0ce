"""The dispatcher's settings: which pools, which workers, how fast, how much, who leads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings
from fusebus.contracts.messages import JobKind
from fusebus.costs import UnknownVmSize, vm_size
from fusebus.costs.settings import CostSettings
from fusebus.host import SettingsError
from fusebus.ledger import LedgerSettings
from fusebus.planning.limits import MOST_PREMIUM, STORMS_PER_HOUR

Name = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
"""Batch's rule for ids."""


class BatchAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Batch account: one region, quotas of its own."""

    name: Name
    """By which pools and the status name it."""
    batch_url: str = ""
    batch_endpoint: str = ""
    subscription_id: str = ""
    resource_group: str = "local"
    account: str = "local"
    region: str = ""
    """For the prices of its pools; empty: that of the cost settings."""

    @property
    def reachable(self) -> bool:
        return bool(self.batch_url or (self.batch_endpoint and self.subscription_id))


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One pool with everything that is to be known of it."""

    name: Name
    batch: str = ""
    """The Batch account it is in."""
    job_kind: JobKind = JobKind.DETECT
    vm_size: str
    family: str = ""
    """As the quota names it; empty: the known family of `vm_size`."""
    cores: Annotated[int, Meta(ge=1)]
    """vCPUs of one node."""
    buy: Literal["spot", "dedicated", "both"] = "spot"
    region: str = ""
    """For prices; empty: that of the cost settings."""
    max_nodes: Annotated[int, Meta(ge=0)]
    boot_seconds: Annotated[float, Meta(ge=0)]
    seconds_per_image: Annotated[float, Meta(gt=0)]
    """Of one worker, until it has been measured."""
    worker_command: str
    worker_environment: dict[str, str] = {}
    job: str = ""
    """The Batch job of its workers; empty: `<name>-workers`."""

    @property
    def job_id(self) -> str:
        return self.job or f"{self.name}-workers"

    @property
    def quota_family(self) -> str:
        """As the quota names it; of an unknown size without a family, the size itself."""
        if self.family:
            return self.family
        try:
            return vm_size(self.vm_size).family
        except UnknownVmSize:
            return self.vm_size

    @property
    def may_spot(self) -> bool:
        return self.buy != "dedicated"

    @property
    def may_dedicated(self) -> bool:
        return self.buy != "spot"


class PoolEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool as it stands in the settings: what is left out is as in the single-pool settings."""

    name: Name
    batch: str = ""
    job_kind: JobKind = JobKind.DETECT
    vm_size: str | None = None
    family: str = ""
    cores: Annotated[int, Meta(ge=1)] | None = None
    buy: Literal["spot", "dedicated", "both"] | None = None
    region: str = ""
    max_nodes: Annotated[int, Meta(ge=0)] | None = None
    boot_seconds: Annotated[float, Meta(ge=0)] | None = None
    seconds_per_image: Annotated[float, Meta(gt=0)] | None = None
    worker_command: str | None = None
    worker_environment: dict[str, str] | None = None
    job: str = ""


class DispatcherSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `dispatcher`: variables FUSEBUS_DISPATCHER_<FIELD>."""

    bus: BusSettings
    ledger: LedgerSettings
    blobs: BlobSettings
    costs: CostSettings

    batch_url: Annotated[
        str, Meta(description="A local Batch for pools and tasks alike, without login; its pools are made if missing.")
    ] = ""
    batch_endpoint: Annotated[
        str, Meta(description="https://<account>.<region>.batch.azure.com, with managed identity; or set batch_url.")
    ] = ""
    subscription_id: Annotated[str, Meta(description="Azure subscription of the Batch account.")] = ""
    resource_group: Annotated[str, Meta(description="Resource group of the Batch account.")] = "local"
    account: Annotated[str, Meta(description="Name of the Batch account.")] = "local"
    accounts: Annotated[
        list[BatchAccount],
        Meta(
            description="Further Batch accounts, in other regions, say: objects with name, region, and batch_url or "
            "batch_endpoint, subscription_id, resource_group, account. A pool names its own by batch; those that "
            "don't are in the account above, or in the first of these where none is set above."
        ),
    ] = []
    pool: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="The pool of worker nodes, where `pools` is empty.")
    ] = "gpu"
    job: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="The Batch job that holds that pool's worker tasks.")
    ] = "workers"
    vm_size: Annotated[str, Meta(description="VM size of a pool.")] = "Standard_NC4as_T4_v3"
    cores_per_node: Annotated[int, Meta(ge=1, description="Cores of vm_size: Batch states quotas in cores.")] = 4
    spot: Annotated[bool, Meta(description="Spot nodes (cheaper, may vanish) instead of dedicated ones.")] = True
    pools: Annotated[
        list[PoolEntry],
        Meta(
            description="Several pools: objects with name, batch, job_kind, vm_size, cores, family, region, buy (spot, "
            "dedicated, both), max_nodes, boot_seconds, seconds_per_image, worker_command, worker_environment, job."
        ),
    ] = []

    worker_command: Annotated[
        str, Meta(description="Command line of one worker; it must end by itself when it finds no work.")
    ] = "python -m fusebus.inferencer"
    worker_environment: Annotated[
        dict[str, str], Meta(description="Variables of a worker; all it gets besides Batch's own.")
    ] = {}

    interval_seconds: Annotated[float, Meta(gt=0, description="From one look to the next.")] = 15.0
    request_seconds: Annotated[float, Meta(gt=0, description="Limit for reading a pool, and for each step.")] = 60.0
    patience_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="How long a look waits for one pool, or the ledger; what takes longer goes on beside the looks "
            "and holds up no other pool.",
        ),
    ] = 10.0
    believed_seconds: Annotated[
        float,
        Meta(
            ge=0,
            description="So long the last sight of a pool that can't be read counts; after it its work is bought for "
            "elsewhere.",
        ),
    ] = 300.0
    max_nodes: Annotated[int, Meta(ge=0, description="Most nodes, whatever waits; 0 lets nothing start.")] = 4
    deadline_seconds: Annotated[
        float,
        Meta(
            gt=0,
            description="What waits shall be done within this time, unless its supplier has other terms.",
        ),
    ] = 1800.0
    default_job_kind: Annotated[
        JobKind, Meta(description="Of an upload whose supplier has no terms of its own: as ingest's job_kind.")
    ] = JobKind.DETECT
    boot_seconds: Annotated[
        float, Meta(ge=0, description="Expected time from asking for a node until it works, until it is measured.")
    ] = 300.0
    assumed_seconds_per_image: Annotated[
        float, Meta(gt=0, description="Of one worker, until it has been measured.")
    ] = 1.0
    retry_resize_seconds: Annotated[
        float, Meta(gt=0, description="After a resize got too few nodes: pause before asking for more again.")
    ] = 600.0
    quota_seconds: Annotated[float, Meta(gt=0, description="How long a quota that was read is believed.")] = 600.0
    ledger_seconds: Annotated[
        float, Meta(gt=0, description="How long announced windows and the oldest open upload are believed.")
    ] = 60.0
    window_ahead_seconds: Annotated[
        float, Meta(gt=0, description="How far ahead announced windows are looked for.")
    ] = 86_400.0

    shadow: Annotated[
        bool, Meta(description="Decide and write down, but act, meter and tell nothing: for trying beside a leader.")
    ] = False
    kill_switch: Annotated[
        bool, Meta(description="Buy nothing, drain every worker, remove every node; works without the ledger.")
    ] = False
    instance: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9._-]{0,128}$",
            description="A name that no other running copy has and a restarted copy keeps: it leads again at once. "
            "Empty: a restarted copy waits until the lease of the one before has run out.",
        ),
    ] = ""
    lease_seconds: Annotated[
        int, Meta(ge=15, le=60, description="Length of the leader's lease: another copy takes over after at most this.")
    ] = 30
    leader_container: Annotated[str, Meta(description="Blob container of the lease; made if missing.")] = "control"
    leader_blob: Annotated[str, Meta(description="The blob that is leased.")] = "dispatcher"

    most_failures: Annotated[
        int, Meta(ge=1, description="So many failed workers within failure_window_seconds stop new ones in that pool.")
    ] = 6
    failure_window_seconds: Annotated[float, Meta(gt=0, description="See most_failures.")] = 120.0
    most_broken_nodes: Annotated[
        int, Meta(ge=1, description="So many unusable nodes in a row stop new ones in that pool.")
    ] = 3
    breaker_seconds: Annotated[
        float,
        Meta(gt=0, description="How long that pool gets nothing new; doubled each time one more try fails."),
    ] = 600.0
    task_retention_seconds: Annotated[
        float, Meta(ge=0, description="Ended worker tasks and their output are deleted after this time.")
    ] = 86_400.0

    margin_seconds: Annotated[
        float, Meta(ge=0, description="Kept free before each deadline: looks, hand-over and the last image.")
    ] = 60.0
    least_use_seconds: Annotated[
        float, Meta(ge=0, description="No node is bought to be used for less than this; what is missing then is late.")
    ] = 300.0
    settle_seconds: Annotated[
        float, Meta(ge=0, description="A delivery that still grows gets this long to end before nodes are bought.")
    ] = 90.0
    fallback_seconds: Annotated[
        float, Meta(ge=0, description="Beyond a second boot, to notice that Spot fails and turn to dedicated nodes.")
    ] = 120.0
    storm_seconds: Annotated[
        float, Meta(gt=0, description="After so long without an eviction Spot is trusted again.")
    ] = 1800.0
    storm_evictions: Annotated[
        int, Meta(ge=1, description="So many within storm_seconds are a storm: that pool buys no Spot nodes.")
    ] = 2
    storms_per_hour: Annotated[
        float,
        Meta(
            ge=0,
            description="How often all Spot is taken to vanish for good: an insurance, more Spot nodes at once, which "
            "costs more boots on every other day. 0: none.",
        ),
    ] = STORMS_PER_HOUR
    most_premium: Annotated[
        float,
        Meta(ge=0, description="What that insurance costs at most, as a share of what the work costs without it."),
    ] = MOST_PREMIUM
    stall_seconds: Annotated[
        float,
        Meta(gt=0, description="Seconds of work without any result after which what is left of a queue is poison."),
    ] = 3600.0

    cost_sample_seconds: Annotated[float, Meta(gt=0, description="Length of one cost sample.")] = 60.0

    def __post_init__(self) -> None:
        unreachable = [one.name for one in self.accounts if not one.reachable]
        if unreachable:
            found = ", ".join(unreachable)
            needed = "need batch_endpoint and subscription_id, or batch_url"
            raise SettingsError([f"FUSEBUS_DISPATCHER_ACCOUNTS: {found}: {needed}"])
        if not self.all_accounts:
            needed = "FUSEBUS_DISPATCHER_BATCH_ENDPOINT and FUSEBUS_DISPATCHER_SUBSCRIPTION_ID are not set; they must "
            raise SettingsError([needed + "name the Batch account, or FUSEBUS_DISPATCHER_BATCH_URL a local Batch"])
        names = [pool.name for pool in self.pools]
        if len(set(names)) < len(names):
            raise SettingsError([f"FUSEBUS_DISPATCHER_POOLS names a pool twice: {', '.join(names)}"])
        known = [account.name for account in self.all_accounts]
        if len(set(known)) < len(known):
            raise SettingsError([f"FUSEBUS_DISPATCHER_ACCOUNTS names an account twice: {', '.join(known)}"])
        for pool in self.pools:
            if pool.batch and pool.batch not in known:
                problem = f"pool {pool.name} is in account {pool.batch}, which is none of {', '.join(known)}"
                raise SettingsError([f"FUSEBUS_DISPATCHER_POOLS: {problem}"])

    @property
    def all_accounts(self) -> tuple[BatchAccount, ...]:
        """The one of the single settings, named as in Azure, first."""
        own = BatchAccount(
            name=self.account,
            batch_url=self.batch_url,
            batch_endpoint=self.batch_endpoint,
            subscription_id=self.subscription_id,
            resource_group=self.resource_group,
            account=self.account,
        )
        return (*((own,) if own.reachable else ()), *self.accounts)

    @property
    def all_pools(self) -> tuple[PoolSettings, ...]:
        """The pools with everything filled in; the single one where `pools` is empty."""
        if self.pools:
            return tuple(self._filled(entry) for entry in self.pools)
        return (self._filled(PoolEntry(name=self.pool, job=self.job)),)

    def _filled(self, entry: PoolEntry) -> PoolSettings:
        accounts = {account.name: account for account in self.all_accounts}
        account = accounts[entry.batch] if entry.batch else self.all_accounts[0]
        return PoolSettings(
            name=entry.name,
            batch=account.name,
            job_kind=entry.job_kind,
            vm_size=entry.vm_size or self.vm_size,
            family=entry.family,
            cores=entry.cores or (_known_cores(entry.vm_size) if entry.vm_size else None) or self.cores_per_node,
            buy=entry.buy or ("spot" if self.spot else "dedicated"),
            region=entry.region or account.region,
            max_nodes=self.max_nodes if entry.max_nodes is None else entry.max_nodes,
            boot_seconds=self.boot_seconds if entry.boot_seconds is None else entry.boot_seconds,
            seconds_per_image=entry.seconds_per_image or self.assumed_seconds_per_image,
            worker_command=entry.worker_command or self.worker_command,
            worker_environment=(
                self.worker_environment if entry.worker_environment is None else entry.worker_environment
            ),
            job=entry.job,
        )


def _known_cores(name: str) -> int | None:
    """Of a VM size that libs/costs knows."""
    try:
        return vm_size(name).vcpus
    except UnknownVmSize:
        return None
