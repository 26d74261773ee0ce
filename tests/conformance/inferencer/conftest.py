"""An inferencer that follows a registry of the test's own (Azurite), and images to give it."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from model_variants import Edit, variant

from fusebus.blobs import Blobs, BlobSettings, layout
from fusebus.contracts.identity import image_id, run_id, upload_id
from fusebus.contracts.messages import BlobReference, ImageAccepted, JobKind, Lane, Message
from fusebus.contracts.outcomes import Outgoing
from fusebus.inferencer.following import Follower
from fusebus.inferencer.loading import Loader, Running, open_folder
from fusebus.inferencer.serving import Serving
from fusebus.models.registry import Registry
from fusebus.models.settings import GIB, RegistrySettings
from fusebus.vision import DEMO_MODEL

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
RUNNING = Running(provider="CPUExecutionProvider", intra_op_threads=1, max_batch=2, warm_up=False)


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        await opened.create_container(layout.RESULTS)
        yield opened


@pytest.fixture
def models(tmp_path: Path) -> RegistrySettings:
    """A registry of this test's own."""
    return RegistrySettings(
        container=f"models-{secrets.token_hex(6)}",
        watch_seconds=0.2,
        load_timeout_seconds=40,
        load_memory_bytes=2 * GIB,
        cache=tmp_path / "cache",
    )


@pytest.fixture
def registry(blobs: Blobs, models: RegistrySettings) -> Registry:
    return Registry(blobs, models)


@pytest.fixture
async def push(registry: Registry, tmp_path: Path) -> Callable[..., Any]:
    async def pushed(version: str, edit: Edit = lambda _: None, **fields: Any) -> str:
        folder = await asyncio.to_thread(variant, tmp_path / f"made-{version}", version, edit, **fields)
        return (await registry.push(folder, "tests", "")).ref

    return pushed


@dataclass
class Worker:
    """What an inferencer has, in this process."""

    serving: Serving
    follower: Follower
    said: list[Message] = field(default_factory=list)

    @property
    def refs(self) -> tuple[str | None, str | None]:
        return tuple(found.ref if found else None for found in (self.serving.current, self.serving.canary))


@pytest.fixture
async def start(registry: Registry, models: RegistrySettings) -> AsyncIterator[Callable[..., Any]]:
    async with Serving(lambda: None) as serving:

        async def started(**limits: Any) -> Worker:
            said: list[Message] = []

            async def publish(outgoing: Sequence[Outgoing]) -> None:
                said.extend(found.message for found in outgoing)

            settings = msgspec.structs.replace(models, **limits)
            loader = Loader(
                source=registry,
                running=RUNNING,
                cache=settings.cache,
                seconds=settings.load_timeout_seconds,
                memory_bytes=settings.load_memory_bytes,
            )
            follower = Follower(
                registry=registry,
                serving=serving,
                load=loader,
                open_own=lambda: open_folder(DEMO_MODEL, RUNNING),
                publish=publish,
                worker="test/1",
            )
            await follower.start()
            return Worker(serving, follower, said)

        yield started


@pytest.fixture
async def upload(blobs: Blobs, supplier: str) -> Callable[..., Any]:
    container = layout.supplier_container(supplier)
    await blobs.create_container(container)

    async def uploaded(data: bytes, name: str, run: str = "") -> ImageAccepted:
        await blobs.write(container, name, data, "image/jpeg")
        properties = await blobs.properties(container, name)
        assert properties is not None
        upload, sha256 = upload_id(container, name, properties.etag), hashlib.sha256(data).hexdigest()
        reference = BlobReference(
            container=container, name=name, etag=properties.etag, sha256=sha256, size=properties.size
        )
        return ImageAccepted(
            upload_id=upload,
            run_id=run or run_id(supplier, NOW, upload),
            supplier=supplier,
            image_id=image_id(supplier, sha256),
            job_kind=JobKind.DETECT,
            lane=Lane.NORMAL,
            deadline=NOW,
            blob=reference,
            width=400,
            height=300,
            format="jpeg",
            accepted_at=NOW,
        )

    return uploaded
