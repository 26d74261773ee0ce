"""Owns the tokens that suppliers keep for days: create blobs in one container, revocable where storage allows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from azure.storage.blob import AccessPolicy, generate_container_sas
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from fusebus.blobs.errors import StorageError
from fusebus.blobs.sas import CLOCK_SKEW, CREATE_ONLY

MAX_POLICIES = 5
"""Stored access policies that a container can have."""
LONGEST_DELEGATION = timedelta(days=7)
"""Storage makes no user-delegation key that lives longer."""


class GrantUnavailable(StorageError):
    """Storage can't make such a token; the text says what to do."""


class GrantedUrl(msgspec.Struct, frozen=True, kw_only=True):
    """A container's URL with a token. It is a secret: shown once, kept nowhere."""

    url: str
    expires_at: datetime
    revocable: bool
    """False for a user-delegation token: storage takes back all of an account's at once, or none."""


async def grant(service: BlobServiceClient, container: str, grant_id: str, expires_at: datetime) -> GrantedUrl:
    """A create-only token. Where the account key signs, it hangs on a stored access policy called `grant_id`.

    The policy then holds permission, start and expiry, the token only its id and (outside local) https.
    Raises GrantUnavailable, and the SDK's errors.
    """
    start = datetime.now(UTC) - CLOCK_SKEW
    expires_at = expires_at.replace(microsecond=0)  # tokens know whole seconds
    chosen: dict[str, Any] = {"protocol": "https"} if service.url.startswith("https:") else {}
    account_key = getattr(service.credential, "account_key", None)
    if account_key:
        await _add_policy(service.get_container_client(container), grant_id, start, expires_at)
        chosen |= {"account_key": account_key, "policy_id": grant_id}
    else:
        if expires_at - start > LONGEST_DELEGATION:
            raise GrantUnavailable("with a managed identity a token lives 7 days at most: --for 6d, and grant anew")
        chosen |= {"user_delegation_key": await service.get_user_delegation_key(start, expires_at)}
        chosen |= {"permission": CREATE_ONLY, "start": start, "expiry": expires_at}
    token = generate_container_sas(str(service.account_name), container, **chosen)
    url = f"{service.get_container_client(container).url.split('?')[0]}?{token}"
    return GrantedUrl(url=url, expires_at=expires_at, revocable=bool(account_key))


async def revoke(service: BlobServiceClient, container: str, grant_ids: set[str] | None) -> None:
    """Remove these policies, or all: their tokens are refused at once (in Azure within 30 s)."""
    client = service.get_container_client(container)
    policies = await _policies(client)
    kept = {name: policy for name, policy in policies.items() if grant_ids is not None and name not in grant_ids}
    if kept != policies:
        await client.set_container_access_policy(kept)


async def _add_policy(client: ContainerClient, grant_id: str, start: datetime, expiry: datetime) -> None:
    now = datetime.now(UTC)
    policies = {name: policy for name, policy in (await _policies(client)).items() if not _is_over(policy, now)}
    if len(policies) >= MAX_POLICIES:
        raise GrantUnavailable(f"the container has {MAX_POLICIES} grants already, and can't have more: revoke one")
    policies[grant_id] = AccessPolicy(CREATE_ONLY, expiry=expiry, start=start.replace(microsecond=0))
    await client.set_container_access_policy(policies)


def _is_over(policy: AccessPolicy, now: datetime) -> bool:
    expiry: str | datetime | None = policy.expiry
    ends = datetime.fromisoformat(expiry) if isinstance(expiry, str) else expiry
    return ends is not None and ends < now


async def _policies(client: ContainerClient) -> dict[str, AccessPolicy]:
    found = await client.get_container_access_policy()
    return {str(one.id): one.access_policy for one in found["signed_identifiers"]}
