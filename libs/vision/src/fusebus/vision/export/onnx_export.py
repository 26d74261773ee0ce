"""Owns the way from a checkpoint to the committed model: ONNX graph, parity check, manifest."""

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxslim
import torch
from numpy.typing import NDArray

from fusebus.vision.export.dataset import make_boards
from fusebus.vision.export.evaluate import OUTPUTS, Outputs, open_session, parity, run_onnx
from fusebus.vision.export.sam3 import PROMPT, TINY_PROMPT_TOKENS, Sam3Detector, ServingGraph, load_model

OPSET = 23  # the first with the Attention operator, for which the CUDA provider has flash kernels
MAX_BYTES = 5_000_000  # the model is committed: it stays small
_PARITY_SEEDS = range(
    500_000, 500_008
)  # boards for comparing the graph with torch; trained on never, evaluated on never
_LIBRARIES = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "onnxslim")


@dataclass(frozen=True)
class ModelSettings:
    """What a serving graph is named and how its outputs are to be read."""

    name: str = "fuse-neutral-demo"
    model_version: str = "fuse-neutral-demo-1"
    top_k: int = 8  # twice as many as a board has neutrals, so that NMS has room
    half: bool = True
    score_threshold: float = 0.3
    nms_iou: float = 0.6


def export_model(checkpoint: Path, folder: Path, settings: ModelSettings) -> dict[str, object]:
    """Write model.onnx and manifest.json into `folder` and return the manifest.

    Raises ValueError where the graph is larger than MAX_BYTES.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graph = ServingGraph(Sam3Detector(load_model(checkpoint), TINY_PROMPT_TOKENS), settings.top_k).eval()
    images = make_boards(_PARITY_SEEDS, _image_size(graph), 4 * graph.detector.grid).images
    expected = run_torch(graph, images)
    path = folder / "model.onnx"
    write_onnx(graph.half() if settings.half else graph, path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, more than {MAX_BYTES}")
    manifest = _manifest(graph, path, settings, parity(expected, run_onnx(open_session(path), images)))
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def write_onnx(graph: ServingGraph, path: Path) -> None:
    """Export the graph with a dynamic batch, simplify it, and write it as one file."""
    size = _image_size(graph)
    example = torch.zeros((2, size, size, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        graph,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(OUTPUTS),
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=256)}},
        verbose=False,
    )
    assert program is not None
    slim = onnxslim.slim(program.model_proto)
    _drop_debug_text(slim)
    onnx.checker.check_model(slim, full_check=True)
    onnx.save(slim, path)


def run_torch(graph: ServingGraph, images: NDArray[np.uint8]) -> Outputs:
    """Scores, boxes and masks of the pictures by torch, in the precision of the graph's weights."""
    with torch.no_grad():
        return [output.numpy() for output in graph(torch.from_numpy(images))]


def _drop_debug_text(model: onnx.ModelProto) -> None:
    """Source lines and stack traces are of no use to a server, and name the exporting machine's files."""
    for node in model.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")


def _image_size(graph: ServingGraph) -> int:
    return int(graph.detector.model.config.vision_config.backbone_config.image_size)


def _manifest(
    graph: ServingGraph, path: Path, settings: ModelSettings, measured: dict[str, float]
) -> dict[str, object]:
    mask_size = 4 * graph.detector.grid
    return {
        "format_version": 2,
        "name": settings.name,
        "version": settings.model_version,
        "files": {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}},
        "file": path.name,
        "prompts": [PROMPT],
        "image_size": _image_size(graph),
        "mask_size": mask_size,
        "top_k": settings.top_k,
        "precision": "fp16" if settings.half else "fp32",
        "opset": OPSET,
        "score_thresholds": [settings.score_threshold],
        "nms_iou": settings.nms_iou,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "parity": {"torch_fp32": measured},
    }
