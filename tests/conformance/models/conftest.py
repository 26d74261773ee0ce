"""A registry of its own for each test, and model folders to push."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fusebus.blobs import Blobs, BlobSettings
from fusebus.models.manifest import ModelManifest, describe_file, write_manifest
from fusebus.models.registry import Registry
from fusebus.models.settings import RegistrySettings

MakeModel = Callable[..., Path]


@pytest.fixture
async def blobs(blob_settings: BlobSettings) -> AsyncIterator[Blobs]:
    async with Blobs(blob_settings) as opened:
        yield opened


@pytest.fixture
def registry_settings() -> RegistrySettings:
    return RegistrySettings(container=f"models-{secrets.token_hex(6)}")


@pytest.fixture
def registry(blobs: Blobs, registry_settings: RegistrySettings) -> Registry:
    """With a clock that goes on by a minute each time it is looked at."""
    minutes = itertools.count()
    return Registry(
        blobs, registry_settings, lambda: datetime(2026, 11, 21, 12, tzinfo=UTC) + timedelta(minutes=next(minutes))
    )


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """`make_model("1")`: a folder with the model `neutral@1`; its graph is no graph, the registry doesn't care."""

    def make(version: str, weights: bytes | None = None, name: str = "neutral") -> Path:
        folder = tmp_path / "made" / f"{name}-{version}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"graph of " + version.encode())
        (folder / "model.onnx.data").write_bytes(weights if weights is not None else os.urandom(100_000))
        manifest = ModelManifest(
            format_version=2,
            name=name,
            version=version,
            files={path.name: describe_file(path) for path in sorted(folder.iterdir())},
            file="model.onnx",
            prompts=("fuse neutral",),
            image_size=224,
            mask_size=64,
            top_k=8,
            score_thresholds=(0.3,),
            nms_iou=0.6,
            precision="fp32",
            opset=23,
        )
        write_manifest(folder, manifest)
        return folder

    return make
