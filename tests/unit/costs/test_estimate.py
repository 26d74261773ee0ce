"""What a month will cost: monotone in work, honest about what it assumes, and what a stated amount would buy."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.costs import starting_prices, vm_size
from fusebus.costs.estimate import DAYS, HOURS, SPOT_REWORK, Estimate, Workload, estimate, explain, seconds_per_image
from fusebus.costs.services import services_cost

PRICES = starting_prices()
GUIDE = Workload(images_per_day=500)


def of(workload: Workload, region: str = "uksouth") -> Estimate:
    return estimate(workload, PRICES, region)


def row(found: Estimate, size: str, name: str):
    (way,) = [way for way in found.ways if way.vm_size.endswith(size) and way.name == name]
    return way


def test_every_gpu_size_is_compared_in_every_way_of_buying_cheapest_first() -> None:
    found = of(GUIDE)
    assert {(way.vm_size, way.name) for way in found.ways} == {
        (f"Standard_{size}", name)
        for size in ("NC4as_T4_v3", "NC24ads_A100_v4", "NC40ads_H100_v5")
        for name in ("Spot", "dedicated", "always on", "reserved 1 year", "reserved 3 years")
    }
    assert [way.cost for way in found.ways] == sorted(way.cost for way in found.ways)
    assert found.workload.images == 15_000
    assert any("assumption" in words for words in found.basis)
    assert any("Starting list" in words for words in found.basis)


def test_node_hours_are_work_and_the_boot_and_idle_time_of_each_window() -> None:
    workload = msgspec.structs.replace(GUIDE, model_seconds=2.0)
    dedicated = row(of(workload), "T4_v3", "dedicated")
    assert dedicated.node_hours == pytest.approx((15_000 * 2 + 120 * 420) / 3600)
    assert dedicated.node_cost == pytest.approx(dedicated.node_hours * 0.615)
    assert row(of(workload), "T4_v3", "Spot").node_hours == pytest.approx(dedicated.node_hours * SPOT_REWORK)
    assert row(of(workload), "T4_v3", "always on").node_hours == HOURS


def test_a_short_deadline_takes_more_nodes_and_their_boots() -> None:
    relaxed = row(of(Workload(images_per_day=100_000)), "T4_v3", "dedicated")
    hurried = row(of(Workload(images_per_day=100_000, deadline_seconds=900)), "T4_v3", "dedicated")
    assert hurried.nodes > relaxed.nodes and hurried.node_hours > relaxed.node_hours


def test_small_machines_wait_for_their_cores_where_pictures_are_large() -> None:
    t4 = vm_size("NC4as_T4_v3")
    large = Workload(images_per_day=1, megapixels=100, model_seconds=0.05)
    assert seconds_per_image(t4, large) > 0.05 == seconds_per_image(vm_size("NC40ads_H100_v5"), large)


@given(one=st.floats(0, 1e6), other=st.floats(0, 1e6), size=st.floats(0.1, 100))
def test_more_images_never_cost_less(one: float, other: float, size: float) -> None:
    less, more = sorted((one, other))
    found = [of(Workload(images_per_day=images, megapixels=size)) for images in (less, more)]
    for way in found[0].ways:
        assert way.cost <= row(found[1], way.vm_size, way.name).cost * (1 + 1e-9)


def test_no_images_cost_the_base_only_and_an_unknown_region_has_no_rows() -> None:
    none = of(Workload(images_per_day=0))
    assert row(none, "T4_v3", "Spot").node_cost == 0 and row(none, "T4_v3", "Spot").per_image == 0
    assert explain(none, 40, 80) == []
    assert of(GUIDE, "mars").ways == ()


def test_a_stated_amount_is_explained_by_what_it_buys() -> None:
    words = explain(estimate(GUIDE, PRICES.into("GBP"), "uksouth"), 40, 80)
    assert words[0] == "40 to 80 GBP for 15,000 images: 0.0027 to 0.0053 an image"
    (dedicated,) = [line for line in words if line.startswith("NC4as_T4_v3 dedicated")]
    assert "it buys 55 to 137 node-hours" in dedicated and "we need 3.6 s (0.27 s of work" in dedicated
    assert any("NC4as_T4_v3 always on: 363" in line and "above" in line for line in words)


def test_services_are_estimated_part_by_part() -> None:
    prices = PRICES.services
    idle = services_cost(prices, images=0, bytes_in=0, days=DAYS, keep_days=90)
    assert (idle.messages, idle.requests, idle.storage) == (0, 0, 0) and idle.base == pytest.approx(9.71, abs=0.1)
    million = services_cost(prices, images=1e6 * DAYS, bytes_in=0, days=DAYS, keep_days=90)
    assert million.messages == pytest.approx((390e6 - 13e6 * DAYS / 30.4375) * 0.8e-6 + 0.6 * 30, rel=0.01)
    kept = services_cost(prices, images=0, bytes_in=1e12, days=1, keep_days=30.4375)
    assert kept.storage == pytest.approx(2.1 * 1000 * 0.02)
