"""How many nodes and workers there really are: asked of Batch, not of the dispatcher."""

from __future__ import annotations

from dataclasses import dataclass

from azure.batch.aio import BatchClient
from azure.batch.models import BatchNodeState
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, ResourceNotFoundError


@dataclass(frozen=True)
class Nodes:
    """Nodes of a pool in any state, and how many of them run a worker; None where Batch did not answer."""

    present: int | None
    working: int | None


async def count_nodes(url: str, pool: str) -> Nodes:
    """Read the pool's nodes once; a pool that does not exist yet has none."""
    # The local Batch takes any account name and key.
    async with BatchClient(url, AzureNamedKeyCredential("local", "bG9jYWw="), retry_total=0) as client:
        try:
            states = [node.state async for node in client.list_nodes(pool)]
        except ResourceNotFoundError:
            return Nodes(0, 0)
        except AzureError:
            return Nodes(None, None)
    return Nodes(len(states), sum(state == BatchNodeState.RUNNING for state in states))
