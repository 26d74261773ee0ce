"""A version comes down whole and proven into a private folder, or not at all."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fusebus.blobs import Blobs, StorageUnavailable
from fusebus.models.manifest import ModelError, load_manifest
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings

MakeModel = Callable[..., Path]
SIZE = 9_000_000  # bytes: several parts of one download


@pytest.fixture
async def pushed(registry: Registry, make_model: MakeModel) -> Path:
    """`neutral@1`, as it was made."""
    folder = make_model("1", os.urandom(SIZE))
    await registry.push(folder, "ada", "first")
    return folder


async def test_a_pulled_model_is_the_pushed_one_private_and_read_only(
    registry: Registry, pushed: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    folder = await registry.pull("neutral@1", tmp_path / "cache", seen.append)
    assert folder == tmp_path / "cache" / "neutral@1"
    assert sum(seen) == load_manifest(folder).total_bytes
    assert len(seen) > 3
    assert {path.name for path in folder.iterdir()} == {path.name for path in pushed.iterdir()}
    for path in folder.iterdir():
        facts = path.lstat()
        assert (stat.S_IMODE(facts.st_mode), facts.st_nlink) == (0o400, 1)
        assert path.read_bytes() == (pushed / path.name).read_bytes()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}
    assert [path.name for path in folder.parent.iterdir()] == ["neutral@1"]


async def test_what_is_there_already_is_proven_and_not_fetched_again(
    registry: Registry, pushed: Path, tmp_path: Path
) -> None:
    folder, seen = await registry.pull("neutral@1", tmp_path / "cache"), list[int]()
    assert await registry.pull("neutral@1", tmp_path / "cache", seen.append) == folder
    assert seen == []
    (folder / "model.onnx").chmod(0o600)
    (folder / "model.onnx").write_bytes(b"graph of 2")
    with pytest.raises(ModelError, match="its manifest says"):
        await registry.pull("neutral@1", tmp_path / "cache")


async def test_of_two_pulls_at_once_one_fetches_and_both_have_it(
    registry: Registry, pushed: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    folders = await asyncio.gather(*(registry.pull("neutral@1", tmp_path / "cache", seen.append) for _ in range(3)))
    assert len(set(folders)) == 1
    assert sum(seen) == load_manifest(folders[0]).total_bytes


def breaking_off(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Reads end after one part, so many times; the offsets of all reads."""
    chunks, offsets = Blobs.chunks, list[int]()

    async def shaky(self: Blobs, container: str, name: str, *, etag: str, offset: int = 0) -> AsyncIterator[bytes]:
        offsets.append(offset)
        breaks = name.endswith(".data") and sum(1 for found in offsets if found >= 0) <= times
        async for part in chunks(self, container, name, etag=etag, offset=offset):
            yield part
            if breaks:
                raise StorageUnavailable("the line is cut")

    monkeypatch.setattr(Blobs, "chunks", shaky)
    monkeypatch.setattr("fusebus.models.fetching.FETCH_PAUSE_SECONDS", 0.01)
    return offsets


async def test_a_read_that_breaks_off_goes_on_where_it_was(
    registry: Registry, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = breaking_off(monkeypatch, times=3)
    folder = await registry.pull("neutral@1", tmp_path / "cache")
    assert (folder / "model.onnx.data").read_bytes() == (pushed / "model.onnx.data").read_bytes()
    assert max(offsets) > 0


async def test_a_pull_that_gave_up_goes_on_the_next_time(
    registry: Registry, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("fusebus.models.fetching.FETCH_TRIES", 1)
        breaking_off(patch, times=100)
        with pytest.raises(StorageUnavailable):
            await registry.pull("neutral@1", tmp_path / "cache")
    offsets = breaking_off(monkeypatch, times=0)
    folder = await registry.pull("neutral@1", tmp_path / "cache")
    assert (folder / "model.onnx.data").read_bytes() == (pushed / "model.onnx.data").read_bytes()
    assert max(offsets) > 0


@pytest.mark.parametrize("left", [b"of another model", b"x" * (SIZE + 1), b"x" * SIZE])
async def test_rubbish_of_an_earlier_try_does_no_harm(
    registry: Registry, pushed: Path, tmp_path: Path, left: bytes
) -> None:
    partial = tmp_path / "cache" / ".neutral@1.partial"
    partial.mkdir(parents=True, mode=0o700)
    partial.parent.chmod(0o700)
    (partial / "model.onnx.data").write_bytes(left)
    folder = await registry.pull("neutral@1", tmp_path / "cache")
    assert (folder / "model.onnx.data").read_bytes() == (pushed / "model.onnx.data").read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("model.onnx.data", b"x" * SIZE, "storage holds SHA-256"),
        ("model.onnx.data", b"x", "has 1 bytes in storage"),
        ("model.onnx", None, "is missing in storage"),
        ("manifest.json", None, "has no neutral@1"),
        ("manifest.json", b"{}", "format_version"),
    ],
)
async def test_an_altered_version_is_refused_and_leaves_nothing(
    registry: Registry,
    pushed: Path,
    blobs: Blobs,
    registry_settings: RegistrySettings,
    tmp_path: Path,
    name: str,
    data: bytes | None,
    words: str,
) -> None:
    blob = f"versions/neutral/1/{name}"
    if data is None:
        await blobs.delete(registry_settings.container, blob)
    else:
        await blobs.write(registry_settings.container, blob, data, "application/octet-stream")
    with pytest.raises(ModelError, match=words):
        await registry.pull("neutral@1", tmp_path / "cache")
    assert [*(tmp_path / "cache").iterdir()] == []


async def test_another_versions_manifest_in_its_place_is_refused(
    registry: Registry, pushed: Path, blobs: Blobs, registry_settings: RegistrySettings, tmp_path: Path
) -> None:
    data = await blobs.read(registry_settings.container, "versions/neutral/1/manifest.json", max_bytes=100_000)
    await blobs.write(registry_settings.container, "versions/neutral/2/manifest.json", data, "application/json")
    with pytest.raises(ModelError, match="is the manifest of neutral@1"):
        await registry.pull("neutral@2", tmp_path / "cache")


@pytest.mark.parametrize("kind", ["writable by others", "a link"])
async def test_a_cache_that_others_could_alter_is_refused(
    registry: Registry, pushed: Path, tmp_path: Path, kind: str
) -> None:
    cache = tmp_path / "cache"
    if kind == "a link":
        (tmp_path / "real").mkdir()
        cache.symlink_to(tmp_path / "real")
    else:
        cache.mkdir()
        cache.chmod(0o777)
    # Not ModelError: a worker would refuse the model for good, and serve another one, for a fault of its own.
    with pytest.raises(OSError, match=r"others can write|a link"):
        await registry.pull("neutral@1", cache)


async def test_a_link_where_the_download_would_go_is_not_followed(
    registry: Registry, pushed: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    partial = tmp_path / "cache" / ".neutral@1.partial"
    partial.mkdir(parents=True, mode=0o700)
    partial.parent.chmod(0o700)
    for make in (os.symlink, os.link):
        make(victim, partial / "model.onnx")
        with pytest.raises((ModelError, OSError)):
            await registry.pull("neutral@1", tmp_path / "cache")
        assert victim.read_bytes() == b"precious"
        (partial / "model.onnx").unlink(missing_ok=True)
        partial.mkdir(exist_ok=True, mode=0o700)


async def test_a_full_disk_is_told_before_the_download(
    registry: Registry, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    def nearly_full(_: Any) -> Usage:
        return Usage()

    monkeypatch.setattr("fusebus.models.fetching.shutil.disk_usage", nearly_full)
    with pytest.raises(OSError, match="1000 are free"):
        await registry.pull("neutral@1", tmp_path / "cache")
