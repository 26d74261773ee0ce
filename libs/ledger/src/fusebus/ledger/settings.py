"""How the tables are reached, and how patient their client is: section `ledger`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.host import Secret


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `ledger`: variables FUSEBUS_LEDGER_<FIELD>."""

    connection: Annotated[
        Secret, Meta(description="Connection string of the storage account; empty: managed identity at the endpoint.")
    ] = Secret("")
    endpoint: Annotated[
        str, Meta(description="https://<account>.table.core.windows.net, used where there is no connection string.")
    ] = ""
    table_prefix: Annotated[
        str, Meta(pattern="^([A-Za-z][A-Za-z0-9]{0,40})?$", description="Put before every table's name.")
    ] = ""
    connect_timeout_seconds: Annotated[
        float, Meta(gt=0, description="How long a connection may take to open before the try counts as failed.")
    ] = 10.0
    read_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Silence within one request after which the try counts as failed.")
    ] = 30.0
    retries: Annotated[
        int, Meta(ge=0, description="Tries after the first before a request fails with LedgerUnavailable.")
    ] = 3
    retry_backoff_seconds: Annotated[
        float, Meta(ge=0, description="Unit of the growing pause between the tries of one request.")
    ] = 0.5
    contention_tries: Annotated[
        int,
        Meta(ge=1, description="How often a row that others change meanwhile is read again before LedgerUnavailable."),
    ] = 50
    contention_backoff_seconds: Annotated[
        float, Meta(ge=0, description="Longest random pause between two of those tries; it grows up to 16-fold.")
    ] = 0.02
