"""Containers as source and destination, against real storage: through the command, as people call it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from picture_bytes import board, saved

from fusebus.blobs import Blobs, BlobSettings
from fusebus.convert.commands import convert_command
from fusebus.convert.containers import BlobRecord, Storage
from fusebus.convert.record import Entry, RecordBusy

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(blob_settings: BlobSettings, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`call(source, destination, ..., code=0)`: runs the command, checks its exit code, returns its JSON."""
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", blob_settings.connection.reveal())
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)

    def called(source: object, destination: object, *more: str, code: int = 0) -> dict[str, Any]:
        arguments = [str(source), str(destination), "--json", "--workers", "2", *more]
        result: Result = CliRunner().invoke(convert_command, arguments)
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    return called


def photos() -> dict[str, bytes]:
    made = {f"sub/{number} ü.jpg": saved(board(64, 48, number), "JPEG") for number in range(4)}
    return made | {"damaged.jpg": saved(board(64, 48), "JPEG")[:-50], "notes.txt": b"none", "a//b.jpg": b"x"}


async def names(blobs: Blobs, container: str) -> set[str]:
    return {blob.name async for blob in blobs.list(container)}


def test_from_a_container_to_a_container_and_on_to_a_folder(
    call: Call, blob_settings: BlobSettings, supplier: str, tmp_path: Path
) -> None:
    container, other = f"from-{supplier}", f"to-{supplier}"

    async def upload(files: dict[str, bytes]) -> None:
        async with Blobs(blob_settings) as blobs:
            await blobs.create_container(container)
            for name, data in files.items():
                await blobs.write(container, f"in/{name}", data, "image/jpeg")

    async def listed() -> set[str]:
        async with Blobs(blob_settings) as blobs:
            return await names(blobs, other)

    asyncio.run(upload(photos()))
    source, destination = f"container:{container}/in", f"container:{other}/lossless"
    first = call(source, destination, code=4)
    assert (first["converted"], first["skipped"], first["left_alone"]) == (4, 0, 1)
    assert [(one["name"], one["reason"]) for one in first["failed"]] == [
        ("a//b.jpg", "name"),
        ("damaged.jpg", "damaged"),
    ]
    expected = {f"lossless/sub/{number} ü.png" for number in range(4)} | {"lossless.convert.jsonl"}
    assert asyncio.run(listed()) == expected

    again = call(source, destination, code=4)
    assert (again["converted"], again["skipped"]) == (0, 4)
    assert again["bytes_in"] == 0, "an ETag tells that nothing has changed: nothing is downloaded"

    # The same content uploaded anew has another ETag and the same digest; changed content is converted again.
    asyncio.run(upload({"sub/0 ü.jpg": photos()["sub/0 ü.jpg"], "sub/1 ü.jpg": saved(board(64, 48, 9), "JPEG")}))
    third = call(source, destination, code=4)
    assert (third["converted"], third["skipped"]) == (1, 3)

    folder = tmp_path / "out"
    assert call(source, folder, code=4)["converted"] == 4
    assert call(folder, f"container:{other}/again", "--format", "webp")["converted"] == 4


def test_a_stranger_s_blob_is_not_overwritten_unless_asked(
    call: Call, blob_settings: BlobSettings, supplier: str, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(photos()["sub/0 ü.jpg"])

    async def put() -> None:
        async with Blobs(blob_settings) as blobs:
            await blobs.create_container(f"to-{supplier}")
            await blobs.write(f"to-{supplier}", "a.png", b"mine", "text/plain")

    asyncio.run(put())
    refused = call(tmp_path, f"container:to-{supplier}", code=4)
    assert [one["reason"] for one in refused["failed"]] == ["exists"]
    replaced = call(tmp_path, f"container:to-{supplier}", "--replace")
    assert (replaced["converted"], replaced["record"]) == (1, f"container:to-{supplier}/.convert.jsonl")


def test_a_later_picture_of_the_same_name_leaves_the_name_to_who_has_it(
    call: Call, blob_settings: BlobSettings, supplier: str, tmp_path: Path
) -> None:
    async def listed() -> set[str]:
        async with Blobs(blob_settings) as blobs:
            return await names(blobs, f"to-{supplier}")

    (tmp_path / "b.jpg").write_bytes(saved(board(64, 48, 1), "JPEG"))
    call(tmp_path, f"container:to-{supplier}/x")
    (tmp_path / "b.png").write_bytes(saved(board(64, 48, 2), "PNG"))
    first, second = (call(tmp_path, f"container:to-{supplier}//x/") for _ in range(2))
    assert (first["converted"], first["skipped"], second["skipped"]) == (1, 1, 2)
    assert first["record"] == f"container:to-{supplier}/x.convert.jsonl"
    assert asyncio.run(listed()) == {"x.convert.jsonl", "x/b.png", "x/b.png.png"}


def test_a_second_writer_of_a_record_is_noticed(blob_settings: BlobSettings, supplier: str) -> None:
    with Storage(blob_settings) as storage:
        storage.wait_for(storage.blobs.create_container(f"to-{supplier}"))
        one, other = (BlobRecord(storage, f"to-{supplier}", "x.convert.jsonl") for _ in range(2))
        assert one.load() == other.load() == {}
        one.append(Entry(source="a"))
        one.close()
        other.append(Entry(source="b"))
        with pytest.raises(RecordBusy):
            other.close()


def test_a_container_that_is_not_there_ends_with_1(
    blob_settings: BlobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEBUS_BLOBS_CONNECTION", blob_settings.connection.reveal())
    result = CliRunner().invoke(convert_command, ["container:not-there", "container:not-there-either"])
    assert result.exit_code == 1
    assert "not found" in result.output
