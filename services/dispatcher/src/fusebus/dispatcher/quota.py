"""How many cores the account may have, and how many nodes that makes; unknown is not zero. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from fusebus.costs import same_family
from fusebus.dispatcher.settings import PoolSettings
from fusebus.ledger import QuotaLine


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """In cores (vCPUs), None where it could not be read."""

    region: str = ""
    dedicated: int | None = None
    """All families together."""
    spot: int | None = None
    """All families together: Batch knows no Spot quota per family."""
    per_family: Mapping[str, int] | None = None
    """Of dedicated cores, by family; None where Batch enforces none."""

    def cores(self, family: str, spot: bool) -> int | None:
        """Most cores of this kind."""
        if spot:
            return self.spot
        if self.per_family is None or not family:
            return self.dedicated
        known = [cores for name, cores in self.per_family.items() if same_family(name, family)]
        return known[0] if known else 0

    def lines(self, pools: Iterable[PoolSettings], used: Mapping[tuple[str, bool], int], place: str) -> list[QuotaLine]:
        """What concerns these pools; `used`: cores by family and Spot; `place`: what people call where they are."""
        found: dict[tuple[str, bool], QuotaLine] = {}
        for pool in pools:
            for spot in (kind for kind in (True, False) if (pool.may_spot if kind else pool.may_dedicated)):
                family = "" if spot or self.per_family is None else pool.quota_family
                cores = self.cores(pool.quota_family, spot)
                taken = sum(n for (name, kind), n in used.items() if kind is spot and family in ("", name))
                found[family, spot] = QuotaLine(region=place, family=family, spot=spot, cores=cores, used=taken)
        return list(found.values())
