"""Suppliers on real storage: records, quotas that count once, and grants that can create, expire and be taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from fusebus.blobs import Blobs, BlobSettings, GrantUnavailable
from fusebus.blobs.grants import LONGEST_DELEGATION, grant
from fusebus.blobs.layout import supplier_container
from fusebus.contracts.messages import Lane
from fusebus.ledger import (
    Grant,
    Held,
    HeldBecause,
    Ledger,
    LedgerSettings,
    SupplierRecord,
    SupplierState,
    Usage,
    next_day,
)

NOW = datetime(2026, 5, 6, 23, 59, tzinfo=UTC)


def record(name: str = "acme", **fields: object) -> SupplierRecord:
    given = {"added_at": NOW, "changed_at": NOW, "changed_by": "me", **fields}
    return msgspec.convert({"name": name, **given}, SupplierRecord)


@pytest.fixture
async def ledger(ledger_settings: LedgerSettings) -> AsyncIterator[Ledger]:
    async with Ledger(ledger_settings) as opened:
        await opened.create_tables()
        yield opened


@pytest.fixture
async def blobs(blob_settings: BlobSettings, supplier: str) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(supplier_container(supplier))
        yield opened


async def test_a_supplier_is_added_once_changed_and_listed(ledger: Ledger) -> None:
    assert await ledger.supplier("acme") is None
    first = record(lane=Lane.URGENT, deadline_seconds=60.0, images_per_day=3, email="a@b.example")
    assert [await ledger.add_supplier(one) for one in (first, first, record(images_per_day=4))] == [True, True, False]
    assert await ledger.add_supplier(record("zenith"))
    later = NOW + timedelta(hours=1)
    changed = await ledger.change_supplier("acme", later, "you", state=SupplierState.SUSPENDED, reason="late")
    assert changed is not None and (changed.state, changed.changed_at, changed.lane) == ("suspended", later, "urgent")
    assert await ledger.change_supplier("nobody", later, "you") is None
    assert [(one.name, one.state.value) for one in await ledger.suppliers()] == [
        ("acme", "suspended"),
        ("zenith", "active"),
    ]


async def test_uploads_beyond_the_quota_are_not_counted_and_a_repeat_counts_once(ledger: Ledger) -> None:
    limited = record(images_per_day=3, bytes_per_day=100)
    at_once = await asyncio.gather(*(ledger.charge(limited, f"u{number}", 10, NOW) for number in range(6)))
    assert (sum(at_once), await ledger.usage("acme", NOW)) == (3, Usage(3, 30))
    taken = [f"u{number}" for number, is_taken in enumerate(at_once) if is_taken]
    assert all([await ledger.charge(limited, upload, 10, NOW) for upload in taken])
    assert await ledger.usage("acme", NOW) == Usage(3, 30)
    tomorrow = next_day(NOW)
    assert tomorrow == datetime(2026, 5, 7, tzinfo=UTC)
    assert await ledger.charge(limited, "huge", 1000, tomorrow), "a day's first is taken whatever its size"
    assert not await ledger.charge(limited, "small", 1, tomorrow)
    assert await ledger.charge(record(), "small", 1, tomorrow)


async def test_what_is_held_is_released_by_time_or_by_a_change_of_the_record(ledger: Ledger) -> None:
    held = Held(
        upload_id="u1",
        supplier="acme",
        container="in-acme",
        blob_name="a\r\n\u202e\ud800/\0",
        because=HeldBecause.QUOTA,
        held_at=NOW,
        until=next_day(NOW),
    )
    await ledger.hold(held)
    await ledger.hold(held)
    assert await ledger.held_uploads("acme") == [await ledger.held_upload("acme", "u1")] == [held]
    assert not held.is_over(NOW, record()) and held.is_over(next_day(NOW), record())
    assert held.is_over(NOW, record(changed_at=NOW + timedelta(seconds=1)))
    await ledger.hold(msgspec.structs.replace(held, released_at=NOW))
    assert await ledger.held_uploads("acme") == []


async def test_grants_are_noted_without_their_token(ledger: Ledger) -> None:
    made = Grant(grant_id="g1", supplier="acme", made_at=NOW, made_by="me", expires_at=next_day(NOW), revocable=True)
    await ledger.note_grant(made)
    await ledger.note_grant(msgspec.structs.replace(made, revoked_at=NOW))
    assert await ledger.grants("acme") == [msgspec.structs.replace(made, revoked_at=NOW)]


async def refusal(url: str, name: str) -> str:
    """The error code with which storage refuses an upload; empty where it takes it."""
    async with ContainerClient.from_container_url(url, retry_total=0) as container:
        try:
            await container.get_blob_client(name).upload_blob(b"x", overwrite=False)
        except HttpResponseError as error:
            return f"{error.status_code} {error.error_code}"
    return ""


async def test_a_grant_creates_nothing_else_and_is_refused_once_revoked(blobs: Blobs, supplier: str) -> None:
    until = datetime.now(UTC) + timedelta(days=30)
    first, second = [await blobs.supplier_grant(supplier, name, until) for name in ("g1", "g2")]
    asked = parse_qs(urlsplit(first.url).query)
    assert asked.keys() == {"si", "sv", "sr", "sig"} and (asked["si"], asked["sr"]) == (["g1"], ["c"])
    assert await refusal(first.url, "a.jpg") == ""
    assert (await refusal(first.url, "a.jpg")).startswith("403"), "it may not overwrite"
    async with ContainerClient.from_container_url(first.url, retry_total=0) as container:
        for forbidden in (
            container.get_blob_client("a.jpg").download_blob,
            container.get_blob_client("a.jpg").delete_blob,
        ):
            with pytest.raises(HttpResponseError):
                await forbidden()
        with pytest.raises(HttpResponseError):
            _ = [blob async for blob in container.list_blobs()]
    await blobs.revoke_grants(supplier, {"g1"})
    await blobs.revoke_grants(supplier, {"g1", "never"})
    assert (await refusal(first.url, "b.jpg")).startswith("403")
    assert await refusal(second.url, "b.jpg") == "", "the other grant goes on"


async def test_an_expired_grant_is_refused(blobs: Blobs, supplier: str) -> None:
    granted = await blobs.supplier_grant(supplier, "old", datetime.now(UTC) - timedelta(minutes=5))
    assert (await refusal(granted.url, "a.jpg")).startswith("403")


async def test_a_sixth_grant_is_refused_because_storage_keeps_five(blobs: Blobs, supplier: str) -> None:
    until = datetime.now(UTC) + timedelta(days=1)
    for number in range(5):
        await blobs.supplier_grant(supplier, f"g{number}", until)
    with pytest.raises(GrantUnavailable, match="5 grants"):
        await blobs.supplier_grant(supplier, "g5", until)
    await blobs.revoke_grants(supplier, {"g0"})
    await blobs.supplier_grant(supplier, "old", datetime.now(UTC) - timedelta(minutes=1))
    await blobs.supplier_grant(supplier, "g6", until)


async def test_a_revoked_grant_does_not_come_back_by_one_that_is_made_meanwhile(
    blobs: Blobs, supplier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusebus.blobs.grants.LEASE_PAUSE_SECONDS", 0.01)
    until = datetime.now(UTC) + timedelta(days=1)
    await asyncio.gather(*(blobs.supplier_grant(supplier, f"g{number}", until) for number in range(3)))
    for number in range(3):
        await asyncio.gather(
            blobs.supplier_grant(supplier, f"g{number + 3}", until), blobs.revoke_grants(supplier, {f"g{number}"})
        )
    client = blobs._service.get_container_client(f"in-{supplier}")
    policies = (await client.get_container_access_policy())["signed_identifiers"]
    assert {policy.id for policy in policies} == {"g3", "g4", "g5"}


async def test_a_managed_identity_signs_seven_days_at_most() -> None:
    class Credential:
        async def get_token(self, *scopes: str, **more: object) -> AccessToken:
            raise AssertionError("nothing is to be asked")

        async def close(self) -> None: ...

    async with BlobServiceClient("https://a.blob.core.windows.net", credential=Credential()) as service:
        with pytest.raises(GrantUnavailable, match="7 days"):
            await grant(service, "in-acme", "g", datetime.now(UTC) + LONGEST_DELEGATION + timedelta(minutes=1))
        with pytest.raises(AssertionError, match="asked"):  # storage is asked for a key of exactly seven days
            await grant(service, "in-acme", "g", datetime.now(UTC) + LONGEST_DELEGATION)
