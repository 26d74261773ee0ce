"""What Event Grid sends, in both schemas, alone and in arrays; and what stands in an array beside it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.contracts import envelope as wire
from fusebus.contracts.messages import BlobCreated, StorageEvents

SUBJECT = "/blobServices/default/containers/in-acme/blobs/van 7/ünder.jpg"
DATA = {
    "api": "PutBlockList",
    "clientRequestId": "4c5dd7fb-2c48-4a27-bb30-5361b5de920a",
    "requestId": "9aeb0fdf-c01e-0131-0922-9eb549000000",
    "eTag": "0x8D76C39E4407333",
    "contentType": "image/jpeg",
    "contentLength": 30699,
    "blobType": "BlockBlob",
    "url": "https://account.blob.core.windows.net/in-acme/van%207/%C3%BCnder.jpg",
    "sequencer": "000000000000000000000000000099240000000000c41c18",
    "storageDiagnostics": {"batchId": "681fe319-3006-00a8-0022-9e7cde000000"},
}


def cloud_event(**changes: Any) -> dict[str, Any]:
    """As Microsoft documents it."""
    return {
        "source": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/account",
        "subject": SUBJECT,
        "type": "Microsoft.Storage.BlobCreated",
        "time": "2026-11-21T10:30:00.1234567Z",
        "id": "9aeb0fdf-c01e-0131-0922-9eb54906e209",
        "data": DATA,
        "specversion": "1.0",
    } | changes


def grid_event(**changes: Any) -> dict[str, Any]:
    """The same in Event Grid's own schema."""
    return {
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/account",
        "subject": SUBJECT,
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": "2026-11-21T10:30:00.1234567Z",
        "id": "9aeb0fdf-c01e-0131-0922-9eb54906e209",
        "data": DATA,
        "dataVersion": "",
        "metadataVersion": "1",
    } | changes


def read(value: object) -> Any:
    return wire.decode(json.dumps(value).encode())


@pytest.mark.parametrize("event", [cloud_event(), grid_event(), [cloud_event()], [grid_event()]])
def test_both_schemas_alone_or_in_an_array_of_one_are_the_same_event(event: object) -> None:
    found = read(event)
    assert isinstance(found, BlobCreated)
    assert (found.container, found.blob_name, found.data.e_tag) == ("in-acme", "van 7/ünder.jpg", "0x8D76C39E4407333")
    assert found.time == datetime(2026, 11, 21, 10, 30, 0, 123457, tzinfo=UTC)
    assert found == read(cloud_event())


def test_an_array_gives_all_its_events_whatever_stands_between_them() -> None:
    found = read(
        [
            cloud_event(id="1"),
            {"type": "Microsoft.Storage.BlobDeleted", "id": "2"},
            grid_event(id="3"),
            {"no": "type"},
            "text",
            cloud_event(specversion="2.0"),
            cloud_event(data={}),
            grid_event(eventType="Microsoft.Storage.BlobRenamed", data={"destinationUrl": "x"}),
            {"type": "ImageAccepted"},
        ]
    )
    assert isinstance(found, StorageEvents)
    assert [event.id for event in found.created] == ["1", "3"]
    assert found.others == ("Microsoft.Storage.BlobDeleted", "Microsoft.Storage.BlobRenamed")
    assert [text.split(":")[0] for text in found.unreadable] == [f"event {at}" for at in (3, 4, 5, 6, 8)]


@pytest.mark.parametrize(
    "kind",
    ["Microsoft.Storage.BlobDeleted", "Microsoft.Storage.BlobRenamed", "Microsoft.EventGrid.SubscriptionDeletedEvent"],
)
@pytest.mark.parametrize("key", ["type", "eventType"])
def test_an_event_that_tells_of_no_upload_is_no_poison(kind: str, key: str) -> None:
    assert read({key: kind, "id": "1", "data": {"anything": [1]}}) == StorageEvents(others=(kind,))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"eventType": "Contoso.Items.ItemReceived"}, "undecodable"),
        ({"eventType": "Microsoft.Storage.BlobCreated", "data": {}}, "undecodable"),
        (cloud_event(specversion="0.3"), "unknown_version"),
        ({}, "undecodable"),
    ],
)
def test_an_event_that_cannot_be_one_is_poison(body: object, reason: str) -> None:
    with pytest.raises(wire.Poison) as raised:
        read(body)
    assert raised.value.reason == reason


def test_an_array_may_have_what_service_bus_carries_and_no_more() -> None:
    many = read([cloud_event(id=str(number)) for number in range(300)])
    assert isinstance(many, StorageEvents)
    assert len(many.created) == 300
    with pytest.raises(wire.Poison, match="too_large"):
        read([cloud_event(id=str(number)) for number in range(600)])


@given(
    st.binary(max_size=200) | st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"type"', b":", b","])).map(b"".join)
)
def test_no_bytes_do_more_than_become_poison(body: bytes) -> None:
    for start in (b"", b"[", b'[{"type":'):
        try:
            wire.decode(start + body)
        except wire.Poison as poison:
            assert poison.reason
