"""Foretells a month's cost of a workload on each VM size and on each way to buy it; values in, values out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fusebus.costs.prices import PriceList, Term
from fusebus.costs.services import services_cost
from fusebus.costs.sizes import SIZES, VmSize

DAYS = 30.0  # a month here, as people count images: 500 a day are 15,000 a month
HOURS = DAYS * 24

TFLOP_PER_IMAGE = 6.03  # SAM 3 at 1008 × 1008, counted on the serving graph
REACHED_SHARE = 0.35  # of a GPU's peak, assumed: no GPU was at hand to measure
CPU_SECONDS_PER_MEGAPIXEL = 0.1 / 12  # decode, resize, draw, encode: 67 to 120 ms for 12 megapixels were measured
USABLE_VCPU_SHARE = 0.8  # above it, work waits for a core
SPOT_REWORK = 1.05  # node time on Spot for the same work: evictions cost a boot and the images in hand
BYTES_PER_MEGAPIXEL = 300_000.0  # of a JPEG from a phone


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and how."""

    images_per_day: float
    megapixels: float = 12.0
    windows_per_day: int = 4
    """How often a day nodes are started; between two windows there are none."""
    boot_seconds: float = 300.0
    """From asking for a node until it works."""
    idle_seconds: float = 120.0
    """That a node stays without work before it goes."""
    deadline_seconds: float = 3600.0
    """A window's images are done within this time, boot included."""
    model_seconds: float | None = None
    """Of one image on one node, measured; None: derived from the GPU's peak."""
    keep_days: float = 90.0
    """How long pictures and results are stored."""

    @property
    def images(self) -> float:
        """Of a month."""
        return self.images_per_day * DAYS


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One row: a VM size, bought in one way."""

    vm_size: str
    name: str
    always_on: bool
    nodes: int
    """At the same time."""
    node_hours: float
    """Of a month, paid."""
    per_hour: float
    node_cost: float
    cost: float
    """With storage and messages."""
    per_image: float
    approximate: bool
    """The price is."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """All rows, cheapest first, and what they rest on."""

    workload: Workload
    region: str
    currency: str
    seconds_per_image: dict[str, float]
    """By VM size, of one node."""
    services: float
    ways: tuple[Way, ...]
    basis: tuple[str, ...]
    """What was assumed, in words."""


_WAYS = (
    (False, "Spot", Term.SPOT),
    (False, "dedicated", Term.DEDICATED),
    (True, "always on", Term.DEDICATED),
    (True, "reserved 1 year", Term.RESERVED_1_YEAR),
    (True, "reserved 3 years", Term.RESERVED_3_YEARS),
)


def seconds_per_image(size: VmSize, workload: Workload) -> float:
    """Of one node that always has work: model and CPU side by side, the slower one counts."""
    cpu = workload.megapixels * CPU_SECONDS_PER_MEGAPIXEL / (size.vcpus * USABLE_VCPU_SHARE)
    if workload.model_seconds is not None:
        return max(workload.model_seconds, cpu)
    return max(TFLOP_PER_IMAGE / (size.gpus * size.peak_tflops * REACHED_SHARE), cpu)


def estimate(workload: Workload, prices: PriceList, region: str, sizes: Sequence[VmSize] = SIZES) -> Estimate:
    """Rows for all sizes with a GPU that have a price there; a term without a price has no row."""
    services = services_cost(
        prices.services,
        images=workload.images,
        bytes_in=workload.images * workload.megapixels * BYTES_PER_MEGAPIXEL,
        days=DAYS,
        keep_days=workload.keep_days,
    ).total
    with_gpu = [size for size in sizes if size.gpus]
    ways = [way for size in with_gpu for way in _ways(size, workload, prices, region, services)]
    return Estimate(
        workload=workload,
        region=region,
        currency=prices.currency,
        seconds_per_image={size.name: seconds_per_image(size, workload) for size in with_gpu},
        services=services,
        ways=tuple(sorted(ways, key=lambda way: way.cost)),
        basis=_basis(workload, prices),
    )


def _ways(size: VmSize, workload: Workload, prices: PriceList, region: str, services: float) -> list[Way]:
    found = []
    for always_on, name, term in _WAYS:
        price = prices.find(size.name, region, term)
        if price is None:
            continue
        nodes, hours = _always_on(size, workload) if always_on else _on_demand(size, workload)
        hours *= SPOT_REWORK if term is Term.SPOT else 1.0
        cost = hours * price.per_hour
        found.append(
            Way(
                vm_size=size.name,
                name=name,
                always_on=always_on,
                nodes=nodes,
                node_hours=hours,
                per_hour=price.per_hour,
                node_cost=cost,
                cost=cost + services,
                per_image=(cost + services) / workload.images if workload.images else 0.0,
                approximate=price.approximate,
            )
        )
    return found


def _on_demand(size: VmSize, workload: Workload) -> tuple[int, float]:
    """Nodes at once and node-hours of a month, where nodes are there only for each window."""
    work = workload.images_per_day / workload.windows_per_day * seconds_per_image(size, workload)
    if work <= 0:
        return 0, 0.0
    time = max(workload.deadline_seconds - workload.boot_seconds, workload.deadline_seconds / 4)
    nodes = math.ceil(work / time)
    seconds = work + nodes * (workload.boot_seconds + workload.idle_seconds)
    return nodes, seconds * workload.windows_per_day * DAYS / 3600


def _always_on(size: VmSize, workload: Workload) -> tuple[int, float]:
    """Nodes that meet the same deadline without a boot, day and night."""
    work = workload.images_per_day / workload.windows_per_day * seconds_per_image(size, workload)
    nodes = max(1, math.ceil(work / workload.deadline_seconds))
    return nodes, nodes * HOURS


def _basis(workload: Workload, prices: PriceList) -> tuple[str, ...]:
    model = (
        f"{workload.model_seconds:g} s an image on every size, as given"
        if workload.model_seconds is not None
        else f"{TFLOP_PER_IMAGE} TFLOP an image at {REACHED_SHARE:.0%} of each GPU's peak: an assumption"
    )
    return (
        f"model: {model}",
        f"{workload.windows_per_day} windows a day, each with a boot of {workload.boot_seconds:.0f} s and "
        f"{workload.idle_seconds:.0f} s idle, done within {workload.deadline_seconds:.0f} s",
        f"a month of {DAYS:.0f} days; pictures kept {workload.keep_days:.0f} days",
        "always on and reserved nodes are paid for every hour, Spot and dedicated ones while they are there",
        f"Spot needs {SPOT_REWORK - 1:.0%} more node time for evictions",
        f"prices of {prices.date}, Linux, without tax: {prices.source}",
    )


def explain(found: Estimate, low: float, high: float) -> list[str]:
    """What a stated monthly amount (in the estimate's currency) buys on each size, beside what the work takes."""
    images = found.workload.images
    if not images:
        return []
    words = [
        f"{low:g} to {high:g} {found.currency} for {images:,.0f} images: "
        f"{low / images:.4f} to {high / images:.4f} an image"
    ]
    for way in sorted(found.ways, key=lambda way: (way.vm_size, way.always_on, way.per_hour)):
        least, most = (max(0.0, amount - found.services) / way.per_hour for amount in (low, high))
        size = way.vm_size.removeprefix("Standard_")
        if way.always_on:
            verdict = "within" if low <= way.cost <= high else "above" if way.cost > high else "below"
            words.append(f"{size} {way.name}: {way.cost:,.2f} a month, {verdict} that range")
        else:
            takes = way.node_hours * 3600 / images
            words.append(
                f"{size} {way.name}: it buys {least:,.0f} to {most:,.0f} node-hours, {least * 3600 / images:,.1f} to "
                f"{most * 3600 / images:,.1f} s an image; we need {takes:,.1f} s "
                f"({found.seconds_per_image[way.vm_size]:.2f} s of work, the rest boot and idle)"
            )
    return words
