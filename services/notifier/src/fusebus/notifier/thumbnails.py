"""Small pictures for report and mail: made once from the annotated ones, kept beside them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fusebus.blobs import BlobTooLarge, BlobVanished, layout
from fusebus.notifier.ports import ResultStore, Shrink, Thumbnails
from fusebus.notifier.summary import Picture
from fusebus.vision import ImageError, decode, encode_jpeg, thumbnail

_log = logging.getLogger(__name__)

EDGE = 480  # pixels, the longer one: sharp in a 240-pixel column of a high-density screen
QUALITY = 80  # JPEG
MAX_PICTURE_BYTES = 64 * 1024 * 1024  # of an annotated picture; we wrote it from at most 100 million pixels
AT_ONCE = 4  # pictures in hand: bounds memory, decoding runs in threads


async def thumbnails(run_id: str, pictures: Sequence[Picture], store: ResultStore, shrink: Shrink) -> Thumbnails:
    """JPEG bytes by upload id in the order of `pictures`, without unreadable ones. Raises StorageUnavailable."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(picture: Picture) -> bytes | None:
        async with room:
            return await _thumbnail(run_id, picture, store, shrink)

    found = await asyncio.gather(*map(one, pictures))
    return {picture.upload_id: data for picture, data in zip(pictures, found, strict=True) if data is not None}


async def shrink_jpeg(data: bytes) -> bytes:
    """The thumbnail of a picture, made in a thread. Raises ImageError."""
    return await asyncio.to_thread(lambda: encode_jpeg(thumbnail(decode(data), EDGE), QUALITY))


async def _thumbnail(run_id: str, picture: Picture, store: ResultStore, shrink: Shrink) -> bytes | None:
    small = layout.thumbnail_name(run_id, picture.analysis_id)
    try:
        return await store.read(layout.RESULTS, small, max_bytes=MAX_PICTURE_BYTES)
    except BlobVanished:
        pass
    try:
        data = await shrink(await store.read(layout.RESULTS, picture.annotated, max_bytes=MAX_PICTURE_BYTES))
    except (BlobVanished, BlobTooLarge, ImageError) as error:
        _log.warning("no thumbnail: %s", error, extra={"upload": picture.upload_id})
        return None
    await store.write(layout.RESULTS, small, data, "image/jpeg")
    return data
