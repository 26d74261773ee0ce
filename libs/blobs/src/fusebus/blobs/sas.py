"""Owns what the tokens admit that we hand out: create blobs in one supplier's container, or read its receipts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from azure.storage.blob.aio import BlobServiceClient

CLOCK_SKEW = timedelta(minutes=15)
"""The token starts so long before now: the supplier's, our and storage's clocks differ."""
CREATE_ONLY = ContainerSasPermissions(create=True)
"""`sp=c` denies overwrite, list, read, delete, metadata and tags; it still admits append and page blobs, and copies."""
READ_ONLY = ContainerSasPermissions(read=True)
"""`sp=r` denies list, write, delete, metadata changes and tags: whoever has it must know a blob's name."""


async def container_url_with_sas(service: BlobServiceClient, container: str, valid_for_seconds: float) -> str:
    """The container's URL with its token; only https is admitted where the account itself is reached over https."""
    now = datetime.now(UTC)
    start, expiry = now - CLOCK_SKEW, now + timedelta(seconds=valid_for_seconds)
    chosen: dict[str, Any] = {"protocol": "https"} if service.url.startswith("https:") else {}
    if account_key := getattr(service.credential, "account_key", None):
        chosen["account_key"] = account_key
    else:
        chosen["user_delegation_key"] = await service.get_user_delegation_key(start, expiry)
    token = generate_container_sas(
        str(service.account_name),
        container,
        permission=CREATE_ONLY,
        start=start,
        expiry=expiry,
        **chosen,
    )
    return f"{service.get_container_client(container).url.split('?')[0]}?{token}"
