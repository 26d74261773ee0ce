"""The named scenarios. Prices: UK South in USD, from the starting list of `fusebus prices`; rates are assumed."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import msgspec

from fusebus.planning.fleet import Quantiles
from fusebus.planning.limits import Quota
from fusebus.planning.prices import PoolOffer, PriceChange
from fusebus.planning.simulation.scenario import Lump, Opening, Scenario

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
SERVICE = Quantiles(1.5, 2.0, True)  # seconds of one image on a T4
UPLOAD = 60.0  # seconds in which a burst arrives

T4 = PoolOffer(
    pool="t4", kind="detect", vm_size="NC4as_T4_v3", family="StandardNCASv3T4Family", vcpus=4, images_per_second=1.0,
    dedicated_per_hour=0.615, spot_per_hour=0.18, max_nodes=50,
)  # fmt: skip
A100 = PoolOffer(
    pool="a100", kind="detect", vm_size="NC24ads_A100_v4", family="StandardNCADSA100v4Family", vcpus=24,
    images_per_second=4.0, dedicated_per_hour=4.775, spot_per_hour=0.955, max_nodes=10,
)  # fmt: skip
H100 = PoolOffer(
    pool="h100", kind="detect", vm_size="NC40ads_H100_v5", family="StandardNCADSH100v5Family", vcpus=40,
    images_per_second=8.0, dedicated_per_hour=9.07, spot_per_hour=2.812, max_nodes=5,
)  # fmt: skip
D4 = PoolOffer(
    pool="d4", kind="convert", vm_size="D4s_v5", family="standardDSv5Family", vcpus=4, images_per_second=4.0,
    dedicated_per_hour=0.222, spot_per_hour=0.0444, max_nodes=20,
)  # fmt: skip
GPUS = (T4, A100, H100)
HOME, FAR = "uksouth", "westeurope"
AT_HOME = tuple(msgspec.structs.replace(offer, region=HOME) for offer in GPUS)
T4_FAR = msgspec.structs.replace(  # its prices are assumed: a tenth dearer
    T4, pool="t4-far", region=FAR, dedicated_per_hour=0.676, spot_per_hour=0.198
)


def burst(images: int, at: float = 0.0, kind: str = "detect") -> list[Lump]:
    """A delivery that arrives evenly within `UPLOAD` seconds, in at most 60 lumps."""
    parts = min(images, 60)
    sizes = [images * (k + 1) // parts - images * k // parts for k in range(parts)]
    return [Lump(at + UPLOAD * k / parts, size, kind) for k, size in enumerate(sizes)]


def _scenario(name: str, says: str, lumps: Iterable[Lump], deadline: float, **more: object) -> Scenario:
    given: dict[str, object] = {"offers": GPUS, "service": SERVICE, **more}
    ordered = tuple(sorted(lumps, key=lambda lump: lump.at))
    return msgspec.structs.replace(
        Scenario(name=name, says=says, lumps=ordered, deadline=deadline, offers=GPUS, service=SERVICE), **given
    )


def _bursts() -> list[Scenario]:
    return [
        _scenario("burst-100", "100 images within a minute, due in 30 min", burst(100), 30 * MINUTE, bursts=1),
        _scenario("burst-1000", "1,000 images within a minute, due in 30 min", burst(1000), 30 * MINUTE, bursts=1),
        _scenario("burst-10000", "10,000 images within a minute, due in 30 min", burst(10_000), 30 * MINUTE, bursts=1),
        _scenario(
            "repeated-bursts", "500 images every 45 min for 12 h, due in 30 min",
            [lump for k in range(16) for lump in burst(500, k * 45 * MINUTE)], 30 * MINUTE, bursts=16,
        ),
    ]  # fmt: skip


def _steady() -> list[Scenario]:
    dice = random.Random(11)  # noqa: S311
    at, trickle = 0.0, list[Lump]()
    while at < 2 * DAY:
        trickle.append(Lump(at, 1))
        at += dice.expovariate(1 / (3 * MINUTE))
    windows = [k * 6 * HOUR + 2 * HOUR for k in range(12)]
    opens = tuple(Opening(at=at, images=2500, known=at - 4 * HOUR if at > 4 * HOUR else 0.0) for at in windows)
    return [
        _scenario("trickle", "an image every 3 min (Poisson) for 2 days, due in 6 h", trickle, 6 * HOUR),
        _scenario("diurnal-month", "500 a day by daylight for 30 days, due in 6 h", _diurnal(500, 30, 5), 6 * HOUR),
        _scenario(
            "four-windows", "2,500 at 02:00, 08:00, 14:00, 20:00 for 3 days, due in 30 min",
            [Lump(at, 2500) for at in windows], 30 * MINUTE, windows=opens, bursts=12,
        ),
        _scenario(
            "million-a-day", "1,000,000 on one day, more by daylight, due in 1 h",
            _flow(1_000_000), HOUR, long=True,
        ),
    ]  # fmt: skip


def _diurnal(a_day: int, days: int, seed: int) -> list[Lump]:
    """Single images, by a bell around 13:00, half as many at weekends."""
    dice, found = random.Random(seed), list[Lump]()  # noqa: S311
    for day in range(days):
        count = a_day if day % 7 < 5 else a_day // 2
        found += [Lump(day * DAY + min(max(dice.gauss(13, 3), 0), 23.99) * HOUR, 1) for _ in range(count)]
    return found


def _flow(images: int) -> list[Lump]:
    """A day in lumps of 15 s, with a sine's night and noon."""
    steps = int(DAY / 15)
    shape = [1.0 - 0.8 * math.cos(2 * math.pi * k / steps) for k in range(steps)]
    total, found, given, seen = sum(shape), list[Lump](), 0, 0.0
    for k, share in enumerate(shape):
        seen += share
        count = round(images * seen / total) - given
        given += count
        if count:
            found.append(Lump(k * 15.0, count))
    return found


def _slow() -> list[Scenario]:
    jobs = Quantiles(600.0, 720.0, True)
    cold = {
        minutes: _scenario(
            f"cold-start-{minutes}", f"1,000 images, nodes boot in {minutes} min, due in {due} min",
            burst(1000), due * MINUTE, bursts=1, boot=Quantiles(minutes * MINUTE, minutes * MINUTE * 1.3, True),
        )
        for minutes, due in ((3, 30), (10, 45), (30, 90))
    }  # fmt: skip
    return [
        _scenario(
            "long-jobs", "60 jobs of 10 min each on a T4, due in 2 h", burst(60), 2 * HOUR, service=jobs, bursts=1
        ),
        *cold.values(),
    ]


def _trouble() -> list[Scenario]:
    storm = ((15 * MINUTE, 75 * MINUTE),)
    outage = ((5 * MINUTE, 20 * MINUTE),)
    return [
        _scenario(
            "spot-storm", "5,000 images due in 2 h, no Spot from minute 15 to 75", burst(5000), 2 * HOUR, storms=storm,
            bursts=1,
        ),
        _scenario(
            "storm-stays", "5,000 images due in 2 h, no Spot from minute 15 on", burst(5000), 2 * HOUR,
            storms=((15 * MINUTE, DAY),), bursts=1,
        ),
        _scenario(
            "no-spot", "5,000 images due in 2 h, no Spot at all", burst(5000), 2 * HOUR, storms=((-DAY, DAY),), bursts=1
        ),
        _scenario(
            "spot-flicker", "20,000 images due in 2 h, a Spot node lives 1 h", burst(20_000), 2 * HOUR, spot_life=HOUR,
            bursts=1,
        ),
        _scenario(
            "metric-outage", "5,000 images due in 1 h, the depth unknown from minute 5 to 20", burst(5000), HOUR,
            outages=outage, bursts=1,
        ),
        _scenario(
            "two-kinds", "2,000 to detect and 20,000 to convert, due in 1 h",
            burst(2000) + burst(20_000, 5 * MINUTE, "convert"), HOUR, offers=(*GPUS, D4), bursts=2,
        ),
        *_regions(),
        *_quotas(),
        *_prices(),
    ]  # fmt: skip


def _regions() -> list[Scenario]:
    """Two Batch accounts. Images stay where they are, nodes of both read them; that traffic is not priced."""
    none = (Quota(vcpus=0, region=HOME), Quota(vcpus=0, spot=True, region=HOME))
    two = (Quota(vcpus=0, region=HOME), Quota(vcpus=8, spot=True, region=HOME), Quota(vcpus=0, region=FAR))
    return [
        _scenario(
            "region-storm", "5,000 images due in 2 h, Spot ends at home in minute 15 but not in the other region",
            burst(5000), 2 * HOUR, offers=(*AT_HOME, T4_FAR), storms=((15 * MINUTE, DAY),), storm_regions=(HOME,),
            quotas=((0.0, two),), bursts=1,
        ),
        _scenario(
            "region-quota", "2,500 at 0 and 3 h, due in 1 h; from hour 2 on no quota at home",
            burst(2500) + burst(2500, 3 * HOUR), HOUR, offers=(*AT_HOME, T4_FAR), quotas=((2 * HOUR, none),), bursts=2,
        ),
    ]  # fmt: skip


def _quotas() -> list[Scenario]:
    plenty = (Quota(vcpus=200, spot=True), Quota(vcpus=80, family=T4.family))
    little = (Quota(vcpus=24, spot=True), Quota(vcpus=16, family=T4.family))
    few = (Quota(vcpus=48, spot=True), Quota(vcpus=16, family=T4.family), Quota(vcpus=0, family=H100.family))
    return [
        _scenario(
            "quota-drop", "5,000 every 30 min, 3 times, due in 1 h; quotas fall after 8 min",
            _repeated(5000, 3), HOUR, quotas=((0.0, plenty), (8 * MINUTE, little)), bursts=3,
        ),
        _scenario(
            "small-quota", "10,000 images due in 1 h, quota for 12 Spot and 4 dedicated T4", burst(10_000), HOUR,
            quotas=((0.0, few),), bursts=1,
        ),
    ]  # fmt: skip


def _prices() -> list[Scenario]:
    rise = (PriceChange(pool="t4", at=90 * MINUTE, spot_per_hour=0.5),)
    night = (
        PriceChange(pool="t4", at=2 * HOUR, spot_per_hour=0.09),
        PriceChange(pool="a100", at=2 * HOUR, spot_per_hour=0.48),
    )
    day = tuple(PriceChange(pool=o.pool, at=HOUR, spot_per_hour=2 * (o.spot_per_hour or 0.0)) for o in GPUS)
    return [
        _scenario(
            "price-change", "2,000 every 30 min, 6 times, due in 1 h; Spot nearly triples after 90 min",
            _repeated(2000, 6), HOUR, changes=rise, bursts=6,
        ),
        _scenario(
            "off-peak", "4,000 images due in 6 h, half the price after 2 h", burst(4000), 6 * HOUR, changes=night,
            changes_known=True, bursts=1,
        ),
        _scenario(
            "peak-ahead", "4,000 images due in 6 h, twice the price from hour 1 on, as is known", burst(4000), 6 * HOUR,
            changes=day, changes_known=True, bursts=1,
        ),
    ]  # fmt: skip


def _repeated(images: int, times: int) -> list[Lump]:
    """A burst every half hour."""
    return [lump for k in range(times) for lump in burst(images, k * 30 * MINUTE)]


_MAKERS: tuple[Callable[[], list[Scenario]], ...] = (_bursts, _steady, _slow, _trouble)


def scenarios() -> dict[str, Scenario]:
    """All by name, made anew."""
    return {scenario.name: scenario for make in _MAKERS for scenario in make()}
