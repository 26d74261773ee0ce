"""Everything that can be set about an inferencer: one frozen struct, section `inferencer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fusebus.blobs import BlobSettings
from fusebus.bus import BusSettings, ConsumerSettings
from fusebus.inferencer.backends.providers import CPU, Provider
from fusebus.models.settings import RegistrySettings
from fusebus.vision import DEMO_MODEL


class InferencerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Variables FUSEBUS_INFERENCER_<FIELD>, and the shared sections bus, consumer, blobs and models."""

    bus: BusSettings
    consumer: ConsumerSettings
    """Its `slots`, `idle_exit_seconds` and `drain_seconds` give way to ours."""
    blobs: BlobSettings
    models: RegistrySettings
    slots: Annotated[
        int,
        Meta(
            ge=1,
            le=256,
            description="Most images in hand of each lane; fewer where these keep the model busy, or locks are short.",
        ),
    ] = 32
    downloads: Annotated[int, Meta(ge=1, le=256, description="Images being downloaded at a time.")] = 8
    uploads: Annotated[int, Meta(ge=1, le=256, description="Images whose results are being stored at a time.")] = 8
    codec_threads: Annotated[
        int, Meta(ge=0, le=64, description="Threads that decode, draw and encode; 0: one for each core.")
    ] = 0
    max_batch: Annotated[
        int, Meta(ge=1, le=64, description="Most images in one model call; fewer are waiting, fewer are taken.")
    ] = 4
    max_batch_megapixels: Annotated[
        float,
        Meta(
            ge=0,
            description="Most millions of pixels of a model call's inputs together; one image always goes; 0: any.",
        ),
    ] = 16.0
    decoded_waiting: Annotated[
        int,
        Meta(ge=0, le=256, description="Decoded images that may wait beside those in the model call; 0: one batch."),
    ] = 0
    model: Annotated[
        Path,
        Meta(description="Folder with manifest.json and the ONNX file it describes; default: the demo model."),
    ] = DEMO_MODEL
    follow_registry: Annotated[
        bool,
        Meta(description="Serve what is promoted in the registry; until the first promotion the folder's model."),
    ] = False
    provider: Annotated[
        Provider, Meta(description="Where the model runs; start fails where onnxruntime would silently use another.")
    ] = CPU
    device: Annotated[int, Meta(ge=0, description="Number of the GPU; one process serves one.")] = 0
    cuda_graph: Annotated[
        bool,
        Meta(description="On a GPU, record a call for each batch size and replay it; takes memory for each of them."),
    ] = False
    engine_cache: Annotated[
        Path | None,
        Meta(description="Folder of this service alone where TensorRT keeps its engines; none: it builds them anew."),
    ] = None
    intra_op_threads: Annotated[
        int, Meta(ge=0, le=256, description="Threads of one model call on a CPU; 0: one for each core.")
    ] = 1
    warm_up: Annotated[
        bool, Meta(description="Run the model once before the first message, so that the first image is not slow.")
    ] = True
    idle_exit_seconds: Annotated[
        float, Meta(ge=0, description="Seconds without work after which the process ends with exit code 0; 0: never.")
    ] = 60.0
    retry_seconds: Annotated[
        float, Meta(gt=0, description="First delay while storage does not answer; doubles up to 300.")
    ] = 10.0
    drain_seconds: Annotated[
        float,
        Meta(ge=0, description="After SIGTERM or a notice of eviction: what is not done by then is given back."),
    ] = 20.0
    scheduled_events: Annotated[
        str,
        Meta(description="URL of the node's notices of eviction (docs of Azure Scheduled Events); empty: not watched."),
    ] = ""
    scheduled_events_seconds: Annotated[
        float, Meta(gt=0, description="Pause between two looks for a notice; Spot nodes have 30 s, at times less.")
    ] = 1.0
    annotated_megapixels: Annotated[
        float,
        Meta(ge=0, description="A larger picture is annotated at half, a quarter or an eighth of its edges; 0: never."),
    ] = 8.0
    jpeg_quality: Annotated[int, Meta(ge=50, le=100, description="Of the annotated picture.")] = 90
