"""Large files, creation and guarded replacement against real storage."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob.aio import BlobClient

from fusebus.blobs import BlobChanged, BlobExists, Blobs, BlobSettings, BlobVanished, StorageError, layout
from fusebus.blobs.blocks import BLOCK_BYTES

JSON = "application/json"


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        yield opened


@pytest.fixture
async def container(blobs: Blobs, supplier: str) -> str:
    name = layout.supplier_container(supplier)
    await blobs.create_container(name)
    return name


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Two and a half blocks."""
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(BLOCK_BYTES) * 2 + os.urandom(BLOCK_BYTES // 2))
    return path


async def content(blobs: Blobs, container: str, name: str, offset: int = 0) -> bytes:
    found = await blobs.properties(container, name)
    assert found is not None
    return b"".join([part async for part in blobs.chunks(container, name, etag=found.etag, offset=offset)])


async def upload(blobs: Blobs, container: str, path: Path, seen: list[int] | None = None) -> bool:
    with path.open("rb") as file:
        return await blobs.upload_file(container, "large", file, (seen if seen is not None else []).append)


async def test_a_file_of_several_blocks_arrives_whole_and_says_how_far_it_is(
    blobs: Blobs, container: str, large: Path
) -> None:
    seen: list[int] = []
    assert await upload(blobs, container, large, seen)
    assert sorted(seen) == [BLOCK_BYTES // 2, BLOCK_BYTES, BLOCK_BYTES]
    assert await content(blobs, container, "large") == large.read_bytes()
    assert await content(blobs, container, "large", BLOCK_BYTES + 7) == large.read_bytes()[BLOCK_BYTES + 7 :]


async def test_an_empty_file_is_a_file(blobs: Blobs, container: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert await upload(blobs, container, tmp_path / "empty")
    assert not await upload(blobs, container, tmp_path / "empty")


async def test_the_same_file_again_changes_nothing_and_another_one_is_refused(
    blobs: Blobs, container: str, large: Path
) -> None:
    assert await upload(blobs, container, large)
    before = await blobs.properties(container, "large")
    assert not await upload(blobs, container, large)
    with large.open("r+b") as file:
        file.seek(BLOCK_BYTES)
        file.write(b"another")
    with pytest.raises(BlobExists):
        await upload(blobs, container, large)
    assert await blobs.properties(container, "large") == before


async def test_an_interrupted_upload_goes_on_where_it_was(
    blobs: Blobs, container: str, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, staged = BlobClient.stage_block, list[str]()

    async def two_then_no_more(self: BlobClient, block_id: str, data: bytes, length: int, **options: Any) -> Any:
        if len(staged) == 2:
            raise StorageError("the line is cut")
        staged.append(block_id)
        return await stage(self, block_id, data, length, **options)

    monkeypatch.setattr("fusebus.blobs.blocks.PARALLEL_BLOCKS", 1)
    monkeypatch.setattr(BlobClient, "stage_block", two_then_no_more)
    with pytest.raises(StorageError):
        await upload(blobs, container, large)
    staged.clear()
    assert await upload(blobs, container, large)
    assert len(staged) == 1
    assert await content(blobs, container, "large") == large.read_bytes()


async def test_of_two_uploads_at_once_one_writes_and_neither_fails(blobs: Blobs, container: str, large: Path) -> None:
    outcomes = await asyncio.gather(*(upload(blobs, container, large) for _ in range(2)), return_exceptions=True)
    assert True in outcomes
    assert not [outcome for outcome in outcomes if isinstance(outcome, BlobExists)]
    assert await content(blobs, container, "large") == large.read_bytes()


async def test_creation_never_overwrites(blobs: Blobs, container: str) -> None:
    etag = await blobs.create(container, "new", b"one", JSON)
    assert await blobs.create(container, "new", b"one", JSON) == etag
    with pytest.raises(BlobExists):
        await blobs.create(container, "new", b"two", JSON)
    assert await blobs.read(container, "new", max_bytes=10) == b"one"


async def test_of_two_replacements_of_the_same_content_one_wins(blobs: Blobs, container: str) -> None:
    etag = await blobs.create(container, "live", b"0", JSON)
    outcomes = await asyncio.gather(
        *(blobs.replace(container, "live", data, JSON, etag) for data in (b"1", b"2")), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {str, BlobChanged}


async def test_a_replacement_that_meets_its_own_success_is_none_the_worse(blobs: Blobs, container: str) -> None:
    etag = await blobs.create(container, "live", b"0", JSON)
    now = await blobs.replace(container, "live", b"1", JSON, etag)
    assert await blobs.replace(container, "live", b"1", JSON, etag) == now


async def test_a_read_in_parts_is_of_one_content(blobs: Blobs, container: str) -> None:
    etag = await blobs.create(container, "live", b"0", JSON)
    await blobs.replace(container, "live", b"1", JSON, etag)
    with pytest.raises(BlobChanged):
        [part async for part in blobs.chunks(container, "live", etag=etag)]


async def test_what_was_deleted_is_gone(blobs: Blobs, container: str) -> None:
    await blobs.create(container, "new", b"one", JSON)
    assert await blobs.delete(container, "new")
    assert not await blobs.delete(container, "new")
    with pytest.raises(BlobVanished):
        await blobs.read(container, "new", max_bytes=1)
