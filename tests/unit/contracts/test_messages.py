from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from fusebus.contracts import envelope as wire
from fusebus.contracts import identity
from fusebus.contracts import messages as m
from fusebus.contracts.topology import topic_of

GOLDEN = Path(__file__).parent / "golden"
WHEN = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
RUN = "20261121T103000Z-acme-0f0f0f0f"
UPLOAD = {"upload_id": "0f" * 16, "run_id": RUN, "supplier": "acme"}
EXAMPLES: tuple[m.Message, ...] = (
    m.BlobCreated(
        id="e1",
        source="/storage",
        subject="/blobServices/default/containers/in-acme/blobs/van 7/ünder.jpg",
        time=WHEN,
        data=m.BlobCreatedData(e_tag="0x8D", api="PutBlob", content_type="image/jpeg", content_length=3),
    ),
    m.ImageAccepted(
        **UPLOAD,
        image_id="aa" * 16,
        job_kind=m.JobKind.DETECT,
        lane=m.Lane.NORMAL,
        deadline=WHEN,
        blob=m.BlobReference(container="in-acme", name="a.jpg", etag="0x8D", sha256="ab" * 32, size=3),
        width=1600,
        height=1200,
        format="jpeg",
        accepted_at=WHEN,
    ),
    m.ImageAnalysed(
        **UPLOAD,
        image_id="aa" * 16,
        analysis_id="bb" * 16,
        job_kind=m.JobKind.DETECT,
        model="demo-1",
        detections=2,
        best_score=0.75,
        annotated=m.StoredBlob(container="results", name="a.jpg"),
        result=m.StoredBlob(container="results", name="a.json"),
        timings=m.StageTimings(model=0.25),
        worker="w1",
        analysed_at=WHEN,
    ),
    m.ImageFailed(**UPLOAD, reason="gave_up", description="3 attempts", failed_at=WHEN),
    m.ImageRejected(**UPLOAD, reason=m.RejectReason.DAMAGED, explanation="Send it again.", rejected_at=WHEN),
    m.DuplicateFound(**UPLOAD, image_id="aa" * 16, duplicate_of="cc" * 16, duplicate_of_run=RUN, found_at=WHEN),
    m.RunCheck(run_id=RUN, supplier="acme", sequence=3),
    m.CloseRun(run_id=RUN, supplier="acme", requested_by="ops"),
    m.FleetChanged(pool="gpu", nodes=2, workers=2, because="20 images in 60 s", decided_at=WHEN),
    m.BudgetCrossed(month="2026-11", share=0.8, spent=80.5, budget=100.0, currency="GBP", crossed_at=WHEN),
    m.ModelChanged(previous="demo-1", current="demo-2", changed_by="ops", changed_at=WHEN),
    m.ModelRefused(
        model="demo@3",
        serving="demo@2",
        reason="graph",
        description="op Loop is not allowed",
        worker="node-1/42",
        refused_at=WHEN,
    ),
    m.UploadsHeld(
        supplier="acme",
        because="quota",
        day="2026-11-21",
        held_at=WHEN,
        until=WHEN,
        email="photos@acme.example",
        images_per_day=5000,
        bytes_per_day=20_000_000_000,
    ),
    m.WorkLate(
        job_kind=m.JobKind.DETECT,
        since=WHEN,
        images=40,
        because="40 of 90 detect images are late",
        late_seconds=720.5,
    ),
    m.StorageEvents(
        created=(
            m.BlobCreated(
                id="e2",
                source="/storage",
                subject="/blobServices/default/containers/in-acme/blobs/b.jpg",
                time=WHEN,
                data=m.BlobCreatedData(e_tag="0x8E"),
            ),
        ),
        others=("Microsoft.Storage.BlobDeleted",),
        unreadable=("event 2: it says no type",),
    ),
    m.ReleaseRun(run_id=RUN, supplier="acme", opens_at=WHEN, requested_by="ops", lane=m.Lane.URGENT),
    m.CancelRun(run_id=RUN, supplier="acme", requested_by="ops", asked_at=WHEN, reason="Sent by mistake."),
)

GROWN: dict[str, m.Message] = {
    "ImageAccepted.v1.kept-fields": msgspec.structs.replace(
        EXAMPLES[1], captured_at="2026-03-04T05:06:07+01:00", camera="Van Cam 3", quality=("blurred", "too_small")
    ),
    "ImageRejected.v1.too_complex": m.ImageRejected(
        **UPLOAD,
        reason=m.RejectReason.TOO_COMPLEX,
        explanation="Send it as JPEG.",
        rejected_at=WHEN,
        detail="300 scans",
    ),
    "ImageAccepted.v1.model": msgspec.structs.replace(EXAMPLES[1], model="fuses@2"),
    "RunCheck.v1.manifest": m.manifest_check(RUN, "acme", WHEN),
    "BudgetCrossed.v1.forecast": m.BudgetCrossed(
        month="2026-11",
        share=1.25,
        spent=60.5,
        budget=100.0,
        currency="GBP",
        crossed_at=WHEN,
        mark="forecast-of-100-GBP",
        forecast=125.0,
        foretold=True,
        consequence="Nothing is stopped.",
    ),
}
"""What was added to a message after its release, by the name of its golden file."""


def name(message: m.Message) -> str:
    return type(message).__name__


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_a_golden_file_decodes_to_the_message_it_was_made_from(example: m.Message) -> None:
    assert wire.decode((GOLDEN / f"{name(example)}.v1.json").read_bytes()) == example


@pytest.mark.parametrize("file", GROWN)
def test_what_was_added_to_a_message_decodes_too(file: str) -> None:
    assert wire.decode((GOLDEN / f"{file}.json").read_bytes()) == GROWN[file]


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_a_message_survives_its_wire_form(example: m.Message) -> None:
    assert wire.decode(wire.encode(example)) == example


def test_every_message_has_an_example_a_topic_and_a_work_id() -> None:
    assert {type(example) for example in EXAMPLES} == set(m.MESSAGE_TYPES)
    assert len({m.work_id(example) for example in EXAMPLES}) == len(EXAMPLES)
    assert {topic_of(example).name for example in EXAMPLES} == {"uploads", "images", "results", "fleet"}


def test_a_field_added_later_does_not_disturb_this_release() -> None:
    later = msgspec.json.decode(wire.encode(EXAMPLES[3])) | {"colour": "blue"}
    assert wire.decode(msgspec.json.encode(later)) == EXAMPLES[3]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b"[" * 60_000, "undecodable"),
        (b'{"type":"ImageFailed"}', "undecodable"),
        (b'{"type":"Nonsense"}', "unknown_type"),
        (b'{"type":"RunCheck","run_id":"r","supplier":"acme","schema_version":2}', "unknown_version"),
        (b'{"type":"RunCheck","run_id":"' + b"r" * 65_536 + b'"}', "too_large"),
        (b'{"type":"CloseRun","run_id":"r","supplier":"../x","requested_by":"o"}', "undecodable"),
        (b'{"type":"CloseRun","run_id":"r","supplier":"acme\\n","requested_by":"o"}', "undecodable"),
    ],
)
def test_a_body_that_nobody_can_handle_is_poison_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(wire.Poison) as raised:
        wire.decode(body)
    assert raised.value.reason == reason


def test_a_body_above_the_limit_is_not_sent() -> None:
    with pytest.raises(ValueError, match="a message may have"):
        wire.encode(m.ImageFailed(**UPLOAD, reason="x", description="y" * 70_000, failed_at=WHEN))


def test_a_retry_and_a_replay_have_other_message_ids_than_the_first_send() -> None:
    first = wire.Envelope(message=EXAMPLES[1])
    ids = {
        first.message_id,
        wire.Envelope(message=EXAMPLES[1], attempt=2).message_id,
        wire.Envelope(message=EXAMPLES[1], replay=1).message_id,
    }
    assert len(ids) == 3
    assert first.message_id == wire.Envelope(message=EXAMPLES[1]).message_id


@pytest.mark.parametrize("example", EXAMPLES, ids=name)
def test_a_message_id_fits_the_128_characters_of_service_bus(example: m.Message) -> None:
    assert len(wire.Envelope(message=example, attempt=99, replay=99).message_id) <= 128


def test_long_names_neither_break_the_limit_of_a_message_id_nor_make_two_works_one() -> None:
    run = f"20261121T103000Z-{'a' * 60}-0f0f0f0f"
    checks = [m.RunCheck(run_id=run, supplier="a" * 60, sequence=number) for number in (1_000, 10_000, 10_001)]
    changes = [
        m.ModelChanged(previous="", current="v" * 200, changed_by="ops", changed_at=WHEN.replace(second=second))
        for second in (1, 2)
    ]
    ids = {wire.Envelope(message=message, attempt=9_999, replay=9_999).message_id for message in (*checks, *changes)}
    assert len(ids) == 5
    assert max(map(len, ids)) <= 128


def test_an_envelope_survives_its_properties() -> None:
    sent = wire.Envelope(message=EXAMPLES[1], attempt=3, failures=1, replay=1, only="detect", traceparent="00-ab-cd-01")
    assert wire.envelope(wire.encode(sent.message), sent.properties()) == sent


def test_odd_counters_read_as_their_defaults() -> None:
    read = wire.envelope(wire.encode(EXAMPLES[3]), {"attempt": "many", "replay": -1, "only": 7})
    assert (read.attempt, read.replay, read.only) == (1, 0, None)


@pytest.mark.parametrize(
    ("subject", "container", "blob"),
    [
        ("/blobServices/default/containers/in-acme/blobs/a.jpg", "in-acme", "a.jpg"),
        ("/blobServices/default/containers/in-acme/blobs/x/blobs/y.jpg", "in-acme", "x/blobs/y.jpg"),
        ("/blobServices/default/containers/in-acme", "in-acme", ""),
        ("anything", "", ""),
        ("", "", ""),
    ],
)
def test_container_and_name_come_from_the_subject(subject: str, container: str, blob: str) -> None:
    event = m.BlobCreated(id="1", source="s", subject=subject, time=WHEN, data=m.BlobCreatedData(e_tag="e"))
    assert (event.container, event.blob_name) == (container, blob)


def test_ids_derive_from_the_work_alone() -> None:
    assert identity.upload_id("in-acme", "a", '"0x1"') == identity.upload_id("in-acme", "a", "0x1")
    assert identity.upload_id("in-acme", "ab", "c") != identity.upload_id("in-acme", "a", "bc")
    assert identity.run_date(identity.run_id("acme-north", WHEN, "ff" * 16)) == "2026-11-21"
