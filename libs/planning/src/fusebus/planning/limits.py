"""What a decision must keep to: quotas, ceilings, the budget, people's orders, and the policy's own constants."""

from __future__ import annotations

import msgspec

# Spot lives longer than one storm in 4.5 hours says. But who buys few nodes is caught by one storm with all the work
# still to do, at three times the price. Both numbers bound what that costs, and what it costs not to be caught so
# (docs/dispatcher.md, Insurance).
STORMS_PER_HOUR = 0.22
MOST_PREMIUM = 0.38


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """vCores that the account may have in one region."""

    vcpus: int
    family: str = ""
    """Empty: all families together; Batch states Spot quotas so."""
    region: str = ""
    spot: bool = False


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """An order of operations: so many nodes in this pool, whatever waits."""

    pool: str
    nodes: int
    spot: bool = True
    until: float | None = None
    """Seconds since 1970; None: until it is taken back."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    max_nodes: int = 100
    """All pools together."""
    quotas: tuple[Quota, ...] = ()
    """Those that could be read; where none matches, Batch itself will say."""
    budget_left: float | None = None
    """Money for the rest of the month, in the currency of the prices; None: no budget."""
    pins: tuple[Pin, ...] = ()
    paused: tuple[str, ...] = ()
    """Pools that people paused; `*` pauses all. They are left as they are."""

    deadline: float = 1800.0
    """Of images without a known deadline, from their arrival."""
    margin: float = 60.0
    """Kept free before each deadline: looks, hand-over and the last image."""
    headroom: float = 1.15
    """More capacity than needed is bought, so that noise of 10 % orders nothing more."""
    least_use: float = 300.0
    """No node is bought to be used for a shorter time than this: what is missing then is late."""
    settle: float = 90.0
    """A delivery that still grows is given this long to end before nodes are bought for it."""
    fallback: float = 120.0
    """To notice that Spot fails, beyond another boot."""
    spot: bool = True
    storm_seconds: float = 1800.0
    """After so long without an eviction Spot is trusted again."""
    storm_evictions: int = 2
    """So many within `storm_seconds` are a storm: no Spot is bought."""
    retry_refused: float = 600.0
    """After a resize got too few nodes: pause before that pool and price class is asked again; it doubles with each
    refusal in a row, up to half of the time left to the first deadline."""
    storms_per_hour: float = STORMS_PER_HOUR
    """How often all Spot is taken to vanish for good: the more often, the more Spot nodes are worth their boots at
    once, for work that ends sooner is less exposed (`insurance.py`). An insurance, which costs on every day without
    a storm; 0: none."""
    most_premium: float = MOST_PREMIUM
    """What insurance costs at most, as a share of what the same work costs without it."""
    stall: float = 3600.0
    """Fruitless seconds (or 20 service times, if longer) after which what is left counts as poison."""
    short_queue: float = 60.0
    """A queue that the nodes at hand clear within this is short: then nodes may be let go."""
    resize_worth: float = 3600.0
    """Idle node-seconds that a shrink must save, or that were wasted already; less is not worth a resize."""
