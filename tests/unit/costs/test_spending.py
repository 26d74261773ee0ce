"""Whose a cost is: runs and suppliers share their nodes' spells, and nothing is lost or counted twice."""

import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.costs.spending import NOBODY, SERVICES, By, Report, Work, report

START = datetime(2026, 11, 10, 8, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    pool: str = "gpu"
    started_at: datetime
    ended_at: datetime
    node_seconds: float = 60
    spot_node_seconds: float = 0
    cost: float = 1.0
    currency: str = "GBP"
    serves: str = "detect"


def minute(number: float, **more: object) -> Sample:
    return Sample(**{"started_at": at(number), "ended_at": at(number + 1), **more})  # type: ignore[arg-type]


def work(done: float | None, supplier: str = "acme", seconds: float = 1.0, **more: str) -> Work:
    done_at = None if done is None else at(done)
    facts = {"run_id": f"run-{supplier}", "serves": "detect", **more}
    return Work(supplier=supplier, entered_at=at(0), done_at=done_at, worker_seconds=seconds, **facts)


def by(kind: By, samples: list[Sample], works: list[Work]) -> Report:
    return report("2026-11", kind, "GBP", samples, works)


def costs(found: Report) -> dict[str, float]:
    return {line.name: line.cost for line in found.lines}


def test_a_spell_with_boot_and_idle_is_shared_by_worker_seconds() -> None:
    samples = [minute(number) for number in range(10)]
    found = by(By.SUPPLIER, samples, [work(5, seconds=3), work(6, "beta"), work(None, "late")])
    assert costs(found) == pytest.approx({"acme": 7.5, "beta": 2.5, "late": 0})
    acme = found.lines[0]
    assert (acme.images, acme.per_image, acme.node_hours) == (1, 7.5, pytest.approx(7.5 / 60))
    assert found.total.cost == 10


def test_a_spell_of_very_many_images_is_shared_in_no_time() -> None:
    works = [work(5)] * 40_000
    begun = time.process_time()
    assert costs(by(By.SUPPLIER, [minute(number) for number in range(10)], works)) == pytest.approx({"acme": 10})
    assert time.process_time() - begun < 8.0  # seconds; squared, it would be far more


@pytest.mark.parametrize("kind", By)
def test_an_image_counts_in_one_month_and_has_its_part_in_both_sides_of_a_spell_over_the_months_end(kind: By) -> None:
    end = datetime(2026, 12, 1, tzinfo=UTC)
    minutes = (end - START).total_seconds() / 60
    works = [work(minutes - 1), work(minutes + 5)]
    for month, sample in (("2026-11", minute(minutes - 10)), ("2026-12", minute(minutes + 4))):
        found = report(month, kind, "GBP", [sample], works)
        assert (found.total.images, sum(line.images for line in found.lines), found.total.cost) == (1, 1, 1)
        assert NOBODY not in costs(found)


def test_spells_are_apart_after_a_pause_and_what_no_image_had_a_part_in_is_nobodys() -> None:
    samples = [minute(0), minute(1), minute(60, cost=5.0)]
    assert costs(by(By.RUN, samples, [work(1.5)])) == {"run-acme": 2, NOBODY: 5}


def test_pools_of_one_kind_share_a_spell_and_kinds_are_apart() -> None:
    samples = [minute(0), minute(0, pool="big", cost=4.0), minute(0, pool="cpu", serves="convert", cost=0.5)]
    works = [work(0.5), work(0.6, "beta", serves="convert")]
    assert costs(by(By.SUPPLIER, samples, works)) == {"acme": 5, "beta": 0.5}


def test_a_result_that_is_recorded_just_after_the_node_went_still_counts() -> None:
    assert costs(by(By.RUN, [minute(0)], [work(3)])) == {"run-acme": 1}


def test_a_pool_that_never_goes_leaves_its_idle_hours_to_nobody() -> None:
    samples = [minute(number) for number in range(24 * 60)]
    found = costs(by(By.SUPPLIER, samples, [work(30)]))
    assert found == pytest.approx({"acme": 360, NOBODY: 1080})


def test_storage_and_messages_of_a_day_are_shared_by_its_uploads_equally() -> None:
    day = Sample(pool=SERVICES, started_at=at(-480), ended_at=at(960), node_seconds=0, cost=3.0, serves="")
    found = by(By.SUPPLIER, [minute(0), day], [work(0.5), work(None), work(None, "beta")])
    assert costs(found) == {"acme": 3, "beta": 1}
    assert found.lines[1].nodes == 0
    assert costs(by(By.SUPPLIER, [day], [])) == {NOBODY: 3}


def test_days_and_pools_are_added_up_with_their_images() -> None:
    samples = [minute(0), minute(24 * 60, cost=2.0), minute(0, pool="cpu", serves="convert")]
    works = [work(0.5), work(0.6), work(24 * 60, serves="convert")]
    days = by(By.DAY, samples, works)
    assert [(line.name, line.cost, line.images) for line in days.lines] == [("2026-11-10", 2, 2), ("2026-11-11", 2, 1)]
    pools = by(By.POOL, samples, works)
    assert [(line.name, line.cost, line.images) for line in pools.lines] == [("cpu", 1, 1), ("gpu", 3, 2)]
    day = Sample(pool=SERVICES, started_at=at(0), ended_at=at(960), node_seconds=0, cost=3.0, serves="")
    assert costs(by(By.POOL, [minute(0), day], [])) == {"gpu": 1, "(storage, messages)": 3}


def test_other_currencies_are_named_not_added() -> None:
    found = by(By.DAY, [minute(0), minute(1, currency="USD")], [])
    assert found.total.cost == 1 and found.other_currencies == ("USD",)


@given(
    starts=st.lists(st.integers(0, 3000), unique=True, max_size=40),
    dones=st.lists(st.tuples(st.floats(0, 3000), st.sampled_from(["acme", "beta"]), st.floats(0, 9)), max_size=20),
    kind=st.sampled_from(list(By)),
)
def test_the_lines_add_up_to_the_samples_whoever_shares_them(
    starts: list[int], dones: list[tuple[float, str, float]], kind: By
) -> None:
    samples = [minute(start) for start in starts]
    found = by(kind, samples, [work(done, supplier, seconds) for done, supplier, seconds in dones])
    assert sum(line.cost for line in found.lines) == pytest.approx(len(samples))
    assert sum(line.node_hours for line in found.lines) == pytest.approx(len(samples) / 60)
