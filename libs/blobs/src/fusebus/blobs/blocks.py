"""Uploads a file of any size in blocks: what an interrupted upload had sent is not sent again."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Set
from typing import Any, BinaryIO

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import BlobClient

from fusebus.blobs.errors import BlobExists

BLOCK_BYTES = 8 * 1024 * 1024
"""A blob has at most 50,000 blocks: 390 GB."""
PARALLEL_BLOCKS = 4
IF_ABSENT: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}


async def upload_blocks(blob: BlobClient, file: BinaryIO, on_bytes: Callable[[int], None]) -> bool:
    """Write the file as a new blob; False where the blob is there already with the same content.

    A block's id holds its digest, so that staged blocks are recognised by content and two block lists that are equal
    mean the same bytes. Raises BlobExists where the blob is there with other content, and the SDK's errors.
    """
    committed, staged = await _known_blocks(blob)
    if committed is not None:
        ids = await _send(blob, file, on_bytes, None)
        return _same(blob, committed, ids)
    ids = await _send(blob, file, on_bytes, staged)
    try:
        await blob.commit_block_list([BlobBlock(block_id=block) for block in ids], **IF_ABSENT)
    except HttpResponseError:
        # Somebody else's blob, or our own success whose answer was lost: the content tells.
        committed, _ = await _known_blocks(blob)
        if committed is None:
            raise
        return _same(blob, committed, ids)
    return True


async def _send(
    blob: BlobClient, file: BinaryIO, on_bytes: Callable[[int], None], staged: Set[str] | None
) -> list[str]:
    """The file's block ids in order, after those that are not staged were; None stages nothing."""
    offsets = range(0, os.fstat(file.fileno()).st_size, BLOCK_BYTES)
    ids = [""] * len(offsets)
    waiting = iter(enumerate(offsets))

    async def sender() -> None:
        for index, offset in waiting:
            data = await asyncio.to_thread(os.pread, file.fileno(), BLOCK_BYTES, offset)
            digest = await asyncio.to_thread(hashlib.sha256, data)
            ids[index] = block = f"{index:06d}-{digest.hexdigest()[:40]}"
            if staged is not None and block not in staged:
                await blob.stage_block(block, data, length=len(data))
            on_bytes(len(data))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(PARALLEL_BLOCKS, len(offsets))):
                group.create_task(sender())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors  # the others are its like
    return ids


async def _known_blocks(blob: BlobClient) -> tuple[list[str] | None, Set[str]]:
    """Ids of the blob's blocks in order, None where there is no blob yet, and those that wait for a commit."""
    try:
        committed, staged = await blob.get_block_list("all")
    except ResourceNotFoundError:
        return None, frozenset()
    waiting = {block.id for block in staged}
    if not committed and not await blob.exists():
        return None, waiting
    return [block.id for block in committed], waiting


def _same(blob: BlobClient, committed: list[str], ids: list[str]) -> bool:
    if committed != ids:
        raise BlobExists(f"{blob.container_name}/{blob.blob_name!r}: is there with other content")
    return False
