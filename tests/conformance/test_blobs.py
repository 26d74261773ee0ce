"""Blobs against real storage: pinned content, capped size, names that are data, and a token that can only create."""

import secrets
from collections.abc import AsyncIterator

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from fusebus.blobs import (
    BLOCK_BLOB,
    BlobChanged,
    Blobs,
    BlobSettings,
    BlobTooLarge,
    BlobVanished,
    StorageUnavailable,
    layout,
)
from fusebus.host import Secret
from fusebus.stack.azurite import Azurite

ODD_NAMES = [
    "photo.jpg",
    "with space.jpg",
    "folder/photo.jpg",
    "a//b",
    "/lead",
    "trail/",
    "dot.",
    "100%.jpg",
    "%2e%2e%2fb",
    "what?.jpg",
    "hash#.jpg",
    "quote'\"<>&",
    "é.jpg",
    "e\u0301.jpg",
    "\u202egpj.exe",
    "\U0001f600.jpg",
    "x" * 1024,
]


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        yield opened


@pytest.fixture
async def container(blobs: Blobs, supplier: str) -> str:
    name = layout.supplier_container(supplier)
    await blobs.create_container(name)
    return name


async def test_what_was_written_is_read_and_described(blobs: Blobs, container: str) -> None:
    await blobs.write(container, "photo.jpg", b"content", "image/jpeg")
    found = await blobs.properties(container, "photo.jpg")
    assert found is not None
    assert (found.size, found.blob_type, found.content_type) == (7, BLOCK_BLOB, "image/jpeg")
    assert '"' not in found.etag
    assert await blobs.read(container, "photo.jpg", etag=found.etag, max_bytes=7) == b"content"
    assert await blobs.read(container, "photo.jpg", max_bytes=100) == b"content"


async def test_a_repeated_write_leaves_the_same_content(blobs: Blobs, container: str) -> None:
    for content in (b"first", b"second", b"second"):
        await blobs.write(container, "result.json", content, "application/json")
    assert await blobs.read(container, "result.json", max_bytes=100) == b"second"
    assert [blob.name async for blob in blobs.list(container)] == ["result.json"]


async def test_a_blob_that_is_not_there_has_vanished(blobs: Blobs, container: str) -> None:
    assert await blobs.properties(container, "nothing") is None
    assert await blobs.properties("in-nobody-here", "nothing") is None
    with pytest.raises(BlobVanished):
        await blobs.read(container, "nothing", max_bytes=10)
    with pytest.raises(BlobVanished):
        await blobs.write("in-nobody-here", "x", b"", "text/plain")


async def test_a_blob_written_again_has_changed_for_who_was_promised_the_old_content(
    blobs: Blobs, container: str
) -> None:
    await blobs.write(container, "photo.jpg", b"old", "image/jpeg")
    before = await blobs.properties(container, "photo.jpg")
    await blobs.write(container, "photo.jpg", b"new", "image/jpeg")
    assert before is not None
    with pytest.raises(BlobChanged):
        await blobs.read(container, "photo.jpg", etag=before.etag, max_bytes=10)


async def test_a_pinned_blob_that_was_deleted_has_vanished_not_changed(blobs: Blobs, container: str) -> None:
    with pytest.raises(BlobVanished):
        await blobs.read(container, "never.jpg", etag="0x1", max_bytes=100)


@pytest.mark.parametrize("size", [0, 1, 1000])
async def test_a_blob_of_the_allowed_size_is_read_and_one_byte_more_is_not(
    blobs: Blobs, container: str, size: int
) -> None:
    content = secrets.token_bytes(size)
    await blobs.write(container, "photo.jpg", content, "image/jpeg")
    assert await blobs.read(container, "photo.jpg", max_bytes=size) == content
    if size:
        with pytest.raises(BlobTooLarge):
            await blobs.read(container, "photo.jpg", max_bytes=size - 1)


async def test_a_huge_blob_costs_no_more_than_the_cap(blobs: Blobs, container: str, azurite: Azurite) -> None:
    async with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        await service.get_blob_client(container, "sparse").create_page_blob(size=2**40)
    found = await blobs.properties(container, "sparse")
    assert found is not None and (found.size, found.blob_type) == (2**40, "PageBlob")
    with pytest.raises(BlobTooLarge):
        await blobs.read(container, "sparse", max_bytes=1000)


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
async def test_an_odd_name_is_a_name_and_no_path(blobs: Blobs, container: str, name: str) -> None:
    await blobs.write(container, "b", b"another", "image/jpeg")
    await blobs.write(container, name, b"mine", "image/jpeg")
    assert await blobs.read(container, "b", max_bytes=100) == b"another"
    assert await blobs.read(container, name, max_bytes=100) == b"mine"
    assert sorted([blob.name async for blob in blobs.list(container)]) == sorted(["b", name])


@pytest.mark.parametrize(
    "name", ["x" * 1025, "", "a\x00b", "\x01", "\r\nx: y", "a/../b", "../up", "./here", "a\\..\\b", ".."], ids=ascii
)
async def test_a_name_that_storage_refuses_is_no_crash_and_no_other_blob(
    blobs: Blobs, container: str, name: str
) -> None:
    await blobs.write(container, "b", b"another", "image/jpeg")
    assert await blobs.properties(container, name) is None
    with pytest.raises(BlobVanished):
        await blobs.read(container, name, max_bytes=100)


async def test_a_listing_has_every_blob_under_its_prefix_in_order(blobs: Blobs, container: str) -> None:
    for name in ("b/2", "a/1", "b/1", "c"):
        await blobs.write(container, name, b"x", "text/plain")
    assert [blob.name async for blob in blobs.list(container, "b/")] == ["b/1", "b/2"]
    assert [blob.name async for blob in blobs.list(container)] == ["a/1", "b/1", "b/2", "c"]
    async for blob in blobs.list(container):
        assert blob == await blobs.properties(container, blob.name)


async def test_a_listing_of_no_container_says_so(blobs: Blobs) -> None:
    with pytest.raises(BlobVanished):
        _ = [blob async for blob in blobs.list("in-nobody-here")]


async def test_only_supplier_containers_are_listed_as_such(blobs: Blobs, container: str) -> None:
    await blobs.create_container(container)  # again: no error
    for other in ("results", "inbox"):
        await blobs.create_container(other)
    found = [name async for name in blobs.list_supplier_containers()]
    assert container in found
    assert "results" not in found and "inbox" not in found


async def test_a_suppliers_token_creates_and_does_nothing_else(blobs: Blobs, container: str, supplier: str) -> None:
    async with ContainerClient.from_container_url(await blobs.supplier_sas(supplier, 60)) as theirs:
        await theirs.upload_blob("photo.jpg", b"content")
        assert await blobs.read(container, "photo.jpg", max_bytes=100) == b"content"
        blob = theirs.get_blob_client("photo.jpg")
        for attempt in (
            lambda: blob.upload_blob(b"other", overwrite=True),
            blob.download_blob,
            blob.delete_blob,
            lambda: blob.set_blob_metadata({"a": "b"}),
            theirs.get_container_properties,
            theirs.delete_container,
        ):
            with pytest.raises(HttpResponseError) as refused:
                await attempt()
            assert refused.value.status_code in (401, 403), refused.value
        with pytest.raises(HttpResponseError):
            _ = [found async for found in theirs.list_blobs()]
    assert await blobs.read(container, "photo.jpg", max_bytes=100) == b"content"


async def test_an_expired_token_creates_nothing(blobs: Blobs, container: str, supplier: str) -> None:
    async with ContainerClient.from_container_url(await blobs.supplier_sas(supplier, -60)) as theirs:
        with pytest.raises(HttpResponseError):
            await theirs.upload_blob("photo.jpg", b"content")


async def test_storage_that_does_not_answer_is_unavailable_within_the_set_time() -> None:
    nowhere = BlobSettings(
        connection=Secret(
            "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a;"
        ),
        retries=1,
        retry_backoff_seconds=0.01,
    )
    async with Blobs(nowhere) as blobs:
        with pytest.raises(StorageUnavailable):
            await blobs.properties("in-acme", "photo.jpg")


async def test_an_account_that_is_not_set_is_said_by_its_variable() -> None:
    with pytest.raises(ValueError, match="FUSEBUS_BLOBS_CONNECTION"):
        async with Blobs(BlobSettings()):
            pass
