"""Receipts on real storage: who may read them, and what their links refuse; names exact in JSON and harmless in CSV."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobClient, BlobServiceClient, ContainerClient
from names import names

from fusebus.blobs import Blobs, BlobSettings, BlobVanished, layout
from fusebus.contracts import identity
from fusebus.contracts.display import one_line
from fusebus.contracts.messages import RejectReason
from fusebus.ledger import Final, FinalKind, ImageFacts, RunRow, RunState, UploadRow
from fusebus.notifier.listed import Listed, Manifest, Missing
from fusebus.notifier.receipt import FORMULA, receipt_csv, receipt_json, receipt_of
from fusebus.notifier.receipts import leave_receipt
from fusebus.notifier.summary import summarise

NOW = datetime(2026, 11, 21, 10, 30, tzinfo=UTC)
FIRST = "0f" * 16
KINDS = (FinalKind.ANALYSED, FinalKind.REJECTED, FinalKind.DUPLICATE, FinalKind.FAILED)


def run_of(supplier: str, minute: int = 0) -> RunRow:
    opened = NOW + timedelta(minutes=minute)
    return RunRow(
        run_id=identity.run_id(supplier, opened, "0f" * 16),
        supplier=supplier,
        state=RunState.CLOSED,
        opened_at=opened,
        first_upload_id="0f" * 16,
        last_upload_at=opened,
        closed_at=opened,
    )


def upload(run: RunRow, name: str, kind: FinalKind, **final: str) -> UploadRow:
    upload_id = identity.upload_id(f"in-{run.supplier}", name, "0x1")
    return UploadRow(
        upload_id=upload_id,
        supplier=run.supplier,
        container=f"in-{run.supplier}",
        blob_name=name,
        blob_etag="0x1",
        size=7,
        uploaded_at=NOW,
        reject_reason=RejectReason.DAMAGED if kind is FinalKind.REJECTED else None,
        image=ImageFacts(image_id="i", sha256="ab" * 32, format="jpeg", width=1, height=1, quality="blurred,dark"),
        run_id=run.run_id,
        entered_at=NOW,
        final=Final(kind=kind, at=NOW, **final),
    )


async def leave(run: RunRow, store: Blobs, *uploads: UploadRow) -> None:
    await leave_receipt(run, uploads, summarise(run, uploads, {}), store)


@pytest.fixture
async def blobs(blob_settings: BlobSettings, supplier: str) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(layout.supplier_container(supplier))
        await opened.create_container(layout.RESULTS)
        yield opened


async def refusal(request: Callable[[], Awaitable[object]]) -> str:
    """The status with which storage refuses it; empty where it does as asked."""
    try:
        await request()
    except HttpResponseError as error:
        return str(error.status_code)
    return ""


async def test_the_link_reads_receipts_by_name_and_is_refused_everything_else(
    blobs: Blobs, supplier: str, blob_settings: BlobSettings
) -> None:
    rival = f"{supplier}x"
    for one in (supplier, rival):
        await leave(run_of(one), blobs, upload(run_of(one), "a.jpg", FinalKind.ANALYSED))
    await blobs.write(f"in-{supplier}", "photo.jpg", b"x", "image/jpeg")
    await blobs.write(layout.RESULTS, f"json/{supplier}.json", b"{}", "application/json")
    made = await blobs.receipt_grant(supplier, "g1", datetime.now(UTC) + timedelta(days=30))
    asked = parse_qs(urlsplit(made.url).query)
    assert asked.keys() == {"si", "sv", "sr", "sig"} and asked["sr"] == ["c"], "rights and end are in the policy"
    token, own = made.url.partition("?")[2], layout.receipt_container(supplier)
    account = made.url.partition("?")[0].removesuffix(own)

    def blob(container: str, name: str) -> BlobClient:
        return BlobClient.from_blob_url(f"{account}{container}/{name}?{token}", retry_total=0)

    for name in ("receipt.json", "receipt.csv", "receipts.json", f"runs/{run_of(supplier).run_id}/receipt.csv"):
        async with blob(own, name) as readable:
            assert await (await readable.download_blob()).readall()
    async with blob(own, "receipt.json") as mine, blob(own, "new.json") as new, blob(own, "x") as x:
        source = f"{account}{own}/receipts.json?{token}"
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: mine.upload_blob(b"forged", overwrite=True),
            lambda: new.upload_blob(b"new", overwrite=False),
            lambda: new.stage_block("MDAw", b"new"),
            lambda: new.commit_block_list([BlobBlock("MDAw")]),
            x.create_append_blob,
            lambda: x.create_page_blob(512),
            lambda: x.start_copy_from_url(source),
            lambda: mine.set_blob_metadata({"a": "b"}),
            lambda: mine.set_blob_tags({"a": "b"}),
            mine.get_blob_tags,
            lambda: mine.set_standard_blob_tier("Cool"),
            lambda: mine.acquire_lease(15),
            mine.create_snapshot,
            mine.delete_blob,
        ]
        assert [await refusal(write) for write in writes] == ["403"] * len(writes)
    async with ContainerClient.from_container_url(made.url, retry_total=0) as container:

        async def listing() -> None:
            _ = [found async for found in container.list_blobs()]

        for request in (listing, container.delete_container, container.get_container_access_policy):
            assert await refusal(request) == "403"
    for elsewhere, name in (
        (f"in-{supplier}", "photo.jpg"),
        (layout.RESULTS, f"json/{supplier}.json"),
        (layout.receipt_container(rival), "receipt.json"),
    ):
        async with blob(elsewhere, name) as other:
            assert await refusal(other.download_blob) == "403", elsewhere
            assert await refusal(lambda it=other: it.upload_blob(b"x", overwrite=False)) == "403"
    upload_link = await blobs.supplier_grant(supplier, "g1", datetime.now(UTC) + timedelta(days=30))
    async with BlobClient.from_blob_url(
        f"{account}{own}/receipt.json?{upload_link.url.partition('?')[2]}", retry_total=0
    ) as mine:
        assert await refusal(mine.download_blob) == "403", "nor do the two links do each other's work"


async def test_a_grants_sibling_ends_with_it(blobs: Blobs, supplier: str) -> None:
    await blobs.revoke_grants(supplier, None)  # no receipts, no container, no error
    ends = datetime.now(UTC) + timedelta(days=1)
    first, second = [await blobs.receipt_grant(supplier, name, ends) for name in ("g1", "g2")]
    expired = await blobs.receipt_grant(supplier, "g3", datetime.now(UTC) - timedelta(minutes=5))
    await leave(run_of(supplier), blobs, upload(run_of(supplier), "a.jpg", FinalKind.ANALYSED))

    async def read(url: str) -> str:
        container, _, token = url.partition("?")
        async with BlobClient.from_blob_url(f"{container}/receipt.json?{token}", retry_total=0) as blob:
            return await refusal(blob.download_blob)

    assert [await read(link.url) for link in (first, second, expired)] == ["", "", "403"]
    await blobs.revoke_grants(supplier, {"g1"})
    assert [await read(link.url) for link in (first, second)] == ["403", ""]
    await blobs.revoke_grants(supplier, None)
    assert await read(second.url) == "403"


async def test_each_run_leaves_a_receipt_and_the_newest_is_where_its_supplier_looks(
    blobs: Blobs, supplier: str, blob_settings: BlobSettings
) -> None:
    container = layout.receipt_container(supplier)
    with pytest.raises(BlobVanished):
        await blobs.read(container, "receipts.json", max_bytes=10**6)
    runs = [run_of(supplier, minute) for minute in range(6)]
    again = msgspec.structs.replace(run_of(supplier, 9), reprocess_of=runs[0].run_id, model="m@2")
    await blobs.create_container(container)
    async with Blobs(blob_settings) as other:  # a second process
        await asyncio.gather(
            *(
                leave(run, (blobs, other)[number % 2], upload(run, f"{number}.jpg", FinalKind.ANALYSED))
                for number, run in enumerate([*runs, again])
            )
        )
        before = await blobs.read(container, "receipts.json", max_bytes=10**6)
        await leave(runs[2], other, upload(runs[2], "2.jpg", FinalKind.ANALYSED))
    assert await blobs.read(container, "receipts.json", max_bytes=10**6) == before, "a repeat changes nothing"
    index = json.loads(before)
    assert [one["run_id"] for one in index["receipts"]] == [run.run_id for run in (again, *reversed(runs))]
    newest = json.loads(await blobs.read(container, "receipt.json", max_bytes=10**6))
    assert newest["run_id"] == runs[-1].run_id, "the newest delivery, not our own second look"
    for one in index["receipts"]:
        receipt = json.loads(await blobs.read(container, one["json"], max_bytes=10**6))
        assert (receipt["run_id"], receipt["counts"]) == (one["run_id"], one["counts"])
        assert await blobs.read(container, one["csv"], max_bytes=10**6)
    table = csv.reader(io.StringIO((await blobs.read(container, "receipts.csv", max_bytes=10**6)).decode("utf-8-sig")))
    assert [row[0] for row in table] == ["run", again.run_id, *(run.run_id for run in reversed(runs))]


class Held:
    """Storage on which another run ends completely just before this write."""

    def __init__(self, blobs: Blobs, name: str, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._blobs, self._name, self._meanwhile = blobs, name, meanwhile

    def __getattr__(self, name: str) -> object:
        return getattr(self._blobs, name)

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        if name == self._name:
            self._name = ""
            await self._meanwhile()
        await self._blobs.write(container, name, data, content_type)


@pytest.mark.parametrize("at", ["receipts.csv", "receipt.json", "receipt.csv"])
async def test_of_two_runs_that_end_together_the_slower_leaves_nothing_stale(
    blobs: Blobs, supplier: str, at: str
) -> None:
    container = layout.receipt_container(supplier)
    await blobs.create_container(container)
    older, newer = (run_of(supplier, minute) for minute in range(2))

    async def newer_ends() -> None:
        await leave(newer, blobs, upload(newer, "new.jpg", FinalKind.ANALYSED))

    slow = Held(blobs, at, newer_ends)
    await leave(older, slow, upload(older, "old.jpg", FinalKind.ANALYSED))  # type: ignore[arg-type]
    listed = (await blobs.read(container, "receipts.csv", max_bytes=10**6)).decode()
    assert newer.run_id in listed and older.run_id in listed
    assert json.loads(await blobs.read(container, "receipt.json", max_bytes=10**6))["run_id"] == newer.run_id
    assert b"new.jpg" in await blobs.read(container, "receipt.csv", max_bytes=10**6)


def hostile_receipt() -> tuple[list[str], bytes, bytes]:
    run = run_of("acme")
    found = [*names(), "half\ud800pair.jpg", 'quote","=1+1', "semi;=1+1", "\uff1dfull", "  =spaced"]
    found += ["b;=cmd|'/C calc'!A0;.jpg", 'quoted;"=1+1".jpg', "spaced; =1+1", "bar|@SUM(A1)", "many;;,-1", "w;\uff0b1"]
    rows = [
        upload(run, name, kind, explanation="It is damaged.", reason="damaged", duplicate_of=FIRST)
        for name, kind in zip(found, KINDS * len(found), strict=False)
    ]
    listed = Listed(
        manifests=(Manifest(upload_id="m", name="=cmd()\r\n.json", listed=1, reason="manifest_malformed"),),
        missing=tuple(Missing(name=name, manifest="=cmd()\r\n.json") for name in found),
        unlisted=tuple(found),
    )
    first = upload(run, "@first;=cmd|'/C calc'!A0", KINDS[0])
    receipt = receipt_of(
        run, rows, summarise(run, rows, {FIRST: msgspec.structs.replace(first, upload_id=FIRST)}, listed)
    )
    return found, receipt_json(receipt), receipt_csv(receipt)


def test_json_keeps_every_name_exactly_and_csv_shows_it_without_a_formula() -> None:
    found, as_json, as_csv = hostile_receipt()
    kept = json.loads(as_json)
    assert sorted(one["name"] for one in kept["files"]) == sorted(found)
    assert [one["name"] for one in kept["missing"]] == kept["not_listed"] == found
    assert kept["manifests"][0]["name"] == "=cmd()\r\n.json"
    assert as_json.isascii()
    text = as_csv.decode("utf-8-sig")
    assert as_csv.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert {len(row) for row in rows} == {10}
    assert len(rows) == 1 + 2 * len(found) + 1
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(FORMULA)]
    assert all(cell == one_line(cell, 2_000) for cell in cells), "visible characters, one line each"
    assert text.count("\r\n") == len(rows), "every line ends where we end it"
    for separator in ";,|\t":  # as a spreadsheet may be told, or tells itself where commas are in numbers
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            assert not [cell for cell in row if cell.lstrip(' "').startswith(FORMULA)], separator
    shown = {row[0].replace("'", "") for row in rows[1:]}
    assert shown >= {(one_line(name, 1_024) or "(no name)").replace("'", "") for name in found}


def test_a_receipt_says_what_became_of_each_file_and_nothing_of_us() -> None:
    run = run_of("acme")
    first = upload(run, "van/first.jpg", FinalKind.ANALYSED)
    rows = [
        first,
        upload(run, "bad.jpg", FinalKind.REJECTED, reason="damaged", explanation="It is damaged; send it again."),
        upload(run, "twin.jpg", FinalKind.DUPLICATE, duplicate_of=first.upload_id, duplicate_of_run=run.run_id),
        upload(run, "ours.jpg", FinalKind.FAILED, reason="gave_up", explanation="node-7: stack trace of ours"),
        upload(run, "off.jpg", FinalKind.FAILED, reason="cancelled", explanation="The delivery was cancelled."),
    ]
    receipt = json.loads(receipt_json(receipt_of(run, rows, summarise(run, rows, {}))))
    assert receipt["counts"] == {
        "files": 5,
        "accepted": 1,
        "refused": 1,
        "duplicate": 1,
        "failed": 2,
        "missing": 0,
    }
    told = {one["name"]: one for one in receipt["files"]}
    assert told["van/first.jpg"]["outcome"] == "accepted"
    assert told["van/first.jpg"]["warnings"] == ["blurred", "dark"]
    assert (told["bad.jpg"]["reason"], told["bad.jpg"]["what_to_do"]) == ("damaged", "It is damaged; send it again.")
    assert (told["twin.jpg"]["duplicate_of"], told["twin.jpg"]["duplicate_of_run"]) == ("van/first.jpg", run.run_id)
    assert "on our side" in told["ours.jpg"]["what_to_do"] and "stack trace" not in json.dumps(receipt)
    assert told["off.jpg"]["what_to_do"] == "The delivery was cancelled."


async def test_a_supplier_of_the_longest_name_has_a_container_for_its_receipts(
    blob_settings: BlobSettings, azurite: object
) -> None:
    name = "s" * 60
    async with Blobs(blob_settings) as blobs:
        await leave(run_of(name), blobs, upload(run_of(name), "a.jpg", FinalKind.ANALYSED))
        assert await blobs.read(layout.receipt_container(name), "receipt.json", max_bytes=10**6)
    async with BlobServiceClient.from_connection_string(blob_settings.connection.reveal()) as service:
        await service.delete_container(layout.receipt_container(name))
