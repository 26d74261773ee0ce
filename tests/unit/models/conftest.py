"""Writes a graph into a model folder and inspects it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from onnx import ModelProto
from small_graphs import CELLS, COUNT, OPSET, SIZE

from fusebus.models.inspection import GraphFacts, inspect_graph
from fusebus.models.manifest import ModelManifest, describe_file, load_manifest, write_manifest

Inspect = Callable[..., GraphFacts]


@pytest.fixture
def inspect(tmp_path: Path) -> Inspect:
    """`inspect(model, files={...})`: write it with a true manifest, load that, and inspect the graph."""

    def run(model: ModelProto | bytes, files: dict[str, bytes] | None = None, **changes: Any) -> GraphFacts:
        (tmp_path / "model.onnx").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        for name, data in (files or {}).items():
            (tmp_path / name).write_bytes(data)
        manifest = msgspec.structs.replace(
            ModelManifest(
                format_version=2, name="m", version="1", file="model.onnx", prompts=("fuse neutral",), top_k=COUNT,
                files={name: describe_file(tmp_path / name) for name in ("model.onnx", *(files or {}))},
                image_size=SIZE, mask_size=CELLS, score_thresholds=(0.3,), nms_iou=0.6, precision="fp32", opset=OPSET,
            ),
            **changes,
        )  # fmt: skip
        write_manifest(tmp_path, manifest)
        return inspect_graph(tmp_path, load_manifest(tmp_path))

    return run
