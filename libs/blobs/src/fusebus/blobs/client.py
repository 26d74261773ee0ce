"""Reads and writes blobs by container and name, with an ETag and a size cap on everything that came from outside."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec
from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobProperties as SdkProperties
from azure.storage.blob import ContentSettings
from azure.storage.blob.aio import BlobClient, BlobServiceClient, LinearRetry

from fusebus.blobs import grants
from fusebus.blobs.blocks import IF_ABSENT, upload_blocks
from fusebus.blobs.errors import BlobChanged, BlobExists, BlobTooLarge, BlobVanished, translated
from fusebus.blobs.grants import GrantedUrl
from fusebus.blobs.layout import receipt_container, supplier_container, supplier_of
from fusebus.blobs.sas import READ_ONLY, container_url_with_sas
from fusebus.blobs.settings import BlobSettings
from fusebus.contracts.messages import SUPPLIER_CONTAINER_PREFIX
from fusebus.host import SettingsError, environment_has_proxies

BLOCK_BLOB = "BlockBlob"


class BlobProperties(msgspec.Struct, frozen=True, kw_only=True):
    """What storage says about a blob; none of it but `size`, `etag` and `blob_type` is to be believed."""

    name: str
    """Exactly as stored: data, never a path."""
    size: int
    """Bytes."""
    etag: str
    """Without quotes."""
    blob_type: str
    """`BlockBlob`, `PageBlob` or `AppendBlob`."""
    content_type: str
    """As the uploader claims."""
    created_at: datetime
    modified_at: datetime
    """When this content was written: an overwritten blob keeps `created_at`."""
    content_md5: bytes = b""
    """As storage checked it, or as the uploader of many blocks claims; empty where there is none."""
    copy_status: str = ""
    """`pending`, `success`, `aborted` or `failed` where the content was copied from elsewhere, else empty."""


ListedBlob = BlobProperties
"""A listing carries the same facts."""


class Blobs:
    """One storage account, as an async context manager. Raises the errors of fusebus.blobs.errors, nothing of azure."""

    def __init__(self, settings: BlobSettings) -> None:
        self._settings = settings
        self._exits = AsyncExitStack()
        self._open: BlobServiceClient | None = None

    async def __aenter__(self) -> Self:
        self._open = await self._exits.enter_async_context(await self._client())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = None
        await self._exits.aclose()

    async def properties(self, container: str, name: str) -> BlobProperties | None:
        """None where there is no such blob. Raises StorageUnavailable, StorageError."""
        try:
            with translated(f"properties of {container}/{name!r}"):
                return _properties(name, await self._blob(container, name).get_blob_properties())
        except BlobVanished:
            return None

    async def holds(self, container: str, name: str, data: bytes) -> bool:
        """Whether the blob has exactly this content; read only where storage keeps no MD5 of it.

        Raises BlobChanged, StorageUnavailable, StorageError.
        """
        found = await self.properties(container, name)
        if found is None or found.size != len(data):
            return False
        if found.content_md5:
            return found.content_md5 == hashlib.md5(data, usedforsecurity=False).digest()
        return await self.read(container, name, etag=found.etag, max_bytes=max(found.size, 1)) == data

    async def read(self, container: str, name: str, *, etag: str | None = None, max_bytes: int) -> bytes:
        """The whole blob, at most `max_bytes`; with `etag` exactly that content, over all requests it takes.

        Raises BlobVanished, BlobChanged, BlobTooLarge, StorageUnavailable, StorageError.
        """
        what = f"read of {container}/{name!r}"
        pinned: dict[str, Any] = {"etag": _quoted(etag), "match_condition": MatchConditions.IfNotModified}
        try:
            with translated(what):
                stream = await self._blob(container, name).download_blob(
                    offset=0, length=max_bytes + 1, **(pinned if etag else {})
                )
                data: bytes = await stream.readall()
        except BlobChanged as error:  # a failed condition: storage answers the same where there is no blob at all
            if await self.properties(container, name) is None:
                raise BlobVanished(f"{what}: not found") from error
            raise
        if len(data) > max_bytes:
            raise BlobTooLarge(f"{what}: more than {max_bytes} bytes")
        return data

    async def write(self, container: str, name: str, data: bytes, content_type: str) -> None:
        """Put these bytes there, whatever was there before: a repeat of the same write changes nothing.

        Raises StorageUnavailable, StorageError; BlobVanished where the container is missing.
        """
        with translated(f"write of {container}/{name!r}"):
            await self._blob(container, name).upload_blob(
                data, overwrite=True, content_settings=ContentSettings(content_type=content_type)
            )

    async def create(self, container: str, name: str, data: bytes, content_type: str) -> str:
        """Put these bytes there if nothing is; the blob's ETag. The same bytes there already are a success too.

        Raises BlobExists where other content is there, StorageUnavailable, StorageError.
        """
        try:
            return await self._put(container, name, data, content_type, IF_ABSENT)
        except (BlobExists, BlobChanged) as error:
            if etag := await self._same_content(container, name, data):
                return etag
            raise BlobExists(f"creation of {container}/{name!r}: is there with other content") from error

    async def replace(self, container: str, name: str, data: bytes, content_type: str, etag: str) -> str:
        """Put these bytes in place of the content with that ETag; the new ETag.

        A lost answer is repeated by the client and then meets its own success, which has the same bytes: no error.
        Raises BlobChanged where other content is there now, StorageUnavailable, StorageError.
        """
        condition: dict[str, Any] = {"etag": _quoted(etag), "match_condition": MatchConditions.IfNotModified}
        try:
            return await self._put(container, name, data, content_type, condition)
        except BlobChanged:
            if etag := await self._same_content(container, name, data):
                return etag
            raise

    async def upload_file(
        self, container: str, name: str, file: BinaryIO, on_bytes: Callable[[int], None] = lambda _: None
    ) -> bool:
        """Write an open file of any size as a new blob; False where the same content is there already.

        An interrupted upload goes on where it was. `on_bytes` hears of each part that is done. Raises BlobExists where
        other content is there, StorageUnavailable, StorageError.
        """
        with translated(f"upload of {container}/{name!r}"):
            return await upload_blocks(self._blob(container, name), file, on_bytes)

    async def chunks(self, container: str, name: str, *, etag: str, offset: int = 0) -> AsyncIterator[bytes]:
        """The content with that ETag from `offset` on, in parts of at most 4 MB.

        Raises BlobVanished, BlobChanged, StorageUnavailable, StorageError; perhaps after some parts.
        """
        with translated(f"read of {container}/{name!r}"):
            stream = await self._blob(container, name).download_blob(
                offset=offset, etag=_quoted(etag), match_condition=MatchConditions.IfNotModified
            )
            async for part in stream.chunks():
                yield part

    async def delete(self, container: str, name: str) -> bool:
        """Whether it was there; it is not any more. Raises StorageUnavailable, StorageError."""
        try:
            with translated(f"deletion of {container}/{name!r}"):
                await self._blob(container, name).delete_blob()
        except BlobVanished:
            return False
        return True

    async def list(self, container: str, prefix: str = "", *, retry: bool = True) -> AsyncIterator[ListedBlob]:
        """Blobs in the order of their names, page by page: `async for blob in blobs.list(...)`.

        `retry`: whether a page that fails is asked for again. Raises BlobVanished where the container is missing,
        StorageUnavailable, StorageError; perhaps after some blobs.
        """
        patience: dict[str, Any] = {} if retry else {"retry_total": 0}
        with translated(f"listing of {container}"):
            blobs = self._service.get_container_client(container).list_blobs(prefix, include=["copy"], **patience)
            async for found in blobs:
                yield _properties(found.name, found)

    async def container_exists(self, container: str) -> bool:
        """Whether there is such a container. Raises StorageUnavailable, StorageError."""
        with translated(f"look at {container}"):
            return bool(await self._service.get_container_client(container).exists())

    async def create_container(self, container: str) -> None:
        """Make sure that the container is there. Raises StorageUnavailable, StorageError."""
        with translated(f"creation of {container}"):
            try:
                await self._service.create_container(container)
            except ResourceExistsError:
                return

    async def list_supplier_containers(self) -> AsyncIterator[str]:
        """Names of all containers that suppliers upload to. Raises StorageUnavailable, StorageError."""
        with translated("listing of containers"):
            async for found in self._service.list_containers(name_starts_with=SUPPLIER_CONTAINER_PREFIX):
                if supplier_of(found.name) is not None:
                    yield found.name

    async def supplier_sas(self, supplier: str, valid_for_seconds: float) -> str:
        """URL of the supplier's container with a token that can create blobs, and nothing else, for so long.

        It can't overwrite, read, list or delete. Signed by the account key, or in Azure by a user-delegation key.
        Raises StorageUnavailable, StorageError.
        """
        container = supplier_container(supplier)
        with translated(f"delegation for {container}"):
            return await container_url_with_sas(self._service, container, valid_for_seconds)

    async def supplier_grant(self, supplier: str, grant_id: str, expires_at: datetime) -> GrantedUrl:
        """A token as of `supplier_sas`, for days; revocable by its id where the account key signs.

        Raises GrantUnavailable where storage can't make such a token, StorageUnavailable, StorageError.
        """
        container = supplier_container(supplier)
        with translated(f"grant for {container}"):
            return await grants.grant(self._service, container, grant_id, expires_at)

    async def receipt_grant(self, supplier: str, grant_id: str, expires_at: datetime) -> GrantedUrl:
        """The sibling of `supplier_grant`: it reads the supplier's receipts by name, and nothing else anywhere.

        Their container is made where it is missing. Raises as `supplier_grant` does.
        """
        container = receipt_container(supplier)
        await self.create_container(container)
        with translated(f"grant for {container}"):
            return await grants.grant(self._service, container, grant_id, expires_at, READ_ONLY)

    async def revoke_grants(self, supplier: str, grant_ids: set[str] | None) -> None:
        """Refuse these grants and their siblings from now on, None: all that hang on a policy.

        A repeat changes nothing.

        Raises StorageUnavailable, StorageError (GrantUnavailable where others change the grants all the time)."""
        container = supplier_container(supplier)
        receipts = receipt_container(supplier)
        try:
            with translated(f"revocation for {container}"):
                await grants.revoke(self._service, container, grant_ids)
        finally:  # whatever became of the other
            with contextlib.suppress(BlobVanished), translated(f"revocation for {receipts}"):  # not made: none is there
                await grants.revoke(self._service, receipts, grant_ids)

    async def _put(self, container: str, name: str, data: bytes, content_type: str, condition: dict[str, Any]) -> str:
        with translated(f"write of {container}/{name!r}"):
            answer = await self._blob(container, name).upload_blob(
                data, overwrite=True, content_settings=ContentSettings(content_type=content_type), **condition
            )
        return str(answer["etag"]).strip('"')

    async def _same_content(self, container: str, name: str, data: bytes) -> str:
        """The blob's ETag where it has exactly these bytes, else empty."""
        found = await self.properties(container, name)
        if found is None or found.size != len(data):
            return ""
        try:
            same = await self.read(container, name, etag=found.etag, max_bytes=len(data)) == data
        except (BlobChanged, BlobVanished):
            return ""
        return found.etag if same else ""

    @property
    def _service(self) -> BlobServiceClient:
        if self._open is None:
            raise RuntimeError("Blobs is used outside of its `async with`")
        return self._open

    def _blob(self, container: str, name: str) -> BlobClient:
        if not _addressable(name):
            raise BlobVanished(f"{container}/{name[:100]!r}: no request can name such a blob")
        return self._service.get_blob_client(container, name)

    async def _client(self) -> BlobServiceClient:
        settings = self._settings
        # Typed as whole seconds by the SDK, which adds and sleeps them as floats just as well.
        pauses: dict[str, Any] = {
            "backoff": settings.retry_backoff_seconds,
            "random_jitter_range": settings.retry_backoff_seconds / 2,
        }
        patience: dict[str, Any] = {
            "connection_timeout": settings.connect_timeout_seconds,
            "read_timeout": settings.read_timeout_seconds,
            "retry_policy": LinearRetry(**pauses, retry_total=settings.retries),
            "use_env_settings": environment_has_proxies(),
        }
        if settings.connection:
            return BlobServiceClient.from_connection_string(settings.connection.reveal(), **patience)
        if not settings.endpoint:
            raise SettingsError(["neither FUSEBUS_BLOBS_CONNECTION nor FUSEBUS_BLOBS_ENDPOINT is set"])
        from azure.identity.aio import DefaultAzureCredential  # 0.1 s, and a connection string needs none of it

        credential = await self._exits.enter_async_context(DefaultAzureCredential())
        return BlobServiceClient(settings.endpoint, credential=credential, **patience)


def _addressable(name: str) -> bool:
    """Whether a URL can hold the name: on the way `.` and `..` would turn into another blob's name."""
    return bool(name) and not any(part in (".", "..") for part in re.split(r"[/\\]", name))


def _quoted(etag: str | None) -> str:
    return f'"{etag}"'


def _properties(name: str, found: SdkProperties) -> BlobProperties:
    return BlobProperties(
        name=name,
        size=int(found.size),
        etag=str(found.etag).strip('"'),
        blob_type=str(getattr(found.blob_type, "value", found.blob_type)),
        content_type=str(found.content_settings.content_type or ""),
        created_at=found.creation_time or found.last_modified,
        modified_at=found.last_modified,
        content_md5=bytes(found.content_settings.content_md5 or b""),
        copy_status=str((found.copy and found.copy.status) or ""),
    )
