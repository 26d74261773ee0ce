"""The ledger against real tables: one run per upload, whoever races whom, and no effect twice."""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.contracts import identity
from fusebus.contracts.messages import JobKind, RejectReason
from fusebus.host import Secret
from fusebus.ledger import (
    CostSample,
    Decision,
    Entered,
    Final,
    FinalKind,
    FinalRecorded,
    ImageFacts,
    Ledger,
    LedgerError,
    LedgerSettings,
    LedgerUnavailable,
    RunRow,
    RunState,
    UploadEntry,
    UploadRow,
)
from fusebus.ledger.tables import Row

NOW = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
FAILED = Final(kind=FinalKind.FAILED, at=NOW, reason="gave_up")


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as opened:
        await opened.create_tables()
        yield opened


@pytest.fixture
async def other(ledger: Ledger, ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    """The same tables as another process sees them."""
    async with Ledger(ledger_settings) as opened:
        yield opened


def entry(name: str = "photo.jpg", supplier: str = "acme", reject: RejectReason | None = None) -> UploadEntry:
    image = identity.digest("image", name)
    return UploadEntry(
        upload_id=identity.upload_id(f"in-{supplier}", name, "0x1"),
        supplier=supplier,
        container=f"in-{supplier}",
        blob_name=name,
        blob_etag="0x1",
        size=1234,
        uploaded_at=NOW,
        image=None if reject else ImageFacts(image_id=image, sha256=image * 2, format="jpeg", width=4, height=3),
        reject_reason=reject,
    )


def loses_the_answer_of(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The next such request succeeds, but its sender is told what a repeat of it would be told: the guard fails."""
    tables = ledger._tables
    real = getattr(tables, method)

    async def once(*arguments: object) -> None:
        monkeypatch.setattr(tables, method, real)
        assert await real(*arguments) is not None

    monkeypatch.setattr(tables, method, once)


async def test_the_first_upload_opens_a_run_and_the_next_joins_it(ledger: Ledger) -> None:
    first = await ledger.enter_upload(entry("1"), NOW)
    second = await ledger.enter_upload(entry("2"), NOW + timedelta(seconds=3))
    assert (first.opened, second.opened) == (True, False)
    assert first.run_id == second.run_id == identity.run_id("acme", NOW, first.upload.upload_id)
    run = await ledger.run(first.run_id)
    assert run is not None
    assert (run.state, run.opened_at, run.last_upload_at) == (RunState.OPEN, NOW, NOW + timedelta(seconds=3))
    assert {upload.blob_name for upload in await ledger.uploads(first.run_id)} == {"1", "2"}


async def test_a_repeat_finds_its_own_row_with_the_verdict_entered_first(ledger: Ledger, other: Ledger) -> None:
    first = await ledger.enter_upload(entry(), NOW)
    await ledger.enter_upload(entry("another"), NOW)
    repeated = await other.enter_upload(entry(reject=RejectReason.BLOB_VANISHED), NOW + timedelta(hours=1))
    assert (repeated.upload, repeated.opened) == (first.upload, True)
    assert repeated.run is not None and repeated.run.run_id == first.run_id
    assert await other.find_upload(first.upload.upload_id) == repeated


async def test_an_upload_nobody_entered_is_not_found(ledger: Ledger) -> None:
    assert await ledger.find_upload("0" * 32) is None
    assert await ledger.upload("20260102T030405Z-acme-00000000", "0" * 32) is None


async def test_suppliers_have_runs_of_their_own(ledger: Ledger) -> None:
    one, two = await ledger.enter_upload(entry(), NOW), await ledger.enter_upload(entry(supplier="other"), NOW)
    assert one.run_id != two.run_id
    assert [run.run_id for run in await ledger.runs("other")] == [two.run_id]


async def test_an_upload_after_the_close_opens_the_next_run_and_a_repeat_stays_in_the_old_one(
    ledger: Ledger, other: Ledger
) -> None:
    first = await ledger.enter_upload(entry("1"), NOW)
    await other.close_run(first.run_id, NOW, requested_by="supplier")
    later = await ledger.enter_upload(entry("2"), NOW + timedelta(minutes=1))
    assert later.run_id != first.run_id
    assert later.opened
    assert (await ledger.enter_upload(entry("1"), NOW)).run_id == first.run_id
    assert [run.run_id for run in await ledger.runs()] == [later.run_id, first.run_id]
    assert [run.run_id for run in await ledger.runs("acme", limit=1)] == [later.run_id]


async def test_runs_opened_and_closed_within_one_second_never_share_a_name(ledger: Ledger) -> None:
    """Uploads with one head in their ids, or one upload that finds run after run closed, would name the same run."""
    runs = []
    for number in range(4):
        alike = msgspec.structs.replace(entry(str(number)), upload_id=f"{'a' * 31}{number}")
        runs.append((await ledger.enter_upload(alike, NOW)).run_id)
        await ledger.close_run(runs[-1], NOW)
    assert len(set(runs)) == 4


async def test_an_upload_bound_to_a_run_that_closed_before_it_entered_goes_into_the_next(ledger: Ledger) -> None:
    mine = entry("late")
    first = await ledger.enter_upload(entry("1"), NOW)
    await ledger._tables.insert(
        "assigned", Row(mine.upload_id, "upload", {"run_id": first.run_id})
    )  # then it was killed
    await ledger.close_run(first.run_id, NOW)
    entered = await ledger.enter_upload(mine, NOW + timedelta(seconds=1))
    assert entered.run_id != first.run_id
    assert [upload.blob_name for upload in await ledger.uploads(first.run_id)] == ["1"]
    found = await ledger.find_upload(mine.upload_id)
    assert found is not None and found.run_id == entered.run_id


async def test_a_run_named_by_an_ingest_that_was_killed_is_opened_by_the_next_upload(ledger: Ledger) -> None:
    named = await ledger._open_run(entry("killed"), NOW)
    assert await ledger.runs() == []
    entered = await ledger.enter_upload(entry("next"), NOW + timedelta(seconds=5))
    assert (entered.run_id, entered.opened) == (named, True)
    assert [run.first_upload_id for run in await ledger.runs()] == [entered.upload.upload_id]


@pytest.mark.parametrize("method", ["write_together", "insert"])
async def test_a_write_whose_answer_got_lost_is_recognised_as_our_own(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for name in ("opens", "joins"):
        loses_the_answer_of(ledger, monkeypatch, method)
        await ledger.enter_upload(entry(name), NOW)
    loses_the_answer_of(ledger, monkeypatch, "write_together")
    await ledger.enter_upload(entry("joins too"), NOW)
    (run,) = await ledger.runs()
    assert len(await ledger.uploads(run.run_id)) == 3


async def test_two_ingests_entering_at_once_share_one_run_and_one_of_them_opened_it(
    ledger: Ledger, other: Ledger
) -> None:
    entered = await asyncio.gather(
        *((ledger, other)[number % 2].enter_upload(entry(str(number)), NOW) for number in range(40))
    )
    assert len({one.run_id for one in entered}) == 1
    assert sum(one.opened for one in entered) == 1
    assert len(await ledger.uploads(entered[0].run_id)) == 40


async def test_an_ingest_is_not_starved_by_a_busy_one(ledger: Ledger, other: Ledger) -> None:
    async def busy() -> None:
        for number in itertools.count():
            await ledger.enter_upload(entry(f"busy {number}"), NOW)

    task = asyncio.create_task(busy())
    async with asyncio.timeout(60):
        for number in range(10):
            await other.enter_upload(entry(str(number)), NOW)
    assert not task.done()
    task.cancel()


async def test_the_same_upload_entered_by_two_ingests_at_once_is_one_row(ledger: Ledger, other: Ledger) -> None:
    for number in range(10):
        one, two = await asyncio.gather(*(x.enter_upload(entry(str(number)), NOW) for x in (ledger, other)))
        assert one.upload == two.upload
        assert one.opened == two.opened
    assert len(await ledger.uploads(one.run_id)) == 10


async def test_closing_while_entering_never_loses_or_doubles_an_upload(
    ledger: Ledger, other: Ledger, ledger_settings: LedgerSettings
) -> None:
    seen_at_close: dict[str, set[str]] = {}

    async def close_again_and_again(closer: Ledger) -> None:
        while True:
            await asyncio.sleep(0.01)
            for run in await closer.runs():  # the open one need not be the newest: uploads' times are not in order
                if run.state is RunState.OPEN and await closer.close_run(run.run_id, NOW):
                    seen_at_close[run.run_id] = {upload.upload_id for upload in await closer.uploads(run.run_id)}

    async def enter(ingest: Ledger, numbers: range) -> list[Entered]:
        return [await ingest.enter_upload(entry(str(n)), NOW + timedelta(seconds=n)) for n in numbers]

    async with Ledger(ledger_settings) as closer:
        closing = asyncio.create_task(close_again_and_again(closer))
        batches = await asyncio.gather(*(enter((ledger, other)[n % 2], range(n, 80, 4)) for n in range(4)))
        assert not closing.done()
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
    entered = [one for batch in batches for one in batch]
    runs = await ledger.runs()
    held = {run.run_id: {upload.upload_id for upload in await ledger.uploads(run.run_id)} for run in runs}
    assert len(seen_at_close) > 1, "the race did not take place"
    assert Counter(upload for run in held.values() for upload in run) == Counter(
        one.upload.upload_id for one in entered
    )
    assert len(entered) == 80
    assert all(one.upload.upload_id in held[one.run_id] for one in entered)
    assert all(held[run] == seen for run, seen in seen_at_close.items()), "an upload entered a closed run"
    for run in runs:
        assert [one.run_id for one in entered if one.opened].count(run.run_id) == 1


async def test_a_quiet_run_stays_open_where_an_upload_came_meanwhile(ledger: Ledger, other: Ledger) -> None:
    entered = await ledger.enter_upload(entry("1"), NOW)
    seen = await other.run(entered.run_id)
    await ledger.enter_upload(entry("2"), NOW)
    run = await other.close_run(entered.run_id, NOW, unchanged=seen)
    assert run is not None and run.state is RunState.OPEN
    closed = await other.close_run(entered.run_id, NOW, unchanged=run)
    assert closed is not None and (closed.state, closed.closed_at) == (RunState.CLOSED, NOW)


async def test_a_run_closes_once_completes_once_and_keeps_the_first_times(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = (await ledger.enter_upload(entry(), NOW)).run_id
    run = await ledger.complete_run(run_id, NOW)
    assert run is not None and run.state is RunState.OPEN
    loses_the_answer_of(ledger, monkeypatch, "replace")
    closed = await ledger.close_run(run_id, NOW, requested_by="ops")
    assert await ledger.close_run(run_id, NOW + timedelta(hours=1)) == closed
    loses_the_answer_of(ledger, monkeypatch, "replace")
    complete = await ledger.complete_run(run_id, NOW)
    assert await ledger.complete_run(run_id, NOW + timedelta(hours=1)) == complete == await ledger.run(run_id)
    assert complete is not None
    assert (complete.state, complete.closed_at, complete.close_requested_by) == (RunState.COMPLETE, NOW, "ops")


async def test_a_run_that_is_not_there_is_none(ledger: Ledger) -> None:
    assert await ledger.run("20260102T030405Z-acme-00000000") is None
    assert await ledger.close_run("20260102T030405Z-acme-00000000", NOW) is None
    assert await ledger.complete_run("20260102T030405Z-acme-00000000", NOW) is None
    assert await ledger.uploads("20260102T030405Z-acme-00000000") == []


async def test_the_first_final_stays(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = (await ledger.enter_upload(entry(), NOW)).upload
    final = Final(kind=FinalKind.ANALYSED, at=NOW, analysis_id="a", detections=3, best_score=0.875)
    at = (upload.run_id, upload.upload_id)
    loses_the_answer_of(ledger, monkeypatch, "replace")
    assert await ledger.record_final(*at, final) is FinalRecorded.NEW
    assert await ledger.record_final(*at, final) is FinalRecorded.SAME
    assert await ledger.record_final(*at, msgspec.structs.replace(final, worker="2")) is FinalRecorded.SAME
    assert await ledger.record_final(*at, FAILED) is FinalRecorded.CONFLICTING
    assert await ledger.record_final(upload.run_id, "0" * 32, FAILED) is FinalRecorded.UNKNOWN_UPLOAD
    stored = await ledger.upload(*at)
    assert stored is not None and stored.final == final


async def test_of_two_finals_at_once_exactly_one_is_new(ledger: Ledger, other: Ledger) -> None:
    upload = (await ledger.enter_upload(entry(), NOW)).upload
    answers = await asyncio.gather(
        ledger.record_final(upload.run_id, upload.upload_id, Final(kind=FinalKind.ANALYSED, at=NOW)),
        other.record_final(upload.run_id, upload.upload_id, FAILED),
    )
    assert sorted(answers) == [FinalRecorded.CONFLICTING, FinalRecorded.NEW]


async def test_an_image_belongs_to_the_upload_that_claimed_it_first(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    loses_the_answer_of(ledger, monkeypatch, "insert")
    first = await ledger.claim_image("acme", "i" * 32, "u1", "r1")
    assert first.upload_id == "u1"
    assert await other.claim_image("acme", "i" * 32, "u2", "r2") == first
    assert (await other.claim_image("zenith", "i" * 32, "u2", "r2")).upload_id == "u2"
    converted = await other.claim_image("acme", "i" * 32, "u2", "r2", JobKind.CONVERT)
    assert (converted.upload_id, converted.job_kind) == ("u2", JobKind.CONVERT), "its analysis is another's business"
    assert await ledger.claim_image("acme", "i" * 32, "u3", "r3", JobKind.CONVERT) == converted
    taken = await ledger.take_over_image(converted, "u3", "r3")
    assert await other.claim_image("acme", "i" * 32, "u4", "r4", JobKind.CONVERT) == taken
    assert await other.claim_image("acme", "i" * 32, "u4", "r4") == first


async def test_of_two_claims_or_takeovers_at_once_both_learn_the_same_owner(ledger: Ledger, other: Ledger) -> None:
    for number in range(5):
        image = f"{number:032d}"
        one, two = await asyncio.gather(
            ledger.claim_image("acme", image, "u1", "r"), other.claim_image("acme", image, "u2", "r")
        )
        assert one == two
        three, four = await asyncio.gather(
            ledger.take_over_image(one, "u3", "r"), other.take_over_image(two, "u4", "r")
        )
        assert three == four
        assert three.upload_id in ("u3", "u4")


async def test_a_mail_has_one_sender_and_a_repeat_is_taken_over_by_one(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.mail_marker("r") is None
    mine, seen = await asyncio.gather(
        ledger.intend_mail("r", "<r@fusebus>", "one", NOW), other.intend_mail("r", "<r@fusebus>", "two", NOW)
    )
    assert mine == seen
    repeats = await asyncio.gather(ledger.repeat_mail(mine, "three", NOW), other.repeat_mail(mine, "four", NOW))
    (repeat,) = [found for found in repeats if found]
    assert (repeat.tries, repeat.message_id, repeat.intended_at) == (2, "<r@fusebus>", NOW)
    done = await ledger.mail_done("r", NOW + timedelta(seconds=1))
    assert done == await other.mail_done("r", NOW + timedelta(hours=1)) == await other.mail_marker("r")
    assert done is not None and await other.repeat_mail(done, "five", NOW) is None
    assert await ledger.mail_done("unknown", NOW) is None


async def test_decisions_come_newest_first_and_a_repeat_adds_none(ledger: Ledger) -> None:
    decisions = [
        Decision(
            pool="gpu", decided_at=NOW + timedelta(seconds=n), nodes=n, workers=n, because=f"{n}", facts={"depth": n}
        )
        for n in range(5)
    ]
    for decision in [*decisions, decisions[2]]:
        await ledger.write_decision(decision)
    assert await ledger.decisions("gpu", limit=3) == decisions[:1:-1]
    assert len(await ledger.decisions("gpu")) == 5
    assert await ledger.decisions("cpu") == []


async def test_the_cost_of_a_month_counts_each_interval_once(ledger: Ledger) -> None:
    def sample(minute: int, pool: str = "gpu") -> CostSample:
        start = NOW + timedelta(minutes=minute)
        return CostSample(
            pool=pool,
            started_at=start,
            ended_at=start + timedelta(minutes=1),
            node_seconds=120.0,
            cost=0.5,
            currency="USD",
            estimated=True,
        )

    for one in (sample(0), sample(1), sample(1), sample(1, "cpu")):
        await ledger.add_cost_sample(one)
    month = await ledger.cost_of_month("2026-05")
    assert (month.samples, month.node_seconds, month.cost, month.estimated) == (3, 360.0, {"USD": 1.5}, True)
    empty = await ledger.cost_of_month("2026-04")
    assert (empty.samples, empty.cost, empty.estimated) == (0, {}, False)


async def test_odd_names_are_kept_as_data(ledger: Ledger) -> None:
    names = [
        "../../etc/passwd",
        "a\x00b",
        "\u202egpj.exe",
        "é",
        "e\u0301",
        "x" * 1024,
        "100%25",
        "<b>&'\"",
        "#?/\\",
        "\n",
    ]
    entered = [await ledger.enter_upload(entry(name), NOW) for name in names]
    stored = await ledger.uploads(entered[0].run_id)
    assert sorted(upload.blob_name for upload in stored) == sorted(names)


async def test_a_missing_table_is_an_error_that_waiting_does_not_help(ledger_settings: LedgerSettings) -> None:
    async with Ledger(ledger_settings) as ledger:
        with pytest.raises(LedgerError) as caught:
            await ledger.enter_upload(entry(), NOW)
        assert not isinstance(caught.value, LedgerUnavailable)
        assert "assigned" in str(caught.value)


async def test_tables_that_do_not_answer_are_unavailable_within_the_set_time() -> None:
    nowhere = LedgerSettings(
        connection=Secret(
            "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:1/a;"
        ),
        retries=1,
        retry_backoff_seconds=0.01,
    )
    async with Ledger(nowhere) as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.run("20260102T030405Z-acme-00000000")


async def test_a_clock_that_is_behind_makes_no_run_quiet(ledger: Ledger, other: Ledger) -> None:
    first = await ledger.enter_upload(entry("1"), NOW)
    await other.enter_upload(entry("2"), NOW - timedelta(minutes=9))
    run = await ledger.run(first.run_id)
    assert run is not None and run.last_upload_at == NOW


async def test_a_twin_that_enters_just_before_its_run_closes_is_seen(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload is read before its twin enters it, the header after the run has closed."""
    first = await other.enter_upload(entry("1"), NOW)
    mine = entry("2")
    await ledger._tables.insert("assigned", Row(mine.upload_id, "upload", {"run_id": first.run_id}))
    read_run, read_upload = ledger.run, ledger.upload
    upload_read, headers = asyncio.Event(), 0

    async def early_upload(run_id: str, upload_id: str) -> UploadRow | None:
        found = await read_upload(run_id, upload_id)
        if headers == 3:
            upload_read.set()
        return found

    async def late_header(run_id: str) -> RunRow | None:
        nonlocal headers
        headers += 1
        if headers == 3:  # after those for finding the upload and the open run: the look before it is inserted
            async with asyncio.timeout(60):
                await upload_read.wait()
            await other.enter_upload(mine, NOW)
            await other.close_run(run_id, NOW)
        return await read_run(run_id)

    monkeypatch.setattr(ledger, "upload", early_upload)
    monkeypatch.setattr(ledger, "run", late_header)
    entered = await ledger.enter_upload(mine, NOW)
    assert upload_read.is_set(), "the race did not take place"
    assert entered.run_id == first.run_id


async def test_a_taken_over_intent_whose_answer_got_lost_is_still_ours(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = await ledger.intend_mail("run", "<id@host>", "dead", NOW)
    loses_the_answer_of(ledger, monkeypatch, "replace")
    mine = await ledger.repeat_mail(marker, "alive", NOW + timedelta(minutes=1))
    assert mine is not None and (mine.intended_by, mine.tries) == ("alive", 2)
