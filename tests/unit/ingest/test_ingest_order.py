"""In which order the handler takes uploads up, and what it does with one that comes twice at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from fusebus.bus import Context, Lately
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated
from fusebus.contracts.outcomes import Aside, Done
from fusebus.contracts.topology import FEW_UPLOADS, UPLOAD_SESSIONS
from fusebus.ingest.fairness import Turns
from fusebus.ingest.inhand import InHand
from fusebus.ingest.overtaking import Overtaking
from fusebus.validation import Verdict
from tests.unit.ingest.test_ingest_handler import NOW, Bench, check, upload_id


async def test_a_floods_event_without_a_lane_lets_others_pass_before_it_is_sent_on() -> None:
    bench = Bench()
    held: list[datetime | None] = []

    class Held(Overtaking):
        async def let_pass(self, enqueued_at: datetime | None) -> None:
            held.append(enqueued_at)

    async def search(floods: Callable[[str], bool]) -> int:
        return 0

    lately, turns = Lately(), Turns(1)
    ports = Held(search=search, arrived=lately, turns=turns, settings=bench.settings, clock=lambda: NOW)
    ingest = bench.handler(turns=turns, arrived=lately, overtaking=ports)
    for number in range(FEW_UPLOADS + 1):
        event, came = bench.upload(str(number)), NOW + timedelta(seconds=number)
        outcome = await ingest(event, Context(envelope=Envelope(message=event), enqueued_at=came))
        assert isinstance(outcome, Done if number < FEW_UPLOADS else Aside)
    assert held == [NOW + timedelta(seconds=FEW_UPLOADS)]
    alone = bench.upload("in a session")
    envelope = Envelope(message=alone, session="acme")
    outcome = await ingest(alone, Context(envelope=envelope, enqueued_at=NOW, subscription=UPLOAD_SESSIONS))
    assert isinstance(outcome, Done) and len(held) == 1, "nobody else's events wait behind a session's"
    laned = bench.upload("laned")
    outcome = await ingest(laned, Context(envelope=Envelope(message=laned, upload_lane="1"), enqueued_at=NOW))
    assert isinstance(outcome, Done) and len(held) == 1


async def test_an_upload_that_comes_twice_at_a_time_is_judged_once() -> None:
    bench, judged, goes_on = Bench(), list[bytes](), asyncio.Event()

    async def slow(data: bytes) -> Verdict:
        judged.append(data)
        await goes_on.wait()
        return await check(data)

    ingest = bench.handler(check=slow)
    event = bench.upload("a")
    other = bench.upload("b", b"another")
    coming = [
        asyncio.create_task(ingest(one, Context(envelope=Envelope(message=one)))) for one in (event, event, other)
    ]
    await asyncio.sleep(0.05)
    assert sorted(judged) == [b"another", b"photo"]
    goes_on.set()
    first, again, _ = await asyncio.gather(*coming)
    assert len(judged) == 2
    assert isinstance(first, Done) and isinstance(again, Done)
    assert [one.message for one in again.publish] == [one.message for one in first.publish], "the topic drops it"


async def test_an_event_whose_upload_was_found_by_listing_waits_until_others_few_are_done() -> None:
    bench, turns, order = Bench(), Turns(1), list[str]()

    async def judge(data: bytes) -> Verdict:
        order.append(data.decode())
        return await check(data)

    ingest = bench.handler(check=judge, turns=turns, announced=lambda place: place.upload_id == upload_id("found"))

    async def comes(event: BlobCreated) -> None:
        assert isinstance(await ingest(event, Context(envelope=Envelope(message=event))), Done)

    async with turns.of("someone", 0):
        coming = [asyncio.create_task(comes(bench.upload(name, name.encode()))) for name in ("found", "one", "two")]
        await asyncio.sleep(0)
    await asyncio.gather(*coming)
    assert order == ["one", "two", "found"]


async def test_who_waits_behind_a_flood_holds_no_upload_that_another_event_of_it_may_deal_with_at_once() -> None:
    bench, turns = Bench(), Turns(1)
    ingest = bench.handler(turns=turns, announced=lambda place: True)
    event = bench.upload("a")
    with turns.expecting(20):
        second = asyncio.create_task(ingest(event, Context(envelope=Envelope(message=event))))
        await asyncio.sleep(0)
        announced = Envelope(message=event, upload_lane="0")
        assert isinstance(await asyncio.wait_for(ingest(event, Context(envelope=announced)), 20), Done)
        assert not second.done()
    await second


async def test_what_was_dealt_with_is_remembered_until_so_many_others_were() -> None:
    in_hand = InHand(remembered=2)
    async with in_hand.alone("a"):
        assert "a" in in_hand
    for other in ("b", "a", "c"):
        async with in_hand.alone(other):
            pass
    assert ["a" in in_hand, "b" in in_hand, "c" in in_hand] == [True, False, True]
