"""Ingest's decisions by table."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from fusebus.contracts import identity
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, RejectReason
from fusebus.ingest import policy

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LIMITS = policy.Limits(max_bytes=1_000_000, max_pixels=100_000_000)


def event(subject: str, etag: str = "0x8D") -> BlobCreated:
    return BlobCreated(id="1", source="s", subject=subject, time=NOW, data=BlobCreatedData(e_tag=etag))


def subject(container: str = "in-acme", name: str = "photo.jpg") -> str:
    return f"/blobServices/default/containers/{container}/blobs/{name}"


@pytest.mark.parametrize(
    "name", ["photo.jpg", "a/b/c.jpg", "../x", "a/blobs/b", "\x00", "\u202e", "100%25", "n" * 1024]
)
def test_an_upload_is_named_by_container_name_and_etag(name: str) -> None:
    place = policy.place_of(event(subject(name=name), '"0x8D"'))
    assert isinstance(place, policy.Place)
    assert (place.supplier, place.container, place.name, place.etag) == ("acme", "in-acme", name, "0x8D")
    assert place.upload_id == identity.upload_id("in-acme", name, "0x8D")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (event(""), "malformed_subject"),
        (event("/blobServices/default/containers/in-acme"), "malformed_subject"),
        (event(subject(name="")), "malformed_subject"),
        (event(subject(container="")), "malformed_subject"),
        (event("/x" + subject()), "malformed_subject"),
        (event(subject(name="n" * 1025)), "malformed_subject"),
        (event(subject(), etag=""), "malformed_etag"),
        (event(subject(), etag="a\r\nb: c"), "malformed_etag"),
        (event(subject(), etag="e" * 129), "malformed_etag"),
        (event(subject(container="results")), "not_a_supplier"),
        (event(subject(container="acme")), "not_a_supplier"),
        (event(subject(container="in-ACME")), "not_a_supplier"),
        (event(subject(container="in-a--b")), "not_a_supplier"),
        (event(subject(container="in-a/../b")), "not_a_supplier"),
        (event(subject(container="in-")), "not_a_supplier"),
    ],
)
def test_an_event_that_is_no_suppliers_upload_is_refused_with_a_reason(found: BlobCreated, reason: str) -> None:
    refused = policy.place_of(found)
    assert isinstance(refused, policy.NotOurs)
    assert refused.reason == reason
    assert 0 < len(refused.description) < 1000


@pytest.mark.parametrize(
    ("etag", "blob_type", "size", "reason"),
    [
        ("0x8D", "BlockBlob", 1, None),
        ("0x8D", "BlockBlob", 1_000_000, None),
        ("0x8D", "BlockBlob", 1_000_001, RejectReason.TOO_LARGE),
        ("0x8D", "BlockBlob", 0, RejectReason.EMPTY),
        ("0x8D", "PageBlob", 2**43, RejectReason.BLOB_TYPE),
        ("0x8D", "AppendBlob", 10, RejectReason.BLOB_TYPE),
        ("0x8E", "BlockBlob", 10, RejectReason.BLOB_CHANGED),
        ("0x8E", "PageBlob", 0, RejectReason.BLOB_CHANGED),
    ],
)
def test_a_blob_is_judged_by_its_properties_before_it_is_read(
    etag: str, blob_type: str, size: int, reason: RejectReason | None
) -> None:
    found = policy.objection_to(etag=etag, expected_etag="0x8D", blob_type=blob_type, size=size, limits=LIMITS)
    assert (found.reason if found else None) == reason


@pytest.mark.parametrize("reason", list(RejectReason))
def test_each_reason_is_one_sentence_with_the_way_out(reason: RejectReason) -> None:
    sentence = policy.explanation(reason, LIMITS)
    assert re.fullmatch(r"The (file|photo) [^.{}]*; [^.{}]*\.", sentence)
    assert "_" not in sentence, "a supplier reads words, not codes"


def test_limits_are_said_in_numbers() -> None:
    assert "1 MB" in policy.explanation(RejectReason.TOO_LARGE, LIMITS)
    assert "100 million" in policy.explanation(RejectReason.TOO_MANY_PIXELS, LIMITS)


@pytest.mark.parametrize(
    ("final", "exists", "lets_go"),
    [
        (None, True, False),
        ("analysed", True, False),
        ("converted", True, False),
        ("duplicate", True, False),
        ("failed", True, True),
        ("rejected", True, True),
        (None, False, True),
    ],
)
def test_an_upload_keeps_its_image_unless_it_came_to_nothing(final: str | None, exists: bool, lets_go: bool) -> None:
    assert policy.lets_go(final, exists) is lets_go


@pytest.mark.parametrize(
    ("sent_at", "times", "due"),
    [
        (None, 0, True),
        (1000.0, 1, False),
        (901.0, 1, False),
        (900.0, 1, True),
        (0.0, 3, True),
        (0.0, 4, False),
        (float("inf"), 1, False),
    ],
)
def test_the_sweep_repeats_late_and_not_for_ever(sent_at: float | None, times: int, due: bool) -> None:
    assert policy.is_due(now=1000.0, sent_at=sent_at, times=times, repeat_seconds=100.0, repeats=3) is due


@pytest.mark.parametrize(("age", "grace", "old"), [(0, 0, True), (-1, 0, False), (299, 300, False), (300, 300, True)])
def test_the_sweep_leaves_time_for_the_event_to_come(age: int, grace: int, old: bool) -> None:
    assert policy.old_enough(NOW - timedelta(seconds=age), NOW, grace) is old
