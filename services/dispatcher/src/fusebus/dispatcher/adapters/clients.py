"""Opens the two Batch clients: management plane and data plane, of an account in Azure or of the local Batch."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any, Self

from azure.batch.aio import BatchClient
from azure.core.credentials import AccessToken, AzureNamedKeyCredential
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.identity.aio import DefaultAzureCredential
from azure.mgmt.batch.aio import BatchManagementClient

from fusebus.dispatcher.settings import BatchAccount

# A connection that breaks is tried again within the look. An answer, 429 included, is the look's business: the SDK
# would sleep through the look for as long as the server says.
PATIENCE: dict[str, Any] = {"retry_total": 2, "retry_status": 0}
LOCAL_KEY = AzureNamedKeyCredential("local", "bG9jYWw=")  # the local Batch takes any


def open_clients(account: BatchAccount, closing: AsyncExitStack) -> tuple[BatchManagementClient, BatchClient]:
    """Both clients, not connected yet; what must be closed besides them goes onto `closing`."""
    if account.batch_url:
        arm = BatchManagementClient(
            _NoToken(),
            account.subscription_id or "00000000-0000-0000-0000-000000000000",
            base_url=account.batch_url,
            authentication_policy=SansIOHTTPPolicy[Any, Any](),
            **PATIENCE,
        )
        return arm, BatchClient(account.batch_url, LOCAL_KEY, **PATIENCE)
    credential = DefaultAzureCredential()
    closing.push_async_callback(credential.close)
    arm = BatchManagementClient(credential, account.subscription_id, **PATIENCE)
    return arm, BatchClient(account.batch_endpoint, credential, **PATIENCE)


class _NoToken:
    """ARM's client insists on a credential; over plain http none may be sent."""

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken("none", int(time.time()) + 3600)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""
