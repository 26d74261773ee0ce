"""What is decided: nodes and workers of every pool, each with its reason, and what will be late."""

from __future__ import annotations

import msgspec


class PoolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How many there should be. Fewer than are busy means: drain the difference, never remove a busy node."""

    pool: str
    dedicated: int
    spot: int
    workers: int
    """Live worker tasks, running and waiting."""
    because: str
    """In words, with the numbers."""
    hold: bool = False
    """Too little is known, or people said so: take no step here."""

    @property
    def nodes(self) -> int:
        """Of both price classes."""
        return self.dedicated + self.spot


class Late(msgspec.Struct, frozen=True, kw_only=True):
    """An alert: so many images cannot be done in time with all that may be bought."""

    kind: str
    images: int
    seconds: float
    """By which the last of them will be late; infinite: nothing may be bought at all."""
    because: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The decision of one look."""

    pools: tuple[PoolPlan, ...] = ()
    late: tuple[Late, ...] = ()
    because: str = ""
    """All reasons in one text."""
    wait_until: float | None = None
    """Seconds since 1970: until then the plan stays as it is unless fleet or demand change; None: unknown."""

    def pool(self, name: str) -> PoolPlan | None:
        """The plan of one pool; None: nothing was decided for it."""
        return next((found for found in self.pools if found.pool == name), None)
