"""A version that lacks files though its manifest is there: a push leaves none behind, and the next one heals it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fusebus.blobs import Blobs
from fusebus.models.live import RegistryError
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings

MakeModel = Callable[..., Path]
FOLDER = "versions/neutral/1/"


async def test_a_push_of_the_same_folder_again_restores_only_the_files_that_are_missing(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    folder, sent = make_model("1"), list[int]()
    await registry.push(folder, "ada", "first")
    await blobs.delete(registry_settings.container, f"{FOLDER}model.onnx.data")
    again = await registry.push(folder, "bob", "again", sent.append)
    assert (again.new, again.restored) == (False, ("model.onnx.data",))
    assert sum(sent) == (folder / "model.onnx.data").stat().st_size
    assert await registry.verify("neutral@1") == ()
    assert (await registry.push(folder, "bob", "again")).restored == ()
    pushed = (await registry.show("neutral@1")).pushed
    assert pushed is not None
    assert pushed.who == "ada"


async def test_a_file_of_another_size_is_told_and_not_overwritten(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    folder = make_model("1")
    await registry.push(folder, "ada", "first")
    await blobs.write(registry_settings.container, f"{FOLDER}model.onnx", b"short", "application/octet-stream")
    await blobs.delete(registry_settings.container, f"{FOLDER}model.onnx.data")
    with pytest.raises(RegistryError, match=r"model\.onnx: has 5 bytes in storage, the manifest says 10"):
        await registry.push(folder, "bob", "again")
    assert await blobs.read(registry_settings.container, f"{FOLDER}model.onnx", max_bytes=100) == b"short"


async def test_a_push_whose_files_a_deletion_took_for_leftovers_is_whole_all_the_same(
    registry: Registry, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion comes when every file is there and the manifest is not yet."""
    create = Blobs.create

    async def overtaken(self: Blobs, *arguments: object) -> object:
        monkeypatch.setattr(Blobs, "create", create)
        assert await registry.delete("neutral@1", "bob", "clear") is None
        return await create(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Blobs, "create", overtaken)
    pushed = await registry.push(make_model("1"), "ada", "first")
    assert (pushed.new, pushed.restored) == (True, ("model.onnx", "model.onnx.data"))
    assert await registry.verify("neutral@1") == ()
