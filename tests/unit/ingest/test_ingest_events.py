"""What becomes of events that are not simply entered: arrays, copies, containers that nobody has."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import Source, plan
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import BlobCreated, BlobCreatedData, StorageEvents
from fusebus.contracts.outcomes import Done, Reject
from fusebus.ingest.events import taken_apart

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(name: str) -> BlobCreated:
    return BlobCreated(
        id="1",
        source="s",
        subject=f"/blobServices/default/containers/in-acme/blobs/{name}",
        time=NOW,
        data=BlobCreatedData(e_tag="0x1"),
    )


def test_an_array_is_taken_apart_and_each_event_has_the_id_that_it_has_alone() -> None:
    outcome = taken_apart(StorageEvents(created=(event("a"), event("b")), others=("Microsoft.Storage.BlobDeleted",)))
    assert isinstance(outcome, Done)
    envelope = Envelope(message=StorageEvents())
    decided = plan(outcome, envelope, Source(topic="uploads", subscription="ingest"), ConsumerSettings(), NOW)
    alone = [Envelope(message=event(name)).message_id for name in "ab"]
    assert [(parcel.topic, parcel.envelope.message_id) for parcel in decided.parcels] == [
        ("uploads", one) for one in alone
    ]


def test_what_cannot_be_read_in_an_array_stays_visible_and_holds_nothing_up() -> None:
    outcome = taken_apart(StorageEvents(created=(event("a"),), unreadable=("event 1: it says no type",)))
    assert isinstance(outcome, Reject)
    assert [one.message for one in outcome.publish] == [event("a")]
    assert (outcome.reason, outcome.description) == (
        "unreadable_events",
        "1 events can't be read: event 1: it says no type",
    )


@pytest.mark.parametrize("others", [(), ("Microsoft.Storage.BlobRenamed",)])
def test_events_that_tell_of_no_upload_are_done(others: Any) -> None:
    assert taken_apart(StorageEvents(others=others)) == Done()
