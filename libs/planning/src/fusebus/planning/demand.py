"""The work still to be done, by job kind and deadline, and what is known of how long it takes."""

from __future__ import annotations

import msgspec

from fusebus.planning.fleet import Quantiles


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """Images that are to be done by one moment. Times in seconds since 1970."""

    images: int
    """Not done yet; those that a worker holds are among them."""
    deadline: float
    since: float | None = None
    """When they arrived: with `total` it draws the line of uniform progress."""
    total: int = 0
    """With those already done; 0: unknown."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Images that a known moment will release (scheduled enqueue). Times in seconds since 1970.

    Given for some minutes longer (`releasing.LATE_WINDOW`), for images don't come at that very second.
    """

    opens_at: float
    images: int
    deadline: float


class KindDemand(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one job kind. A field that could not be read is None, and the policy holds still."""

    kind: str
    depth: int | None
    """Messages, those that workers have locked included; approximate."""
    due: tuple[Due, ...] = ()
    """How `depth` splits by deadline, from the ledger; what it does not cover gets a deadline from `oldest_age`."""
    windows: tuple[Window, ...] = ()
    oldest_age: float | None = None
    """Seconds since the oldest message arrived."""
    in_flight: int = 0
    """Locked by workers, part of `depth`; explains, decides nothing."""
    service: dict[str, Quantiles] = {}
    """Seconds that one node takes for one image, by pool; without it the price list's rate counts."""
    arrivals_per_second: float | None = None
    """Over the last minutes (`forecast.Arrivals`)."""
    gap: float | None = None
    """Seconds that usually pass between two deliveries (`forecast.Arrivals`); None: unknown."""
    quiet: float = 0.0
    """Seconds since the last arrival."""
    delivery_age: float | None = None
    """Seconds since the delivery under way (or the last one) began (`forecast.Arrivals`); None: unknown."""
    receiving: bool = True
    """False: the subscription is disabled, workers would get nothing."""
    fruitless: float = 0.0
    """Seconds in which workers ran, or waited beside idle nodes, however many, since anything was finished or
    arrived: grows while only poison is left."""


class Demand(msgspec.Struct, frozen=True):
    """All job kinds."""

    kinds: tuple[KindDemand, ...] = ()
