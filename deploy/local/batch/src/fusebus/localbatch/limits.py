"""How an account behaves: its quota, its times, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_RETENTION_SECONDS = 7 * 86400.0
"""How long Batch keeps a task's files where the task does not say."""


@dataclass(frozen=True)
class AccountLimits:
    """All times in seconds; a quota of None is without limit.

    `capacity` is a quota in nodes over all pools, for those who do not want to count cores.
    """

    boot_seconds: float = 2.0  # median, from the request to idle
    boot_spread: float = 0.0  # sigma of the log-normal distribution of boots; 0: each takes `boot_seconds`
    seed: int = 0  # of all that is drawn: boots, the market's evictions
    allocation_share: float = 0.25  # part of boot_seconds in which the pool is Resizing and no node exists yet
    leave_seconds: float = 0.2  # from the end of its task until a removed node is gone
    reboot_seconds: float = 1.0
    stop_seconds: float = 0.1  # a pool is Stopping, after a resize was called off
    preempted_seconds: float = 5.0  # until a preempted node is given back
    notice_seconds: float = 30.0  # between a notice of eviction and the eviction, where the market decides
    spot_lifetime_seconds: float | None = None  # mean of the exponential life of a Spot node; None: not taken away
    terminate_grace_seconds: float = 10.0  # between SIGTERM and SIGKILL
    resize_timeout_seconds: float = 900.0  # where a resize does not say
    minimum_resize_timeout_seconds: float = 300.0  # Batch refuses a shorter one
    retention_seconds: float = DEFAULT_RETENTION_SECONDS
    capacity: int | None = None
    dedicated_cores: int | None = None
    spot_cores: int | None = None
    family_cores: Mapping[str, int] = field(default_factory=dict)  # dedicated; enforced where it is not empty
    max_pools: int = 100
    max_active_jobs: int = 300
    requests_per_second: float | None = None  # of ARM and of the data plane each; above it 429
