"""How many more nodes an account may have: its quota, and what the market has; values in, a number and a reason out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fusebus.localbatch.entities import Pool
from fusebus.localbatch.limits import AccountLimits
from fusebus.localbatch.sizes import OTHER_CORES, size_of

UNLIMITED_CORES = 1_000_000  # told where there is no quota
Reason = tuple[str, str]  # code, sentence


@dataclass
class Quota:
    """In cores, but for `nodes`; None is without limit. May change while the account lives."""

    dedicated: int | None = None
    spot: int | None = None
    families: dict[str, int] = field(default_factory=dict)  # dedicated cores; enforced where it is not empty
    nodes: int | None = None  # over all pools

    @classmethod
    def of(cls, limits: AccountLimits) -> Quota:
        return cls(limits.dedicated_cores, limits.spot_cores, dict(limits.family_cores), limits.capacity)

    def told(self, dedicated: bool) -> int:
        """The cores that the account shows for one kind."""
        cores = self.dedicated if dedicated else self.spot
        if cores is None and self.nodes is not None:
            cores = self.nodes * OTHER_CORES
        return UNLIMITED_CORES if cores is None else cores


def quota_room(pools: Iterable[Pool], quota: Quota, size_name: str, dedicated: bool) -> tuple[int | None, Reason]:
    """Nodes of a size that still fit (None: any number), and what to say of those that do not."""
    pools, size = list(pools), size_of(size_name)
    rooms: list[tuple[int, Reason]] = []
    if quota.nodes is not None:
        here = sum(len(pool.nodes) for pool in pools)
        rooms.append((quota.nodes - here, _reason(dedicated, f"{quota.nodes} nodes")))
    account = quota.dedicated if dedicated else quota.spot
    if account is not None:
        used = _cores(pools, dedicated)
        rooms.append(((account - used) // size.cores, _reason(dedicated, f"{account} cores")))
    if dedicated and quota.families:
        allowed, used = quota.families.get(size.family, 0), _cores(pools, True, size.family)
        message = f"The account has reached its quota of {allowed} cores of {size.family}."
        rooms.append(((allowed - used) // size.cores, ("AccountVMSeriesCoreQuotaReached", message)))
    if not rooms:
        return None, ("", "")
    room, reason = min(rooms, key=lambda found: found[0])
    return max(0, room), reason


def _cores(pools: Iterable[Pool], dedicated: bool, family: str | None = None) -> int:
    """Cores of one kind in use; a preempted or leaving node still counts."""
    sizes = ((size_of(pool.size), pool) for pool in pools)
    return sum(
        size.cores * sum(node.dedicated is dedicated for node in pool.nodes.values())
        for size, pool in sizes
        if family is None or size.family == family
    )


def _reason(dedicated: bool, what: str) -> Reason:
    code = "AccountCoreQuotaReached" if dedicated else "AccountLowPriorityCoreQuotaReached"
    kind = "dedicated" if dedicated else "Spot/low-priority"
    return code, f"The account has reached its quota of {what} for {kind} nodes."
