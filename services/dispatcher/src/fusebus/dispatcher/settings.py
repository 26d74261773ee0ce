"""The dispatcher's settings: which pool, which worker, how fast, how much."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.bus import BusSettings
from fusebus.host import SettingsError
from fusebus.ledger import LedgerSettings


class DispatcherSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `dispatcher`: variables FUSEBUS_DISPATCHER_<FIELD>."""

    bus: BusSettings
    ledger: LedgerSettings

    batch_url: Annotated[
        str, Meta(description="A local Batch for pools and tasks alike, without login; its pool is made if missing.")
    ] = ""
    batch_endpoint: Annotated[
        str, Meta(description="https://<account>.<region>.batch.azure.com, with managed identity; or set batch_url.")
    ] = ""
    subscription_id: Annotated[str, Meta(description="Azure subscription of the Batch account.")] = ""
    resource_group: Annotated[str, Meta(description="Resource group of the Batch account.")] = "local"
    account: Annotated[str, Meta(description="Name of the Batch account.")] = "local"
    pool: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="The pool of worker nodes.")] = "gpu"
    job: Annotated[
        str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$", description="The Batch job that holds the worker tasks.")
    ] = "workers"
    vm_size: Annotated[str, Meta(description="VM size of a pool that is made here.")] = "Standard_NC4as_T4_v3"
    cores_per_node: Annotated[int, Meta(ge=1, description="Cores of vm_size: Batch states quotas in cores.")] = 4
    spot: Annotated[bool, Meta(description="Spot nodes (cheaper, may vanish) instead of dedicated ones.")] = True

    worker_command: Annotated[
        str, Meta(description="Command line of one worker; it must end by itself when it finds no work.")
    ] = "python -m fusebus.inferencer"
    worker_environment: Annotated[
        dict[str, str], Meta(description="Variables of a worker; all it gets besides Batch's own.")
    ] = {}

    interval_seconds: Annotated[float, Meta(gt=0, description="Pause between two looks.")] = 15.0
    request_seconds: Annotated[
        float, Meta(gt=0, description="Limit for reading the pool, and for each step; after it the look is given up.")
    ] = 60.0
    max_nodes: Annotated[int, Meta(ge=0, description="Most nodes, whatever waits; 0 lets nothing start.")] = 4
    deadline_seconds: Annotated[
        float, Meta(gt=0, description="What waits shall be done within this time: shorter means more nodes.")
    ] = 1800.0
    boot_seconds: Annotated[
        float, Meta(ge=0, description="Expected time from asking for a first node until it works.")
    ] = 300.0
    assumed_seconds_per_image: Annotated[
        float, Meta(gt=0, description="Of one worker, until it has been measured.")
    ] = 1.0
    retry_resize_seconds: Annotated[
        float, Meta(gt=0, description="After a resize got too few nodes: pause before asking for more again.")
    ] = 600.0
    quota_seconds: Annotated[float, Meta(gt=0, description="How long a quota that was read is believed.")] = 600.0
    most_failures: Annotated[
        int, Meta(ge=1, description="So many failed workers within failure_window_seconds stop new ones.")
    ] = 6
    failure_window_seconds: Annotated[float, Meta(gt=0, description="See most_failures.")] = 120.0
    task_retention_seconds: Annotated[
        float, Meta(ge=0, description="Ended worker tasks and their output are deleted after this time.")
    ] = 86_400.0

    price_per_node_hour: Annotated[
        float, Meta(ge=0, description="What one node costs; samples in the ledger say that it is estimated.")
    ] = 0.0
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="Of the price.")] = "EUR"
    cost_sample_seconds: Annotated[float, Meta(gt=0, description="Length of one cost sample.")] = 60.0

    def __post_init__(self) -> None:
        if not self.batch_url and not (self.batch_endpoint and self.subscription_id):
            needed = "FUSEBUS_DISPATCHER_BATCH_ENDPOINT and FUSEBUS_DISPATCHER_SUBSCRIPTION_ID are not set; they must "
            raise SettingsError([needed + "name the Batch account, or FUSEBUS_DISPATCHER_BATCH_URL a local Batch"])
