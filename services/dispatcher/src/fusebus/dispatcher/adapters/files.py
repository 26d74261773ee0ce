"""Fetches the end of a file on a node, made fit for a log line: no secrets, no controls, not long."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from azure.batch import models as batch_models
from azure.core.exceptions import HttpResponseError

from fusebus.host import redact

TAIL_BYTES = 2000


async def tail_of(
    properties: Callable[[], Awaitable[batch_models.BatchFileProperties]],
    download: Callable[[str], Awaitable[AsyncIterator[bytes]]],
) -> str:
    """The last TAIL_BYTES as text; empty where there is no such file (a node without a start task, say)."""
    content = b""
    with contextlib.suppress(HttpResponseError):
        size = int((await properties()).content_length or 0)
        if size:
            parts = await download(f"bytes={max(0, size - TAIL_BYTES)}-{size - 1}")
            async for part in parts:
                content += part
    return clean(content[-TAIL_BYTES:].decode(errors="replace"))


def clean(text: str) -> str:
    """Lines joined by ` | `, secrets and controls gone."""
    lines = [
        "".join(character if character.isprintable() else "·" for character in line.strip())
        for line in redact(text).splitlines()
    ]
    return " | ".join(line for line in lines if line)
