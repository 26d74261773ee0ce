"""Owns the tokens that suppliers keep for days, each for one container and revocable where storage allows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import AccessPolicy, ContainerSasPermissions, StorageErrorCode, generate_container_sas
from azure.storage.blob.aio import BlobLeaseClient, BlobServiceClient, ContainerClient

from fusebus.blobs.errors import StorageError
from fusebus.blobs.sas import CLOCK_SKEW, CREATE_ONLY

MAX_POLICIES = 5
"""Stored access policies that a container can have."""
LONGEST_DELEGATION = timedelta(days=7)
"""Storage makes no user-delegation key that lives longer."""
LEASE_SECONDS = 15
"""Of the container while its policies are changed; the shortest that storage grants."""
LEASE_WAIT_SECONDS = 30.0
"""For another command's change; one that died in its middle lets go after LEASE_SECONDS."""
LEASE_PAUSE_SECONDS = 0.2
Policies = dict[str, AccessPolicy]


class GrantUnavailable(StorageError):
    """Storage can't make such a token; the text says what to do."""


class GrantedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A container's URL with a token. It is a secret: shown once, kept nowhere."""

    url: str
    expires_at: datetime
    revocable: bool
    """False for a user-delegation token: storage takes back all of an account's at once, or none."""


async def grant(
    service: BlobServiceClient,
    container: str,
    grant_id: str,
    expires_at: datetime,
    permission: ContainerSasPermissions = CREATE_ONLY,
) -> GrantedUrl:
    """A token with that permission. Where the account key signs, it hangs on a stored access policy called `grant_id`.

    The policy then holds permission, start and expiry, the token only its id and (outside local) https.
    Raises GrantUnavailable, and the SDK's errors.
    """
    start = datetime.now(UTC) - CLOCK_SKEW
    expires_at = expires_at.replace(microsecond=0)  # tokens know whole seconds
    chosen: dict[str, Any] = {"protocol": "https"} if service.url.startswith("https:") else {}
    account_key = getattr(service.credential, "account_key", None)
    if account_key:
        policy = AccessPolicy(permission, expiry=expires_at, start=start.replace(microsecond=0))
        await _add_policy(service.get_container_client(container), grant_id, policy)
        chosen |= {"account_key": account_key, "policy_id": grant_id}
    else:
        start = max(start, expires_at - LONGEST_DELEGATION)  # the skew is no part of what was asked for
        if start > datetime.now(UTC):
            raise GrantUnavailable("with a managed identity a token lives 7 days at most: --for 7d, and grant anew")
        chosen |= {"user_delegation_key": await service.get_user_delegation_key(start, expires_at)}
        chosen |= {"permission": permission, "start": start, "expiry": expires_at}
    token = generate_container_sas(str(service.account_name), container, **chosen)
    url = f"{service.get_container_client(container).url.split('?')[0]}?{token}"
    return GrantedUrl(url=url, expires_at=expires_at, revocable=bool(account_key))


async def revoke(service: BlobServiceClient, container: str, grant_ids: set[str] | None) -> None:
    """Remove these policies, or all: their tokens are refused at once (in Azure within 30 s).

    Raises GrantUnavailable, and the SDK's errors.
    """
    client = service.get_container_client(container)

    def without(policies: Policies) -> Policies:
        return {name: policy for name, policy in policies.items() if grant_ids is not None and name not in grant_ids}

    there = await _policies(client)
    if without(there) != there:  # else the right to lease the container is not needed either
        await _change_policies(client, without)


async def _add_policy(client: ContainerClient, grant_id: str, policy: AccessPolicy) -> None:
    def with_it(policies: Policies) -> Policies:
        now = datetime.now(UTC)
        kept = {name: policy for name, policy in policies.items() if not _is_over(policy, now)}
        if len(kept) >= MAX_POLICIES:
            raise GrantUnavailable(f"the container has {MAX_POLICIES} grants already, and can't have more: revoke one")
        return kept | {grant_id: policy}

    await _change_policies(client, with_it)


async def _change_policies(client: ContainerClient, change: Callable[[Policies], Policies]) -> None:
    """Read, change and write them under a lease: storage has no condition that keeps a revoked one from coming back."""
    lease = await _lease(client)
    try:
        await client.set_container_access_policy(change(await _policies(client)), lease=lease)  # refused if it ran out
    finally:
        with contextlib.suppress(AzureError):  # it ends by itself soon
            await lease.release()


async def _lease(client: ContainerClient) -> BlobLeaseClient:
    """Waits for whoever has it now. Raises GrantUnavailable where it does not end."""
    ends = time.monotonic() + LEASE_WAIT_SECONDS
    while True:
        try:
            return await client.acquire_lease(LEASE_SECONDS)
        except HttpResponseError as error:
            if getattr(error, "error_code", None) != StorageErrorCode.LEASE_ALREADY_PRESENT:
                raise
        if time.monotonic() > ends:
            raise GrantUnavailable("another command changes this supplier's grants all the time: try again later")
        await asyncio.sleep(LEASE_PAUSE_SECONDS)


def _is_over(policy: AccessPolicy, now: datetime) -> bool:
    expiry: str | datetime | None = policy.expiry
    ends = datetime.fromisoformat(expiry) if isinstance(expiry, str) else expiry
    return ends is not None and ends < now


async def _policies(client: ContainerClient) -> Policies:
    found = await client.get_container_access_policy()
    return {str(one.id): one.access_policy for one in found["signed_identifiers"]}
