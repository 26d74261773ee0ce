"""The registry on real storage: immutable versions, one live document, and what simultaneous changes come to."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from fusebus.blobs import Blobs
from fusebus.models.live import AlreadySo, Live, RegistryError
from fusebus.models.manifest import ModelError, load_manifest, write_manifest
from fusebus.models.registry import Lost, Pushed, Registry, Unreadable, Version
from fusebus.models.settings import RegistrySettings
from fusebus.models.tables import versions_table

MakeModel = Callable[..., Path]


async def push(registry: Registry, make_model: MakeModel, *versions: str) -> None:
    for version in versions:
        await registry.push(make_model(version), "ada", f"first {version}")


async def test_a_pushed_version_is_listed_with_who_when_and_why(registry: Registry, make_model: MakeModel) -> None:
    assert await registry.list() == []
    pushed = await registry.push(make_model("1"), "ada", "epoch 50")
    assert (pushed.ref, pushed.new) == ("neutral@1", True)
    (found,) = await registry.list()
    assert found == await registry.show("neutral@1")
    assert (found.ref, found.use, found.manifest.version) == ("neutral@1", "", "1")
    assert found.pushed is not None
    assert (found.pushed.who, found.pushed.why) == ("ada", "epoch 50")


async def test_the_same_bytes_again_change_nothing_and_other_bytes_are_refused(
    registry: Registry, make_model: MakeModel
) -> None:
    folder = make_model("1")
    await registry.push(folder, "ada", "first")
    again = await registry.push(folder, "bob", "again")
    assert not again.new
    with pytest.raises(RegistryError, match="with other bytes: export under another version"):
        await registry.push(make_model("1"), "bob", "better")
    (found,) = await registry.list()
    assert found.pushed is not None
    assert found.pushed.who == "ada"


async def test_a_folder_that_is_not_what_its_manifest_says_is_not_pushed(
    registry: Registry, make_model: MakeModel
) -> None:
    folder = make_model("1")
    (folder / "model.onnx").write_bytes(b"graph of 2")
    with pytest.raises(ModelError, match="its manifest says"):
        await registry.push(folder, "ada", "first")
    assert await registry.list() == []


async def test_an_interrupted_push_goes_on_and_of_other_bytes_is_refused_until_it_is_cleared(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    folder = make_model("1")
    await registry.push(folder, "ada", "first")
    await blobs.delete(registry_settings.container, "versions/neutral/1/manifest.json")
    assert await registry.list() == []
    with pytest.raises(RegistryError, match="leftovers of an interrupted push"):
        await registry.push(make_model("1"), "bob", "other")
    assert (await registry.push(folder, "ada", "again")).new
    await blobs.delete(registry_settings.container, "versions/neutral/1/manifest.json")
    assert await registry.delete("neutral@1", "ada", "clear") is None
    assert (await registry.push(make_model("1"), "bob", "other")).new


async def test_of_two_pushes_at_once_with_other_manifests_the_record_is_the_winners(
    registry: Registry, make_model: MakeModel
) -> None:
    folders = [make_model("1", b"the same weights") for _ in "12"]
    changed = msgspec.structs.replace(load_manifest(folders[1]), score_thresholds=(0.7,))
    write_manifest(folders[1], changed)
    outcomes = await asyncio.gather(
        *(registry.push(folder, who, "tuned") for folder, who in zip(folders, ("ada", "bob"), strict=True)),
        return_exceptions=True,
    )
    winner = next(who for who, outcome in zip(("ada", "bob"), outcomes, strict=True) if isinstance(outcome, Pushed))
    assert sum(isinstance(outcome, RegistryError) for outcome in outcomes) == 1
    found = await registry.show("neutral@1")
    assert found.pushed is not None
    assert found.pushed.who == winner
    assert await registry.verify("neutral@1") == ()


@pytest.mark.parametrize(
    ("altered", "problem"), [(b'{"format_version": 9}', "format_version 9"), (b" " * 1_000_001, "more than 1000000")]
)
async def test_a_version_that_can_not_be_read_does_not_hide_the_others(
    registry: Registry,
    make_model: MakeModel,
    blobs: Blobs,
    registry_settings: RegistrySettings,
    altered: bytes,
    problem: str,
) -> None:
    await push(registry, make_model, "1", "2")
    manifest = "versions/neutral/1/manifest.json"
    await blobs.write(registry_settings.container, manifest, altered, "application/json")
    broken, sound = await registry.list()
    assert isinstance(broken, Unreadable)
    assert (broken.ref, problem in broken.problem) == ("neutral@1", True)
    assert isinstance(sound, Version)
    output = io.StringIO()
    Console(file=output, width=200).print(versions_table([broken, sound]))
    assert "unreadable" in output.getvalue()


async def test_a_canary_can_be_ended_whatever_became_of_the_live_version(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    await push(registry, make_model, "1", "2")
    await registry.promote("neutral@1", "ada", "go")
    await registry.promote("neutral@2", "ada", "try", percent=10)
    await blobs.delete(registry_settings.container, "versions/neutral/1/manifest.json")
    assert (await registry.rollback("ada", "worse")).action == "stop canary"


async def test_promotions_are_recorded_and_rollback_goes_back_step_by_step(
    registry: Registry, make_model: MakeModel
) -> None:
    await push(registry, make_model, "1", "2", "3")
    assert await registry.live() is None
    for version in ("1", "2", "3"):
        await registry.promote(f"neutral@{version}", "ada", f"go {version}")
    live = await registry.live()
    assert live is not None
    assert live.current is not None
    assert live.current.ref == "neutral@3"
    assert [(change.action, change.before, change.after, change.who, change.why) for change in live.history] == [
        ("promote", "", "neutral@1", "ada", "go 1"),
        ("promote", "neutral@1", "neutral@2", "ada", "go 2"),
        ("promote", "neutral@2", "neutral@3", "ada", "go 3"),
    ]
    assert [change.when for change in live.history] == sorted(change.when for change in live.history)
    assert (await registry.rollback("bob", "counts too many")).after == "neutral@2"
    assert (await registry.rollback("bob", "still")).after == "neutral@1"
    with pytest.raises(RegistryError, match="nothing to go back to"):
        await registry.rollback("bob", "still")


async def test_the_live_documents_etag_changes_with_each_change_only(registry: Registry, make_model: MakeModel) -> None:
    await push(registry, make_model, "1", "2")
    await registry.promote("neutral@1", "ada", "go")
    one, same = await registry.live(), await registry.live()
    await registry.promote("neutral@2", "ada", "go")
    other = await registry.live()
    assert one == same
    assert one and other and one.etag != other.etag


async def test_a_canary_gets_a_share_and_rollback_or_promotion_ends_it(
    registry: Registry, make_model: MakeModel
) -> None:
    await push(registry, make_model, "1", "2")
    with pytest.raises(RegistryError, match="nothing is live"):
        await registry.promote("neutral@2", "ada", "try", percent=10)
    await registry.promote("neutral@1", "ada", "go")
    change = await registry.promote("neutral@2", "ada", "try", percent=10)
    assert (change.action, change.before, change.after, change.percent) == ("canary", "neutral@1", "neutral@2", 10)
    with pytest.raises(AlreadySo):
        await registry.promote("neutral@2", "ada", "try", percent=10)
    await registry.promote("neutral@2", "ada", "more", percent=50)
    assert (await registry.rollback("ada", "worse")).action == "stop canary"
    live = await registry.live()
    assert live is not None
    assert (live.current and live.current.ref, live.canary) == ("neutral@1", None)
    await registry.promote("neutral@2", "ada", "better now", percent=20)
    await registry.promote("neutral@2", "ada", "good")
    live = await registry.live()
    assert live is not None
    assert (live.current and live.current.ref, live.canary) == ("neutral@2", None)


async def test_of_simultaneous_promotions_one_wins_and_the_others_are_told_who(
    registry: Registry, make_model: MakeModel
) -> None:
    versions = [str(index) for index in range(1, 6)]
    await push(registry, make_model, "0", *versions)
    await registry.promote("neutral@0", "ada", "go")
    outcomes = await asyncio.gather(
        *(registry.promote(f"neutral@{version}", f"user{version}", f"why{version}") for version in versions),
        return_exceptions=True,
    )
    won = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    lost = [outcome for outcome in outcomes if isinstance(outcome, Lost)]
    assert len(won) + len(lost) == len(versions)
    assert won and lost
    live = await registry.live()
    assert live is not None
    assert live.current is not None
    assert list(live.history[1:]) == sorted(won, key=live.history.index)
    assert live.current.ref == live.history[-1].after
    for error in lost:
        assert any(f"{change.who} was faster: promote {change.after}" in str(error) for change in won)
        assert any(change.why in str(error) for change in won)


async def test_of_two_first_promotions_one_wins(registry: Registry, make_model: MakeModel) -> None:
    await push(registry, make_model, "1", "2")
    outcomes = await asyncio.gather(
        *(registry.promote(f"neutral@{version}", "ada", "go") for version in "12"), return_exceptions=True
    )
    live = await registry.live()
    assert live is not None
    assert sum(isinstance(outcome, Lost) for outcome in outcomes) + len(live.history) == 2


async def test_promotion_of_what_is_not_there_or_already_live_is_told(
    registry: Registry, make_model: MakeModel
) -> None:
    await push(registry, make_model, "1")
    with pytest.raises(ModelError, match="has no neutral@9"):
        await registry.promote("neutral@9", "ada", "go")
    with pytest.raises(RegistryError, match="write NAME@VERSION"):
        await registry.promote("neutral", "ada", "go")
    await registry.promote("neutral@1", "ada", "go")
    with pytest.raises(AlreadySo):
        await registry.promote("neutral@1", "ada", "go")


async def test_what_is_in_use_is_not_deleted(registry: Registry, make_model: MakeModel) -> None:
    await push(registry, make_model, "1", "2", "3")
    await registry.promote("neutral@1", "ada", "go")
    await registry.promote("neutral@2", "ada", "go")
    await registry.promote("neutral@3", "ada", "try", percent=5)
    uses = ["what rollback goes back to", "live", "the canary"]
    for version, use in zip("123", uses, strict=True):
        assert (await registry.show(f"neutral@{version}")).use == use
        with pytest.raises(RegistryError, match=f"neutral@{version} is {use}"):
            await registry.delete(f"neutral@{version}", "ada", "tidy")
    assert len(await registry.list()) == 3


async def test_a_deleted_version_is_gone_recorded_and_its_name_not_given_again(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    folder = make_model("1")
    await registry.push(folder, "ada", "first")
    await registry.delete("neutral@1", "bob", "no good")
    assert await registry.list() == []
    assert [blob.name async for blob in blobs.list(registry_settings.container, "versions/")] == []
    (change,) = (await registry.document()).history
    assert (change.action, change.after, change.who, change.why) == ("delete", "neutral@1", "bob", "no good")
    with pytest.raises(RegistryError, match=r"was deleted by bob .*no good"):
        await registry.push(folder, "ada", "again")
    with pytest.raises(ModelError, match="has no"):
        await registry.promote("neutral@1", "ada", "go")
    with pytest.raises(RegistryError, match="has no"):
        await registry.delete("neutral@1", "bob", "again")


async def test_of_two_deletions_at_once_the_name_is_not_given_again(registry: Registry, make_model: MakeModel) -> None:
    for version in map(str, range(4)):
        folder = make_model(version)
        await registry.push(folder, "ada", "first")
        await asyncio.gather(
            *(registry.delete(f"neutral@{version}", who, "tidy") for who in ("ada", "bob", "eve")),
            return_exceptions=True,
        )
        assert await registry.list() == []
        with pytest.raises(RegistryError, match="never given again"):
            await registry.push(folder, "ada", "again")


async def test_a_deletion_goes_on_where_others_change_something_else(
    registry: Registry, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(registry, make_model, "1", "2")
    document, others = Registry.document, [True]

    async def overtaken(self: Registry) -> Live:
        live = await document(self)
        if others and others.pop():
            await self.promote("neutral@2", "bob", "faster")
        return live

    monkeypatch.setattr(Registry, "document", overtaken)
    change = await registry.delete("neutral@1", "ada", "tidy")
    assert change is not None
    assert change.after == "neutral@1"
    live = await document(registry)
    assert [entry.action for entry in live.history] == ["promote", "delete"]


async def test_a_deletion_at_the_same_time_as_a_promotion_never_leaves_a_hole(
    registry: Registry, make_model: MakeModel
) -> None:
    for version in map(str, range(6)):
        await push(registry, make_model, version)
        await asyncio.gather(
            registry.promote(f"neutral@{version}", "ada", "go"),
            registry.delete(f"neutral@{version}", "bob", "tidy"),
            return_exceptions=True,
        )
        live = await registry.live()
        there = {found.ref for found in await registry.list()}
        assert live is None or live.current is None or live.current.ref in there


async def test_rollback_forgets_targets_that_were_deleted(registry: Registry, make_model: MakeModel) -> None:
    await push(registry, make_model, *"1234")
    for version in "1234":
        await registry.promote(f"neutral@{version}", "ada", "go")
    await registry.delete("neutral@2", "ada", "tidy")
    assert (await registry.rollback("ada", "back")).after == "neutral@3"
    assert (await registry.rollback("ada", "back")).after == "neutral@1"


async def test_verify_reads_every_byte_and_names_what_is_wrong(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings
) -> None:
    await push(registry, make_model, "1")
    assert await registry.verify("neutral@1") == ()
    container, data = registry_settings.container, "versions/neutral/1/model.onnx.data"
    await blobs.write(container, data, b"x" * 100_000, "application/octet-stream")
    await blobs.write(container, "versions/neutral/1/extra.bin", b"x", "application/octet-stream")
    await blobs.delete(container, "versions/neutral/1/model.onnx")
    problems = await registry.verify("neutral@1")
    assert len(problems) == 3
    for words, problem in zip(("model.onnx: is missing", "has SHA-256", "extra.bin: is not"), problems, strict=True):
        assert words in problem


async def test_a_manifest_swapped_after_the_promotion_is_noticed(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings, tmp_path: Path
) -> None:
    await push(registry, make_model, "1")
    await registry.promote("neutral@1", "ada", "go")
    swapped = (make_model("1") / "manifest.json").read_bytes()
    await blobs.write(registry_settings.container, "versions/neutral/1/manifest.json", swapped, "application/json")
    with pytest.raises(ModelError, match="not the manifest that was promoted"):
        await registry.pull("neutral@1", tmp_path / "cache")


@pytest.mark.parametrize("rubbish", [b"{", b'{"format_version": 2}', b'{"current": {"name": "../x"}}', b"\xff"])
async def test_a_live_document_of_another_kind_is_refused_and_not_overwritten(
    registry: Registry, make_model: MakeModel, blobs: Blobs, registry_settings: RegistrySettings, rubbish: bytes
) -> None:
    await push(registry, make_model, "1")
    await blobs.write(registry_settings.container, "live.json", rubbish, "application/json")
    with pytest.raises(RegistryError, match="live document"):
        await registry.promote("neutral@1", "ada", "go")
    assert await blobs.read(registry_settings.container, "live.json", max_bytes=1000) == rubbish


async def test_a_lost_answer_to_a_promotion_is_no_lost_promotion(
    registry: Registry, make_model: MakeModel, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage client repeats a write whose answer it missed, and meets its own success."""
    await push(registry, make_model, "1", "2")
    await registry.promote("neutral@1", "ada", "go")
    replace, tries = Blobs.replace, itertools.count()

    async def twice(self: Blobs, *arguments: object) -> str:
        next(tries)
        await replace(self, *arguments)  # type: ignore[arg-type]
        return await replace(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Blobs, "replace", twice)
    assert (await registry.promote("neutral@2", "ada", "go")).after == "neutral@2"
    assert next(tries) == 1


async def test_a_promotion_whose_answer_was_lost_and_that_others_built_on_is_not_lost(
    registry: Registry, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    await push(registry, make_model, "1", "2", "3")
    await registry.promote("neutral@1", "ada", "go")
    replace = Blobs.replace

    async def unheard(self: Blobs, *arguments: object) -> str:
        monkeypatch.setattr(Blobs, "replace", replace)
        await replace(self, *arguments)  # type: ignore[arg-type]
        await registry.promote("neutral@3", "bob", "at once")
        return await replace(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Blobs, "replace", unheard)
    assert (await registry.promote("neutral@2", "ada", "go")).after == "neutral@2"
    assert [change.after[-1] for change in (await registry.document()).history] == ["1", "2", "3"]
