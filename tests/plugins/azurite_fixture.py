"""The `azurite` fixture: one Azurite, in memory, for the whole test session."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from fusebus.stack.azurite import Azurite, AzuriteError, AzuriteOptions


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Shared by all tests: each takes container and table names of its own.

    Without node, npm and PyPI it skips on a laptop and fails where `CI` is set.
    """
    server = Azurite(AzuriteOptions(stop_grace_seconds=0.1))  # all is in memory: nothing to be written
    try:
        asyncio.run(server.start())
    except AzuriteError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Azurite: {error}")
    yield server
    asyncio.run(server.stop())
