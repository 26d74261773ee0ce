"""Settings of a fresh corner of the session's Azurite: tables and containers that no other test sees."""

import secrets

import pytest

from fusebus.blobs import BlobSettings
from fusebus.host import Secret
from fusebus.ledger import LedgerSettings
from fusebus.stack.azurite import Azurite


@pytest.fixture
def blob_settings(azurite: Azurite) -> BlobSettings:
    """The whole account: use a supplier or container name of your own (`supplier`)."""
    return BlobSettings(connection=Secret(azurite.connection_string))


@pytest.fixture
def ledger_settings(azurite: Azurite) -> LedgerSettings:
    """Tables under a prefix of their own; they are not created yet."""
    return LedgerSettings(connection=Secret(azurite.connection_string), table_prefix=f"t{secrets.token_hex(6)}")


@pytest.fixture
def supplier() -> str:
    """A name that no other test uses."""
    return f"s{secrets.token_hex(6)}"
