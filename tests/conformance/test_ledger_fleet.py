"""Pins, pauses, statuses, windows and decisions in Azurite's tables."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.ledger import Decision, Ledger, LedgerSettings, Pause, Pin, PoolStatus, QuotaLine, Remembered, Window

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PIN = Pin(pool="gpu", nodes=3, until=NOW + HOUR, set_by="ops@desk", set_at=NOW, reason="a 100 % test / demo")
PAUSE = Pause(pool="gpu", set_by="ops@desk", set_at=NOW)


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        yield ledger


async def test_the_last_pin_counts_until_its_time(ledger: Ledger) -> None:
    await ledger.set_pin(PIN)
    await ledger.set_pin(msgspec.structs.replace(PIN, nodes=5))
    assert (await ledger.controls(NOW)).pins["gpu"].nodes == 5
    assert (await ledger.controls(NOW + HOUR)).pins == {}
    assert await ledger.lift_pin("gpu", NOW)
    assert not await ledger.lift_pin("gpu", NOW)
    assert (await ledger.controls(NOW)).pins == {}


async def test_a_pause_of_all_pools_and_one_of_a_pool_are_lifted_apart(ledger: Ledger) -> None:
    await ledger.set_pause(PAUSE)
    await ledger.set_pause(msgspec.structs.replace(PAUSE, pool="", to_zero=True))
    found = await ledger.controls(NOW)
    assert found.pause_of("gpu") == found.pauses[""], "of two pauses the one that empties counts"
    assert found.pause_of("other") == found.pauses[""]
    assert await ledger.lift_pause("", NOW)
    found = await ledger.controls(NOW)
    assert (found.pause_of("gpu"), found.pause_of("other")) == (PAUSE, None)
    assert not await ledger.lift_pause("other", NOW)


async def test_a_pools_last_status_is_kept(ledger: Ledger) -> None:
    quota = [QuotaLine(region="uksouth", family="standardNCASv3_T4Family", spot=True, cores=8, used=4)]
    status = PoolStatus(pool="gpu", looked_at=NOW, job_kind="detect", vm_size="x", nodes={"idle": 2}, quota=quota)
    await ledger.write_pool_status(status)
    later = msgspec.structs.replace(status, looked_at=NOW + HOUR)
    await ledger.write_pool_status(later)
    await ledger.write_pool_status(msgspec.structs.replace(status, pool="a-first"))
    assert [found.pool for found in await ledger.pool_statuses()] == ["a-first", "gpu"]
    assert (await ledger.pool_statuses())[1] == later


async def test_windows_are_read_in_the_order_in_which_they_open(ledger: Ledger) -> None:
    windows = [
        Window(job_kind=kind, opens_at=NOW + hours * HOUR, deadline=NOW + 12 * HOUR, images=images)
        for kind, hours, images in (("detect", 8, 10), ("convert", 2, 5), ("detect", 30, 1))
    ]
    for window in (*windows, windows[0]):
        await ledger.announce_window(window)
    await ledger.announce_window(msgspec.structs.replace(windows[0], images=20))
    found = await ledger.windows(NOW, NOW + 24 * HOUR)
    assert [(window.job_kind, window.images) for window in found] == [("convert", 5), ("detect", 20)]


async def test_the_decision_that_was_in_force_at_a_time_is_found(ledger: Ledger) -> None:
    for minutes in (0, 10, 20):
        decided = NOW + timedelta(minutes=minutes)
        await ledger.write_decision(Decision(pool="gpu", decided_at=decided, nodes=minutes, workers=0, because="x"))
    for at, nodes in ((0, [0]), (15, [10]), (20, [20]), (99, [20]), (-1, [])):
        found = await ledger.decisions("gpu", 1, at=NOW + timedelta(minutes=at))
        assert [decision.nodes for decision in found] == nodes, at


async def test_notes_of_a_later_term_stand_and_are_read_back(ledger: Ledger) -> None:
    assert await ledger.remembered("gpu") is None
    notes = Remembered(subject="gpu", term=2, kept_at=NOW, notes='{"a": "100 %"}')
    assert await ledger.remember(notes) == 2
    assert await ledger.remember(msgspec.structs.replace(notes, notes="2")) == 2, "its own word may change"
    assert await ledger.remember(msgspec.structs.replace(notes, term=1, notes="1")) == 2
    found = await ledger.remembered("gpu")
    assert found is not None and (found.term, found.notes) == (2, "2")
    await ledger.write_pool_status(PoolStatus(pool="gpu", looked_at=NOW, job_kind="detect", vm_size="x"))
    assert [status.pool for status in await ledger.pool_statuses()] == ["gpu"]
