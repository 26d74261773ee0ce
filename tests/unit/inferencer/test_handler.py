import asyncio
import dataclasses
import io
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from fusebus.blobs import StorageError, StorageUnavailable
from fusebus.bus import Context
from fusebus.contracts.envelope import Envelope, encode
from fusebus.contracts.messages import ImageAnalysed, ImageFailed, ImageRejected, RejectReason
from fusebus.contracts.outcomes import Abandon, Done, Retry
from fusebus.inferencer.codecs import Codecs
from fusebus.inferencer.handler import Detect
from fusebus.inferencer.model import MemoryLacking, ModelBroken, NotServed
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL

Accept = Callable[..., Any]
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture
async def detect(store: Any, told_model: Any) -> AsyncIterator[Detect]:
    async with Codecs(2) as codecs:
        yield Detect(
            store=store,
            models=told_model,
            codecs=codecs,
            worker="node-1/42",
            retry_seconds=7,
            now=lambda: NOW,
        )


def only_message(outcome: object) -> Any:
    assert isinstance(outcome, Done)
    (outgoing,) = outcome.publish
    assert outgoing.enqueue_at is None
    encode(outgoing.message)  # small enough to travel
    return outgoing.message


async def test_an_accepted_image_becomes_a_picture_a_result_and_a_final(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    final = only_message(await detect(work, context_of(work)))
    assert isinstance(final, ImageAnalysed)
    assert (final.upload_id, final.run_id, final.supplier) == (work.upload_id, work.run_id, "north")
    assert (final.detections, final.best_score) == (2, pytest.approx(0.9123, abs=1e-4))
    assert (final.worker, final.analysed_at) == ("node-1/42", NOW)
    assert final.annotated.name == f"annotated/2031-05-06/{work.run_id}/{final.analysis_id}.jpg"
    assert final.result.name == f"json/2031-05-06/{work.run_id}/{final.analysis_id}.json"
    assert sorted(store.written) == [f"{final.annotated.name} image/jpeg", f"{final.result.name} application/json"]
    with Image.open(io.BytesIO(store.content["results", final.annotated.name][1])) as annotated:
        assert (annotated.format, annotated.size) == ("JPEG", (800, 600))


async def test_the_result_file_says_where_in_which_picture_by_which_model(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    final = only_message(await detect(work, context_of(work)))
    found = msgspec.json.decode(store.content["results", final.result.name][1])
    manifest = load_manifest(DEMO_MODEL)
    detections = found.pop("detections")
    assert found == {
        "schema_version": 1,
        "analysis_id": final.analysis_id,
        "upload_id": work.upload_id,
        "run_id": work.run_id,
        "supplier": "north",
        "image_id": work.image_id,
        "image_sha256": work.blob.sha256,
        "model": {"name": manifest.name, "version": manifest.version, "sha256": manifest.sha256},
        "width": 800,
        "height": 600,
    }
    assert [(entry["label"], entry["score"], entry["box"]) for entry in detections] == [
        ("fuse neutral", 0.9123, [100.0, 150.0, 300.0, 300.0]),
        ("fuse neutral", 0.7, [400.0, 150.0, 600.0, 300.0]),
    ]
    size = manifest.image_size
    assert detections[0]["mask"]["size"] == [size, size]
    rows, columns = np.nonzero(coco.decode(detections[0]["mask"]))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (
        size // 8,
        size * 3 // 8 - 1,
        size // 4,
        size // 2 - 1,
    )


async def test_a_repeat_writes_the_same_bytes_under_the_same_names(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    await detect(work, context_of(work))
    first = dict(store.content)
    await detect(work, context_of(work))
    assert store.content == first
    assert len(store.written) == 4


async def test_work_that_people_ordered_twice_is_done_once(
    detect: Detect, accept: Accept, store: Any, told_model: Any, photo: bytes, context_of: Any
) -> None:
    work = msgspec.structs.replace(accept(photo), model=load_manifest(DEMO_MODEL).ref)
    final = only_message(await detect(work, context_of(work)))
    assert [name.partition("/")[0] for name in store.written] == ["annotated", "json"], "the result comes last"
    again = only_message(await detect(work, context_of(work)))
    assert len(told_model.images) == 1 and len(store.written) == 2
    assert msgspec.structs.replace(final, timings=again.timings, best_score=again.best_score) == again
    assert final.best_score == pytest.approx(again.best_score, abs=1e-4), "as the file has it"

    store.content["results", final.result.name] = ("0", b'{"detections": [{}]}')
    assert only_message(await detect(work, context_of(work))).best_score == final.best_score, "what is damaged is not"
    assert len(told_model.images) == 2


async def test_stages_are_timed(detect: Detect, accept: Accept, photo: bytes, context_of: Any) -> None:
    work = accept(photo)
    timings = only_message(await detect(work, context_of(work))).timings
    assert (timings.wait_for_model, timings.model) == (0.25, 0.5)  # as the model's thread says
    assert timings.decode > 0
    assert timings.annotate > 0
    assert timings.download >= 0


async def test_a_blob_that_vanished_is_rejected_with_that_reason(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    store.content.clear()
    final = only_message(await detect(work, context_of(work)))
    assert isinstance(final, ImageRejected)
    assert final.reason is RejectReason.BLOB_VANISHED
    assert "deleted" in final.explanation


async def test_a_blob_that_changed_is_rejected_with_that_reason(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    for other in (photo[:-1] + b"\0", photo + b"\0"):
        store.content["in-north", work.blob.name] = ("0x2", other)
        final = only_message(await detect(work, context_of(work)))
        assert isinstance(final, ImageRejected)
        assert final.reason is RejectReason.BLOB_CHANGED
    assert store.written == []


async def test_a_blob_with_another_etag_and_the_same_photo_is_analysed(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    store.content["in-north", work.blob.name] = ("0x2", photo)
    assert isinstance(only_message(await detect(work, context_of(work))), ImageAnalysed)


@pytest.mark.parametrize(
    ("mangle", "reason"),
    [
        (lambda data: data[:-1] + b"\0", "digest_mismatch"),
        (lambda data: data + b"\0", "too_large"),
    ],
)
async def test_other_bytes_under_the_same_etag_fail(
    mangle: Callable[[bytes], bytes],
    reason: str,
    detect: Detect,
    accept: Accept,
    store: Any,
    photo: bytes,
    context_of: Any,
) -> None:
    work = accept(photo)
    store.content["in-north", work.blob.name] = ("0x1", mangle(photo))
    final = only_message(await detect(work, context_of(work)))
    assert isinstance(final, ImageFailed)
    assert final.reason == reason


async def test_an_image_that_does_not_decode_fails(
    detect: Detect, accept: Accept, photo: bytes, context_of: Any
) -> None:
    work = accept(photo[: len(photo) // 2])
    final = only_message(await detect(work, context_of(work)))
    assert isinstance(final, ImageFailed)
    assert final.reason == "damaged"
    assert "jpeg" in final.description


async def test_an_image_that_names_a_version_which_does_not_serve_here_is_given_on(
    detect: Detect, accept: Accept, photo: bytes, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def lease(image_id: str, wanted: str = "") -> Any:
        asked.append(wanted)
        raise NotServed(f"{wanted} does not serve here")

    monkeypatch.setattr(detect.models, "lease", lease)
    work = msgspec.structs.replace(accept(photo), model="m@2")
    outcome = await detect(work, context_of(work))
    assert outcome == Retry(delay=7, reason="model_not_served", description="m@2 does not serve here")
    assert asked == ["m@2"]


async def test_storage_that_does_not_answer_is_tried_again_later(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = accept(photo)

    async def silent(*_: object) -> None:
        raise StorageUnavailable("503")

    monkeypatch.setattr(store, "write", silent)
    outcome = await detect(work, context_of(work))
    assert isinstance(outcome, Retry)
    assert (outcome.delay, outcome.reason) == (7, "storage_unavailable")
    assert "503" in outcome.description
    again = await detect(work, Context(envelope=Envelope(message=work, attempt=3)))
    assert isinstance(again, Retry)
    assert again.delay == 28, "an outage must not use up the attempts within a minute"


async def test_a_missing_results_container_is_not_blamed_on_the_supplier(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusebus.blobs import BlobVanished

    work = accept(photo)

    async def missing(*_: object) -> None:
        raise BlobVanished("results: not found")

    monkeypatch.setattr(store, "write", missing)
    with pytest.raises(StorageError):
        await detect(work, context_of(work))


async def test_the_loop_itself_costs_little_beside_pixels_and_model(
    detect: Detect, accept: Accept, photo: bytes, context_of: Any
) -> None:
    class Instant:
        """Storage that costs nothing."""

        async def read(self, *_: object, **__: object) -> bytes:
            return photo

        async def write(self, *_: object, **__: object) -> None:
            return None

    work = accept(photo)
    quick = dataclasses.replace(detect, store=Instant())
    await quick(work, context_of(work))
    before = time.thread_time()  # of the loop's thread: codecs and model have their own
    await asyncio.gather(*(quick(work, context_of(work)) for _ in range(40)))
    assert (time.thread_time() - before) / 40 < 0.003  # seconds; 0.0003 seen


async def test_a_broken_model_gives_the_image_back(
    detect: Detect, accept: Accept, store: Any, photo: bytes, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = accept(photo)

    async def broken(*_: object) -> None:
        raise ModelBroken("the model call failed: device lost")

    monkeypatch.setattr(detect.models, "detect", broken)
    outcome = await detect(work, context_of(work))
    assert isinstance(outcome, Abandon)
    assert "device lost" in outcome.reason
    assert store.written == []


async def test_an_image_that_found_no_memory_on_the_device_is_tried_again_later(
    detect: Detect, accept: Accept, photo: bytes, context_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = accept(photo)

    async def full(*_: object) -> None:
        raise MemoryLacking("CUDA failure 2: out of memory")

    monkeypatch.setattr(detect.models, "detect", full)
    outcome = await detect(work, context_of(work))
    assert outcome == Retry(delay=7, reason="memory_lacking", description="CUDA failure 2: out of memory")


async def test_the_final_and_the_files_carry_the_version_that_ran(
    detect: Detect, accept: Accept, store: Any, told_model: Any, photo: bytes, context_of: Any
) -> None:
    work = accept(photo)
    first = only_message(await detect(work, context_of(work)))
    told_model.manifest = msgspec.structs.replace(told_model.manifest, version="next")
    second = only_message(await detect(work, context_of(work)))
    told_model.manifest = msgspec.structs.replace(told_model.manifest, name="other")
    third = only_message(await detect(work, context_of(work)))
    assert told_model.images == [work.image_id] * 3
    assert [final.model for final in (first, second, third)] == [
        load_manifest(DEMO_MODEL).ref,
        "fuse-neutral-demo@next",
        "other@next",
    ]
    assert len({final.analysis_id for final in (first, second, third)}) == 3
    assert len(store.written) == 6, "no version overwrites what another one found"
    said = msgspec.json.decode(store.content["results", second.result.name][1])
    assert (said["model"]["version"], said["analysis_id"]) == ("next", second.analysis_id)


async def test_each_detection_is_called_after_its_class(
    detect: Detect, accept: Accept, store: Any, told_model: Any, photo: bytes, context_of: Any
) -> None:
    manifest = msgspec.structs.replace(
        told_model.manifest, prompts=("fuse neutral", "main fuse"), score_thresholds=(0.3, 0.65)
    )
    plain = told_model.detect

    async def two_classes(image: Any, *_: object) -> Any:
        answer = await plain(image)
        return answer._replace(outputs=answer.outputs._replace(classes=np.array([1, 0, 0])))

    told_model.manifest, told_model.detect = manifest, two_classes
    work = accept(photo)
    final = only_message(await detect(work, context_of(work)))
    found = msgspec.json.decode(store.content["results", final.result.name][1])["detections"]
    assert [(entry["label"], entry["score"]) for entry in found] == [("main fuse", 0.9123), ("fuse neutral", 0.7)]
