"""How much a supplier sent lately, and in which lane its next upload waits, on a clock of our own."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from fusebus.bus import Lately, Parcel
from fusebus.bus.lately import HALF_LIFE, MANY_SUPPLIERS, placed
from fusebus.contracts.envelope import Envelope, fresh
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, RunCheck
from fusebus.contracts.topology import ASIDE


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def upload(supplier: str) -> Parcel:
    event = BlobCreated(
        id="e",
        source="/s",
        subject=f"/blobServices/default/containers/in-{supplier}/blobs/a.jpg",
        time=datetime(2026, 5, 4, tzinfo=UTC),
        data=BlobCreatedData(e_tag="0x1"),
    )
    return Parcel(envelope=fresh(event), topic="uploads")


def changed(parcel: Parcel, **changes: object) -> Envelope:
    return msgspec.structs.replace(parcel.envelope, **changes)


def test_what_came_counts_less_and_less() -> None:
    clock = Clock()
    lately = Lately(clock=clock)
    assert [lately.add("a") for _ in range(8)][-1] == lately.of("a") == 8
    clock.now += HALF_LIFE
    assert lately.of("a") == pytest.approx(4)
    assert lately.of("b") == 0


def test_suppliers_of_long_ago_are_forgotten() -> None:
    clock = Clock()
    lately = Lately(clock=clock)
    for number in range(MANY_SUPPLIERS):
        lately.add(f"s{number}")
    clock.now += 10 * HALF_LIFE
    lately.add("new")
    assert len(lately._counts) == 1


def lanes_of(count: int, supplier: str, sent: Lately) -> list[str | None]:
    return [parcel.envelope.upload_lane for parcel in placed([upload(supplier)] * count, sent)]


def test_a_flood_goes_from_lane_to_lane_and_comes_back_after_a_while() -> None:
    clock = Clock()
    sent = Lately(clock=clock)
    lanes = [lane for _ in range(1000) for lane in lanes_of(1, "flood", sent)]
    assert [lanes.count(lane) for lane in ("0", "1", "2", "3", ASIDE)] == [10, 50, 120, 360, 460]
    assert lanes == sorted(lanes, key=[*"0123", ASIDE].index)
    assert [lanes_of(1, "few", sent) for _ in range(10)] == [["0"]] * 10
    clock.now += 7 * HALF_LIFE
    assert lanes_of(1, "flood", sent) == ["0"]


def test_what_is_sent_together_waits_together() -> None:
    sent = Lately()
    mixed = placed([upload("flood"), upload("few")] * 10 + [upload("flood")] * 90, sent)
    assert [one.envelope.upload_lane for one in mixed] == ["2", "0"] * 10 + ["2"] * 90


def test_what_has_its_place_stays_there_and_does_not_count() -> None:
    sent = Lately()
    for envelope in (changed(upload("a"), upload_lane=ASIDE), changed(upload("a"), only="ingest")):
        assert placed([Parcel(envelope=envelope, topic="uploads")], sent)[0].envelope is envelope
    other = Parcel(envelope=fresh(RunCheck(run_id="r", supplier="a")), topic="results")
    assert placed([other], sent) == [other]
    assert sent.of("a") == 0
