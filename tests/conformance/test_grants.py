"""What a supplier's grant can't do, each tried on storage. What Azurite can't prove, docs/suppliers.md lists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, ContentSettings, StandardBlobTier
from azure.storage.blob.aio import BlobClient, BlobLeaseClient, BlobServiceClient, ContainerClient

from fusebus.blobs import Blobs, BlobSettings
from fusebus.blobs.layout import supplier_container

REFUSED = (401, 403)
MAX_BYTES = 1_000_000


@pytest.fixture
async def blobs(blob_settings: BlobSettings, supplier: str) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(supplier_container(supplier))
        await opened.write(supplier_container(supplier), "there.jpg", b"theirs", "image/jpeg")
        yield opened


@pytest.fixture
async def url(blobs: Blobs, supplier: str) -> str:
    return (await blobs.supplier_grant(supplier, "g1", datetime.now(UTC) + timedelta(days=30))).url


FORBIDDEN: dict[str, Callable[[BlobClient], Awaitable[object]]] = {
    "overwrite": lambda blob: blob.upload_blob(b"x", overwrite=True),
    "read": lambda blob: blob.download_blob(),
    "read a part": lambda blob: blob.download_blob(offset=0, length=1),
    "see properties": lambda blob: blob.get_blob_properties(),
    "delete": lambda blob: blob.delete_blob(),
    "delete with snapshots": lambda blob: blob.delete_blob(delete_snapshots="include"),
    "set metadata": lambda blob: blob.set_blob_metadata({"a": "b"}),
    "set headers": lambda blob: blob.set_http_headers(ContentSettings(content_type="text/html")),
    "set tags": lambda blob: blob.set_blob_tags({"a": "b"}),
    "see tags": lambda blob: blob.get_blob_tags(),
    "set the tier": lambda blob: blob.set_standard_blob_tier(StandardBlobTier.ARCHIVE),
    "lease": lambda blob: BlobLeaseClient(blob).acquire(15),
    "see blocks": lambda blob: blob.get_block_list("all"),
    "commit blocks": lambda blob: blob.commit_block_list([BlobBlock("QQ==")]),
    "copy over it": lambda blob: blob.start_copy_from_url(blob.url),
}


@pytest.mark.parametrize("attempt", FORBIDDEN, ids=str)
async def test_a_grant_touches_nothing_that_is_there(attempt: str, blobs: Blobs, supplier: str, url: str) -> None:
    async with ContainerClient.from_container_url(url, retry_total=0) as theirs:
        with pytest.raises(HttpResponseError) as refused:
            await FORBIDDEN[attempt](theirs.get_blob_client("there.jpg"))
    assert refused.value.status_code in (*REFUSED, 409, 412), refused.value
    assert await blobs.read(supplier_container(supplier), "there.jpg", max_bytes=MAX_BYTES) == b"theirs"


async def test_a_grant_opens_no_container_but_its_own_and_not_the_account(
    blobs: Blobs, supplier: str, url: str
) -> None:
    token, other = urlsplit(url).query, supplier_container(f"{supplier}-b")
    await blobs.create_container(other)
    for address in (
        url.replace(supplier_container(supplier), other),
        url.replace(supplier_container(supplier), "results"),
    ):
        async with ContainerClient.from_container_url(address, retry_total=0) as theirs:
            with pytest.raises(HttpResponseError) as refused:
                await theirs.upload_blob("a.jpg", b"x")
        assert refused.value.status_code in (*REFUSED, 404)
    async with ContainerClient.from_container_url(url, retry_total=0) as theirs:
        for attempt in (theirs.get_container_properties, theirs.get_container_access_policy, theirs.delete_container):
            with pytest.raises(HttpResponseError) as refused:
                await attempt()
            assert refused.value.status_code in REFUSED
    account = url.split("/" + supplier_container(supplier))[0]
    async with BlobServiceClient(f"{account}?{token}", retry_total=0) as service:
        with pytest.raises(HttpResponseError):
            _ = [one async for one in service.list_containers()]
        with pytest.raises(HttpResponseError):
            await service.create_container(f"{other}-c")


@pytest.mark.parametrize(
    "change",
    [{"sig": "AAAA"}, {"si": "g2"}, {"sp": "rcwdl"}, {"se": "2099-01-01T00:00:00Z"}, {"sr": "b"}, {"sv": "2015-04-05"}],
    ids=lambda change: next(iter(change)),
)
async def test_a_changed_grant_is_refused(change: dict[str, str], url: str) -> None:
    parts = urlsplit(url)
    token = urlencode({**dict(parse_qsl(parts.query)), **change})
    async with ContainerClient.from_container_url(f"{url.split('?')[0]}?{token}", retry_total=0) as theirs:
        with pytest.raises(HttpResponseError) as refused:
            await theirs.upload_blob("a.jpg", b"x")
    assert refused.value.status_code in (400, *REFUSED)
