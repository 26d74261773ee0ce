"""Runs in real tables: manifests beside photos, photos that wait for others, and photos that are analysed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from fusebus.contracts import identity
from fusebus.contracts.messages import JobKind, Lane
from fusebus.ledger import (
    Final,
    FinalKind,
    FinalRecorded,
    ImageFacts,
    Ledger,
    LedgerSettings,
    ManifestFacts,
    Rerun,
    RunState,
    UploadEntry,
    UploadRow,
    Working,
    work_again,
)

NOW = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
FACTS = ImageFacts(image_id="i", sha256="ab" * 32, format="jpeg", width=4, height=3, quality="dark")


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as opened:
        await opened.create_tables()
        yield opened


def entry(name: str, **more: object) -> UploadEntry:
    given: dict[str, object] = {"image": FACTS, **more}
    return UploadEntry(
        upload_id=identity.upload_id("in-acme", name, "e"),
        supplier="acme",
        container="in-acme",
        blob_name=name,
        blob_etag="e",
        size=1,
        uploaded_at=NOW,
        **given,  # type: ignore[arg-type]
    )


async def enter(ledger: Ledger, *names: str) -> tuple[str, list[UploadRow]]:
    rows = [(await ledger.enter_upload(entry(name), NOW)).upload for name in names]
    return rows[0].run_id, rows


async def test_a_manifest_is_in_its_run_and_is_no_upload(ledger: Ledger) -> None:
    facts = ManifestFacts(listed=2, names="manifest/x.json", sha256="ab" * 32)
    taken = await ledger.enter_upload(entry("manifest.json", image=None, manifest=facts), NOW)
    refused = ManifestFacts(refused="manifest_malformed", explanation="It is none.")
    again = await ledger.enter_upload(entry("manifest-2.json", image=None, manifest=refused), NOW)
    run_id, [photo] = await enter(ledger, "a.jpg")
    assert (taken.opened, again.run_id, run_id) == (True, taken.run_id, taken.run_id)
    contents = await ledger.contents(run_id)
    assert [row.upload_id for row in contents.uploads] == [photo.upload_id]
    assert sorted(row.manifest.refused for row in contents.manifests if row.manifest) == ["", "manifest_malformed"]
    assert await ledger.uploads(run_id) == contents.uploads
    found = await ledger.find_upload(taken.upload.upload_id)
    assert found is not None and found.upload.manifest == facts, "the sweep finds it"


async def test_an_upload_waits_for_another_until_it_has_a_final(ledger: Ledger) -> None:
    run_id, [first, twin] = await enter(ledger, "a.jpg", "b.jpg")
    waiting = await asyncio.gather(*(ledger.wait_for(run_id, twin.upload_id, first.upload_id, run_id) for _ in "ab"))
    assert {row.waits_for for row in waiting if row} == {first.upload_id}
    assert await ledger.wait_for(run_id, "nobody", first.upload_id, run_id) is None
    released = await ledger.wait_for(run_id, twin.upload_id, "", "")
    assert released is not None and (released.waits_for, released.waits_for_run) == ("", "")
    final = Final(kind=FinalKind.ANALYSED, at=NOW)
    assert await ledger.record_final(run_id, twin.upload_id, final) is FinalRecorded.NEW
    late = await ledger.wait_for(run_id, twin.upload_id, first.upload_id, run_id)
    assert late is not None and (late.final, late.waits_for) == (final, ""), "one that has a final waits for nothing"


async def test_a_wait_ends_only_as_the_one_that_it_was(ledger: Ledger) -> None:
    run_id, [first, other, twin] = await enter(ledger, "a.jpg", "b.jpg", "c.jpg")
    for of in (first, other):
        await ledger.wait_for(run_id, twin.upload_id, of.upload_id, run_id)
    row = await ledger.wait_for(run_id, twin.upload_id, "", "", instead_of=(first.upload_id, run_id))
    assert row is not None and row.waits_for == other.upload_id, "it has begun to wait for another meanwhile"
    row = await ledger.wait_for(run_id, twin.upload_id, "", "", instead_of=(other.upload_id, run_id))
    assert row is not None and row.waits_for == row.waits_for_run == ""


async def test_photos_that_are_analysed_again_get_rows_of_their_own_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.ledger.reruns.ROWS_AT_ONCE", 3)
    names = [f"{number}.jpg" for number in range(7)]
    run_id, _ = await enter(ledger, *names)
    done = Final(kind=FinalKind.ANALYSED, at=NOW, model="m@1", analysis_id="a")
    await asyncio.gather(*(ledger.record_final(run_id, row.upload_id, done) for row in await ledger.uploads(run_id)))
    await ledger.close_run(run_id, NOW)
    of = await ledger.complete_run(run_id, NOW)
    assert of is not None
    old = await ledger.uploads(run_id)
    began = await asyncio.gather(*(ledger.begin_rerun(of, "m@2", LATER, who) for who in ("me", "you")))
    assert began[0] == began[1] == await ledger.rerun(run_id, "m@2"), "whoever was first"
    assert await ledger.rerun(run_id, "m@3") is None
    [rerun, _] = began
    await ledger.enter_again(rerun, of, old[:4], Lane.BULK, 60.0)  # interrupted, as if the rest was never written
    rows = await ledger.enter_again(rerun, of, old, Lane.BULK, 60.0)
    new = await ledger.run(rerun.run_id)
    assert new is not None
    assert (new.state, new.reprocess_of, new.model, new.supplier) == (RunState.CLOSED, run_id, "m@2", "acme")
    entered = await ledger.uploads(rerun.run_id)
    assert [row.upload_id for row in entered] == sorted(row.upload_id for row in rows)
    assert {row.reprocess_of for row in entered} == {row.upload_id for row in old}
    assert {(row.final, row.job_kind, row.lane, row.when) for row in entered} == {(None, JobKind.DETECT, Lane.BULK, "")}
    assert await ledger.uploads(run_id) == old, "nothing old is touched"
    assert [run.run_id for run in await ledger.runs("acme")] == [rerun.run_id, run_id]
    opened = await ledger.enter_upload(entry("later.jpg"), LATER)
    assert opened.run_id not in (rerun.run_id, run_id), "a re-analysis takes no uploads"


def test_the_work_names_its_model_and_what_was_rebuilt_from_an_original() -> None:
    rebuilt = Working(name="working/i.jpg", sha256="cd" * 32, size=9)
    for working, expected in ((None, ("in-acme", "a.jpg", "e")), (rebuilt, ("results", "working/i.jpg", ""))):
        facts = msgspec.structs.replace(FACTS, working=working)
        entered = entry("a.jpg", image=facts, lane=Lane.URGENT, deadline_seconds=60.0)
        row = UploadRow(**msgspec.structs.asdict(entered), run_id="r", entered_at=LATER)
        rerun = Rerun(of_run="o", model="m@2", run_id="r", requested_at=LATER, requested_by="me")
        work = work_again(rerun, row, "results")
        assert (work.model, work.lane, work.deadline) == ("m@2", Lane.URGENT, LATER + timedelta(minutes=1))
        assert (work.blob.container, work.blob.name, work.blob.etag) == expected
        assert work.quality == ("dark",)


async def test_runs_that_are_known_are_left_out_and_the_older_ones_come_in_their_place(ledger: Ledger) -> None:
    opened = []
    for hours in range(3):
        at = NOW + timedelta(hours=hours)
        entered = await ledger.enter_upload(entry(f"{hours}.jpg"), at)
        await ledger.close_run(entered.run_id, at + timedelta(minutes=1))
        opened.append(entered.run_id)
    assert [run.run_id for run in await ledger.runs(limit=2)] == [opened[2], opened[1]]
    for supplier in (None, "acme"):
        assert [run.run_id for run in await ledger.runs(supplier, limit=2, skip={opened[2]})] == [opened[1], opened[0]]
