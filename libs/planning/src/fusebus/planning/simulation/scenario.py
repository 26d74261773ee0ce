"""What a simulation is told: who delivers what and when, what can be bought, and what goes wrong. Times in seconds."""

from __future__ import annotations

import math
import random
from itertools import accumulate

import msgspec

from fusebus.planning.fleet import Quantiles
from fusebus.planning.limits import STORMS_PER_HOUR, Limits, Quota
from fusebus.planning.prices import PoolOffer, PriceChange

Z95 = 1.645  # of a normal distribution
LEAST_BOOT, MOST_BOOT = 0.5, 1.5  # of the median and of the p95: a boot is never shorter or longer
SEEDS_A_KIND = 1_000_003  # between the seeds of two kinds


class Lump(msgspec.Struct, frozen=True):
    """Images of one kind that arrive at one moment."""

    at: float
    images: int
    kind: str = "detect"


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduled window that is known in advance: its images arrive at `at`."""

    at: float
    images: int
    known: float
    """Since when the ledger knows of it."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that happens, whatever the policy does. Simulations begin at second 0."""

    name: str
    says: str
    """In one line."""
    lumps: tuple[Lump, ...]
    deadline: float
    """From each image's arrival."""
    offers: tuple[PoolOffer, ...]
    service: Quantiles
    """Of one image at an offer that does one image a second; others in proportion to their rate."""
    boot: Quantiles = Quantiles(300.0, 420.0, True)
    max_nodes: int = 50
    quotas: tuple[tuple[float, tuple[Quota, ...]], ...] = ()
    """From when which quotas hold."""
    storms: tuple[tuple[float, float], ...] = ()
    """From when to when there is no Spot at all; at its beginning those that are there vanish."""
    storm_regions: tuple[str, ...] = ()
    """Where there are storms; empty: everywhere."""
    storms_per_hour: float = STORMS_PER_HOUR
    """What our policy is told to insure itself against (`Limits.storms_per_hour`)."""
    spot_life: float | None = None
    """Mean seconds until a Spot node is lost; None: never outside of storms."""
    changes: tuple[PriceChange, ...] = ()
    changes_known: bool = False
    """Whether the dispatcher is told of price changes ahead."""
    outages: tuple[tuple[float, float], ...] = ()
    """When the depth can't be read."""
    windows: tuple[Opening, ...] = ()
    bursts: int | None = None
    """Deliveries, where resizes are counted by them."""
    seed: int = 1
    long: bool = False
    """Wants more than a few seconds."""

    @property
    def images(self) -> int:
        """In all."""
        return sum(lump.images for lump in self.lumps)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Job kinds that occur."""
        return tuple(dict.fromkeys(offer.kind for offer in self.offers))

    def limits(self, at: float) -> Limits:
        """What the policy is given."""
        return Limits(
            max_nodes=self.max_nodes,
            quotas=self.quotas_at(at),
            deadline=self.deadline,
            storms_per_hour=self.storms_per_hour,
        )

    def quotas_at(self, at: float) -> tuple[Quota, ...]:
        """Those that hold then."""
        held: tuple[Quota, ...] = ()
        for since, quotas in self.quotas:
            held = quotas if since <= at else held
        return held

    def storms_in(self, region: str) -> tuple[tuple[float, float], ...]:
        """From when to when there is no Spot there."""
        return self.storms if not self.storm_regions or region in self.storm_regions else ()

    def has_spot(self, at: float, region: str = "") -> bool:
        """Whether Azure gives Spot nodes there and then."""
        return not any(begin <= at < end for begin, end in self.storms_in(region))

    def price(self, offer: PoolOffer, spot: bool, at: float) -> float | None:
        """Per node and hour then."""
        price = offer.price(spot)
        for change in self.changes:
            if change.pool == offer.pool and change.at <= at:
                price = change.price(spot) or price
        return price


class Draws:
    """The dice of a scenario, the same for every policy: image k is as hard and boot n of a kind as long whoever
    does it."""

    def __init__(self, scenario: Scenario) -> None:
        self._boot = scenario.boot
        # Each kind has dice of its own: were they shared, one kind could choose the short boots of another's order.
        seeds = {kind: scenario.seed + SEEDS_A_KIND * number for number, kind in enumerate(scenario.kinds)}
        self._boots = {kind: random.Random(seed) for kind, seed in seeds.items()}  # noqa: S311  not for secrets
        self._drawn: dict[str, list[float]] = {kind: [] for kind in seeds}
        dice, sigma = random.Random(scenario.seed + 1), _sigma(scenario.service)  # noqa: S311
        raw = [math.exp(sigma * dice.gauss(0.0, 1.0)) for _ in range(scenario.images)] if sigma else []
        self._hardness = list(accumulate(raw, initial=0.0)) if raw else []
        self.lives = random.Random(scenario.seed + 2)  # noqa: S311

    def hardness(self, first: int, images: int) -> float:
        """Of so many images from number `first` on, in average images."""
        if not self._hardness:
            return float(images)
        return self._hardness[first + images] - self._hardness[first]

    def boot(self, kind: str, number: int) -> float:
        """How long the boot of that number (from 0) among nodes of this kind takes, in seconds."""
        sigma, found, dice = _sigma(self._boot), self._drawn[kind], self._boots[kind]
        while len(found) <= number:
            drawn = self._boot.p50 * math.exp(sigma * dice.gauss(0.0, 1.0))
            found.append(min(max(drawn, LEAST_BOOT * self._boot.p50), MOST_BOOT * self._boot.p95))
        return found[number]


def _sigma(quantiles: Quantiles) -> float:
    """Of the logarithm."""
    return math.log(quantiles.p95 / quantiles.p50) / Z95 if quantiles.p95 > quantiles.p50 > 0 else 0.0
