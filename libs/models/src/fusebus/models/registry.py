"""The model registry in blob storage: immutable versions, and one ETag-guarded document that says what is live."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from fusebus.blobs import BlobChanged, BlobExists, Blobs, BlobTooLarge, BlobVanished, StorageError
from fusebus.models import places
from fusebus.models.fetching import OnBytes, check_blob, fetch_file, make_private, only_one, proven, require_space, seal
from fusebus.models.live import (
    Change,
    Live,
    LiveModel,
    RegistryError,
    decode_live,
    deleted,
    encode_live,
    promoted,
    require_text,
    rolled_back,
    use_of,
)
from fusebus.models.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    ModelError,
    ModelManifest,
    decode_manifest,
    load_manifest,
)
from fusebus.models.places import Ref, parse_ref
from fusebus.models.settings import RegistrySettings

MAX_LIVE_BYTES = 1_000_000
MAX_RECORD_BYTES = 100_000
READ_ATTEMPTS = 5
"""Of the live document, while others change it between asking for its ETag and reading it."""
DELETE_ATTEMPTS = 5
"""Of one deletion, while others change what is live."""
JSON = "application/json"

__all__ = ["Live", "Pushed", "Record", "Registry", "Unreadable", "Version"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Who pushed or deleted a version."""

    who: str
    when: datetime
    why: str
    manifest_sha256: str


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version as the registry has it."""

    ref: str
    manifest: ModelManifest
    manifest_sha256: str
    pushed: Record | None
    """None where its record is gone."""
    use: str
    """`live`, `the canary`, `what rollback goes back to`, or empty."""


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A version whose manifest can't be read: altered, or of another release."""

    ref: str
    problem: str


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push came to."""

    ref: str
    new: bool
    """False where the registry had the version already, with the same manifest."""
    bytes: int
    restored: tuple[str, ...] = ()
    """Files that the version lacked though its manifest was there."""


class Lost(RegistryError):
    """Somebody else changed what is live in the meantime; the text says who, when and why."""


class Registry:
    """Reads and changes one registry. Every method may raise StorageError, those that change anything RegistryError."""

    def __init__(
        self, blobs: Blobs, settings: RegistrySettings, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._blobs = blobs
        self._container = settings.container
        self._now = now

    async def live(self) -> Live | None:
        """What serves, with the document's ETag; None until something was promoted."""
        live = await self.document()
        return live if live.current is not None else None

    async def document(self) -> Live:
        """The live document; an empty one without ETag where there is none yet."""
        for _ in range(READ_ATTEMPTS):
            found = await self._blobs.properties(self._container, places.LIVE)
            if found is None:
                return Live()
            try:
                data = await self._blobs.read(self._container, places.LIVE, etag=found.etag, max_bytes=MAX_LIVE_BYTES)
            except (BlobChanged, BlobVanished):
                continue
            return decode_live(data, found.etag)
        raise StorageError("the registry's live document changes faster than it can be read")

    async def push(self, folder: Path, who: str, why: str, on_bytes: OnBytes = lambda _: None) -> Pushed:
        """Bring a verified model folder in as a new version; the same bytes again only restore files that are missing.

        Raises ModelError for a folder that is not what its manifest says, RegistryError where the version exists with
        other bytes, was altered or was deleted.
        """
        require_text(who, why)
        manifest = await asyncio.to_thread(load_manifest, folder)
        ref, data = Ref(manifest.name, manifest.version), (folder / MANIFEST_NAME).read_bytes()
        await self._blobs.create_container(self._container)
        if (gone := await self._record(ref.tombstone)) is not None:
            raise RegistryError(
                f"{ref} was deleted by {gone.who} at {gone.when:%F %R} ({gone.why}): a version's name is never given"
                " again, export under another one"
            )
        pushed = Pushed(ref=str(ref), new=True, bytes=manifest.total_bytes)
        if (there := await self._find(ref.manifest, MAX_MANIFEST_BYTES)) is not None:
            if there != data:
                raise RegistryError(f"{ref} is in the registry with other bytes: export under another version")
            restored = await self._restore(folder, ref, manifest, on_bytes)
            return msgspec.structs.replace(pushed, new=False, restored=restored)
        for name in sorted(manifest.files):
            await self._push_file(folder / name, ref, on_bytes)
        try:
            await self._blobs.create(self._container, ref.manifest, data, JSON)
        except BlobExists as error:
            raise RegistryError(
                f"{ref} was pushed by somebody else at the same time, with other bytes: export under another version"
            ) from error
        record = Record(who=who, when=self._now(), why=why, manifest_sha256=hashlib.sha256(data).hexdigest())
        # After the manifest: whose push it was is known only then. Of two with the same bytes the first one stays.
        with contextlib.suppress(BlobExists):
            await self._blobs.create(self._container, ref.push, msgspec.json.encode(record), JSON)
        # A deletion that began before the manifest was there took the files for leftovers.
        return msgspec.structs.replace(pushed, restored=await self._restore(folder, ref, manifest, on_bytes))

    async def list(self) -> list[Version | Unreadable]:
        """Every version, by name and version; one that can't be read does not hide the others."""
        live, found = await self.document(), list[Version | Unreadable]()
        try:
            async for blob in self._blobs.list(self._container, places.VERSIONS):
                if (ref := places.ref_of(blob.name)) is None:
                    continue
                try:
                    found.append(await self._version(ref, live))
                except (ModelError, RegistryError) as error:
                    found.append(Unreadable(ref=str(ref), problem=str(error)))
        except BlobVanished:  # no container yet
            return []
        return found

    async def show(self, ref: str) -> Version:
        """One version. Raises ModelError where there is none."""
        return await self._version(parse_ref(ref), await self.document())

    async def promote(self, ref: str, who: str, why: str, percent: float | None = None) -> Change:
        """Put a version into service, for `percent` of the images if that is given; what was recorded.

        Raises ModelError where there is no such version, Lost where somebody else was faster, AlreadySo where nothing
        had to be done, RegistryError where it can't be.
        """
        live, parsed = await self.document(), parse_ref(ref)
        version = await self._version(parsed, live)
        if (gone := await self._record(parsed.tombstone)) is not None:
            raise RegistryError(f"{ref} is being deleted by {gone.who} ({gone.why})")
        model = LiveModel(name=parsed.name, version=parsed.version, manifest_sha256=version.manifest_sha256)
        return await self._write(live, promoted(live, model, percent, self._change(who, why)))

    async def rollback(self, who: str, why: str) -> Change:
        """End the canary, or without one bring back what served before; what was recorded.

        Raises RegistryError where there is nothing to go back to, Lost where somebody else was faster.
        """
        live = await self.document()
        changed = rolled_back(live, self._change(who, why))
        if changed.current is not None and changed.current != live.current:  # a canary can be ended in any case
            await self._version(parse_ref(changed.current.ref), live)
        remaining = [model for model in changed.previous if await self._exists(model)]
        return await self._write(live, msgspec.structs.replace(changed, previous=tuple(remaining)))

    async def delete(self, ref: str, who: str, why: str) -> Change | None:
        """Remove a version for good; None where only leftovers of an interrupted push were there.

        First it can't be promoted any more, then the history says so under the ETag that proves it unused, then its
        blobs go; a repeat after an interruption finishes the work. Raises RegistryError while it is in use, Lost.
        """
        for _ in range(DELETE_ATTEMPTS - 1):
            with contextlib.suppress(Lost):  # what others change matters here only if it brings the version into use
                return await self._delete(parse_ref(ref), who, why)
        return await self._delete(parse_ref(ref), who, why)

    async def verify(self, ref: str, on_bytes: OnBytes = lambda _: None) -> tuple[str, ...]:
        """Read every byte of a version: what is wrong with it, in words; empty where nothing is.

        Raises ModelError where there is no such version.
        """
        parsed = parse_ref(ref)
        version, problems = await self.show(ref), list[str]()
        if version.pushed is not None and version.pushed.manifest_sha256 != version.manifest_sha256:
            problems.append(f"{parsed.manifest}: is not the manifest that {version.pushed.who} pushed")
        for name, expected in sorted(version.manifest.files.items()):
            try:
                await check_blob(self._blobs, self._container, parsed.folder + name, expected, on_bytes)
            except (ModelError, BlobVanished, BlobChanged) as error:
                problems.append(str(error))
        listed = {parsed.folder + name for name in (*version.manifest.files, MANIFEST_NAME)}
        async for blob in self._blobs.list(self._container, parsed.folder):
            if blob.name not in listed:
                problems.append(f"{blob.name}: is not in the manifest")
        return tuple(problems)

    async def pull(self, ref: str, into: Path, on_bytes: OnBytes = lambda _: None) -> Path:
        """Bring a version to `into/NAME@VERSION`, a private folder of read-only files, every digest checked.

        An interrupted pull goes on where it was; who comes second waits. Raises ModelError where there is no such
        version or it is not what its manifest, or the promotion, says; OSError.
        """
        parsed = parse_ref(ref)
        make_private(into)
        data, manifest = await self._manifest(parsed, await self.document())
        async with only_one(into):
            folder, partial = into / ref, into / f".{ref}.partial"
            if folder.exists():
                return await asyncio.to_thread(proven, folder, data)
            require_space(into, manifest.total_bytes)
            if (partial / MANIFEST_NAME).exists():  # was sealed already when it broke off: nothing to go on with
                await asyncio.to_thread(shutil.rmtree, partial)
            make_private(partial)
            try:
                for name, expected in sorted(manifest.files.items()):
                    await fetch_file(
                        self._blobs, self._container, parsed.folder + name, partial / name, expected, on_bytes
                    )
                await asyncio.to_thread(seal, partial, data, manifest)
            except ModelError:
                await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
                raise
            return partial.rename(folder)

    async def _delete(self, ref: Ref, who: str, why: str) -> Change | None:
        live, there = await self.document(), await self._find(ref.manifest, MAX_MANIFEST_BYTES)
        if there is None:
            if not await self._remove_blobs(ref):
                raise RegistryError(f"the registry has no {ref} (fusebus model list)")
            return None
        changed = deleted(live, str(ref), self._change(who, why))
        record = Record(who=who, when=self._now(), why=why, manifest_sha256=hashlib.sha256(there).hexdigest())
        await self._blobs.write(self._container, ref.tombstone, msgspec.json.encode(record), JSON)
        try:
            change = await self._write(live, changed)
        except Lost:
            # Only what came into use is given its name back: another deletion may rely on the tombstone.
            if use_of(await self.document(), str(ref)):
                await self._blobs.delete(self._container, ref.tombstone)
            raise
        await self._remove_blobs(ref)
        return change

    async def _restore(self, folder: Path, ref: Ref, manifest: ModelManifest, on_bytes: OnBytes) -> tuple[str, ...]:
        """Upload what the version lacks; the names. Raises RegistryError where a file has another size."""
        sizes = {blob.name: blob.size async for blob in self._blobs.list(self._container, ref.folder)}
        for name, expected in sorted(manifest.files.items()):
            if sizes.get(ref.folder + name, expected.bytes) != expected.bytes:
                raise RegistryError(
                    f"{ref.folder + name}: has {sizes[ref.folder + name]} bytes in storage, the manifest says"
                    f" {expected.bytes}; it was altered, export under another version"
                )
        missing = tuple(name for name in sorted(manifest.files) if ref.folder + name not in sizes)
        for name in missing:
            await self._push_file(folder / name, ref, on_bytes)
        return missing

    async def _push_file(self, path: Path, ref: Ref, on_bytes: OnBytes) -> None:
        try:
            with path.open("rb") as file:
                await self._blobs.upload_file(self._container, ref.folder + path.name, file, on_bytes)
        except BlobExists as error:
            raise RegistryError(
                f"{ref} has leftovers of an interrupted push of other bytes: remove them (fusebus model delete {ref}),"
                " or export under another version"
            ) from error

    async def _write(self, live: Live, changed: Live) -> Change:
        """Put the changed document in place of the one it was made from. Raises Lost."""
        data = encode_live(changed)
        try:
            if live.etag:
                await self._blobs.replace(self._container, places.LIVE, data, JSON, live.etag)
            else:
                await self._blobs.create(self._container, places.LIVE, data, JSON)
        except (BlobChanged, BlobExists) as error:
            now = await self.document()
            if all(change.id != changed.history[-1].id for change in now.history):
                raise Lost(_winner(now)) from error
            # Else its answer was lost, and somebody has built on it since.
        return changed.history[-1]

    async def _version(self, ref: Ref, live: Live) -> Version:
        data, manifest = await self._manifest(ref, live)
        return Version(
            ref=str(ref),
            manifest=manifest,
            manifest_sha256=hashlib.sha256(data).hexdigest(),
            pushed=await self._record(ref.push),
            use=use_of(live, str(ref)),
        )

    async def _manifest(self, ref: Ref, live: Live) -> tuple[bytes, ModelManifest]:
        """Raises ModelError: no such version, unreadable, another's, or not the one that was promoted."""
        data = await self._find(ref.manifest, MAX_MANIFEST_BYTES)
        if data is None:
            raise ModelError(f"the registry has no {ref} (fusebus model list)")
        manifest = decode_manifest(data, ref.manifest)
        if manifest.ref != str(ref):
            raise ModelError(f"{ref.manifest}: is the manifest of {manifest.ref}; it was altered")
        pinned = [live.current, live.canary, *live.previous]
        digest = hashlib.sha256(data).hexdigest()
        if any(model and model.ref == str(ref) and model.manifest_sha256 != digest for model in pinned):
            raise ModelError(f"{ref.manifest}: is not the manifest that was promoted; it was altered")
        return data, manifest

    async def _exists(self, model: LiveModel) -> bool:
        return await self._blobs.properties(self._container, Ref(model.name, model.version).manifest) is not None

    async def _find(self, name: str, max_bytes: int) -> bytes | None:
        try:
            return await self._blobs.read(self._container, name, max_bytes=max_bytes)
        except BlobVanished:
            return None
        except BlobTooLarge as error:
            raise ModelError(f"{name}: has more than {max_bytes} bytes; it was altered") from error

    async def _record(self, name: str) -> Record | None:
        data = await self._find(name, MAX_RECORD_BYTES)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Record)
        except msgspec.DecodeError as error:
            raise RegistryError(f"{name}: {error}") from error

    async def _remove_blobs(self, ref: Ref) -> bool:
        """The manifest first: from then on the version is no more. Whether anything was there."""
        removed = await self._blobs.delete(self._container, ref.manifest)
        try:
            async for blob in self._blobs.list(self._container, ref.folder):
                removed |= await self._blobs.delete(self._container, blob.name)
        except BlobVanished:  # no container yet
            return False
        await self._blobs.delete(self._container, ref.push)
        return removed

    def _change(self, who: str, why: str) -> Change:
        require_text(who, why)
        return Change(id=uuid.uuid4().hex, who=who, when=self._now(), why=why, action="", before="", after="")


def _winner(live: Live) -> str:
    if not live.history:
        return "somebody else changed what is live at the same time; look (fusebus model list), then decide anew"
    last = live.history[-1]
    return (
        f"{last.who} was faster: {last.action} {last.after} at {last.when:%F %T} ({last.why});"
        " look (fusebus model list), then decide anew"
    )
