"""How the storage account is reached, and how patient its client is: section `blobs`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.host import Secret


class BlobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Section `blobs`: variables FUSEBUS_BLOBS_<FIELD>."""

    connection: Annotated[
        Secret, Meta(description="Connection string of the storage account; empty: managed identity at the endpoint.")
    ] = Secret("")
    endpoint: Annotated[
        str, Meta(description="https://<account>.blob.core.windows.net, used where there is no connection string.")
    ] = ""
    connect_timeout_seconds: Annotated[
        float, Meta(gt=0, description="How long a connection may take to open before the try counts as failed.")
    ] = 10.0
    read_timeout_seconds: Annotated[
        float, Meta(gt=0, description="Silence within one request after which the try counts as failed.")
    ] = 30.0
    retries: Annotated[
        int, Meta(ge=0, description="Tries after the first before a request fails with StorageUnavailable.")
    ] = 3
    retry_backoff_seconds: Annotated[
        float, Meta(ge=0, description="Pause between the tries of one request, give or take half of it.")
    ] = 1.0
