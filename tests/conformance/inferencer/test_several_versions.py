"""Images that several versions saw: one final each, and what the versions' answers have in common."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from model_variants import NAME

from fusebus.blobs import Blobs, BlobSettings
from fusebus.bus import Context
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import ImageAccepted, ImageAnalysed
from fusebus.contracts.outcomes import Done
from fusebus.host.settings import environment_of
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.comparison.commands import compare_models
from fusebus.inferencer.handler import Detect
from fusebus.ledger import ImageFacts, Ledger, LedgerSettings, UploadEntry
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings
from fusebus.notifier import finals
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

pytestmark = pytest.mark.long


def photo(seed: int) -> bytes:
    return encode_jpeg(draw_board(seed, (400, 300)).image)


async def test_an_image_that_two_versions_saw_has_two_analyses_and_one_final(
    registry: Registry, push: Any, start: Any, upload: Any, blobs: Blobs, ledger_settings: LedgerSettings
) -> None:
    """The first try stored its results but was not settled; the retry came after a promotion."""
    await registry.promote(await push("1"), "tests", "")
    worker = await start()
    work = await upload(photo(3), "board.jpg")
    async with Codecs(1) as codecs, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        run = (await ledger.enter_upload(entry_of(work), work.accepted_at)).run_id
        work = msgspec.structs.replace(work, run_id=run)
        handler = Detect(store=blobs, models=worker.serving, codecs=codecs, worker="test/1")
        first = await analysed(handler, work)
        await registry.promote(await push("2", score_thresholds=(0.9,)), "tests", "")
        await worker.follower.look()
        second = await analysed(handler, work)
        assert (first.model, second.model) == (f"{NAME}@1", f"{NAME}@2")
        assert first.analysis_id != second.analysis_id
        assert Envelope(message=first).message_id == Envelope(message=second).message_id, "the topic keeps one of them"
        for final in (first, second, first):  # where the topic kept both after all, in any order
            assert isinstance(await finals.record(final, ledger), Done)
        (row,) = await ledger.uploads(work.run_id)
    assert row.final is not None
    assert (row.final.model, row.final.analysis_id, row.final.result) == (first.model, first.analysis_id, first.result)
    for final in (first, second):
        text = await blobs.read(final.result.container, final.result.name, max_bytes=10**7)
        said = msgspec.json.decode(text)
        assert (said["analysis_id"], f"{said['model']['name']}@{said['model']['version']}") == (
            final.analysis_id,
            final.model,
        )
        assert len(said["detections"]) == final.detections


@pytest.mark.timeout(240)
async def test_two_versions_are_compared_on_a_runs_photos_taking_what_a_canary_stored(
    registry: Registry,
    push: Any,
    start: Any,
    upload: Any,
    blobs: Blobs,
    blob_settings: BlobSettings,
    ledger_settings: LedgerSettings,
    models: RegistrySettings,
    tmp_path: Path,
) -> None:
    old, new = await push("1"), await push("2", score_thresholds=(0.8,))
    await registry.promote(old, "tests", "")
    await registry.promote(new, "tests", "", percent=50)
    worker = await start()
    seen: Counter[str] = Counter()
    async with Codecs(1) as codecs, Ledger(ledger_settings) as ledger:
        await ledger.create_tables()
        handler = Detect(store=blobs, models=worker.serving, codecs=codecs, worker="test/1")
        for seed in range(40):  # the share is drawn by an id that differs in each run of this test
            if len(seen) == 2 and seen.total() >= 4:
                break
            work = await upload(photo(seed % 4) + bytes([seed]), f"{seed}.jpg")
            run = (await ledger.enter_upload(entry_of(work), work.accepted_at)).run_id
            final = await analysed(handler, msgspec.structs.replace(work, run_id=run))
            assert isinstance(await finals.record(msgspec.structs.replace(final, run_id=run), ledger), Done)
            seen[final.model] += 1
    assert seen.keys() == {old, new}, "the canary had its share"
    services = environment_of(blob_settings, "blobs") | environment_of(ledger_settings, "ledger")
    arguments = [old, new, "--run", run, "--out", str(tmp_path / "out"), "--stored", "--json"]

    runner = CliRunner(env=services | environment_of(models, "models"))
    ran = await asyncio.to_thread(runner.invoke, compare_models, arguments)
    assert ran.exit_code == 0, ran.output
    stored = msgspec.json.decode(ran.stdout)
    assert (stored["photos"], stored["skipped"]) == (seen.total(), {})
    assert (stored["first"]["stored"], stored["second"]["stored"]) == (seen[old], seen[new])
    assert (stored["matched"] + stored["only_first"], stored["only_second"]) == (stored["first"]["detections"], 0)
    assert stored["first"]["milliseconds"]["p50"] > 0


def entry_of(work: ImageAccepted) -> UploadEntry:
    """What ingest enters."""
    return UploadEntry(
        upload_id=work.upload_id,
        supplier=work.supplier,
        container=work.blob.container,
        blob_name=work.blob.name,
        blob_etag=work.blob.etag,
        size=work.blob.size,
        uploaded_at=work.accepted_at,
        image=ImageFacts(image_id=work.image_id, sha256=work.blob.sha256, format="jpeg", width=400, height=300),
    )


async def analysed(handler: Detect, work: ImageAccepted) -> ImageAnalysed:
    outcome = await handler(work, Context(envelope=Envelope(message=work)))
    assert isinstance(outcome, Done)
    (outgoing,) = outcome.publish
    assert isinstance(outgoing.message, ImageAnalysed)
    return outgoing.message
