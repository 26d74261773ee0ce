"""Owns the ONNX file: export with a dynamic batch, simplification, external data, and what is left out of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxslim
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fusebus.vision.export.parity import PROBED, SERVED, Probe
from fusebus.vision.export.sam3 import ServingGraph

OPSET = 23  # the first with the Attention operator, for which the CUDA provider has flash kernels
GRAPH = "model.onnx"
EXTERNAL_DATA = "model.onnx.data"
MAX_INLINE_BYTES = 2_000_000_000
"""Weights beyond this go into a file of their own: a protobuf message can't reach 2**31 bytes."""
_LEAST_EXTERNAL_BYTES = 1024  # smaller tensors stay in the graph, where shape inference can read them


class _Probed(nn.Module):  # type: ignore[misc]  # torch is not followed
    def __init__(self, graph: ServingGraph) -> None:
        super().__init__()
        self.serving = graph  # `graph` is taken in torch.fx modules

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.serving.probed(images)


def write_probed(graph: ServingGraph, folder: Path, external_data: bool = False) -> Path:
    """Write the graph into `folder`, simplified, with the outputs that the parity check needs; its path.

    Weights lie in EXTERNAL_DATA where they have more than MAX_INLINE_BYTES or `external_data` asks for it.
    """
    size = image_size(graph)
    program = torch.onnx.export(
        _Probed(graph).eval(),
        (torch.zeros((2, size, size, 3), dtype=torch.uint8),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(PROBED),
        dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=256)}},
        verbose=False,
    )
    assert program is not None
    slim = onnxslim.slim(program.model_proto)
    del program
    _drop_debug_text(slim)
    path = folder / GRAPH
    if external_data or sum(len(one.raw_data) for one in slim.graph.initializer) > MAX_INLINE_BYTES:
        onnx.save(
            slim,
            path,
            save_as_external_data=True,
            location=EXTERNAL_DATA,
            size_threshold=_LEAST_EXTERNAL_BYTES,
            convert_attribute=False,
        )
    else:
        onnx.save(slim, path)
    return path


def keep_served(path: Path) -> None:
    """Take the parity check's outputs from the graph at `path`: no node changes, so that what was proved holds."""
    model = onnx.load(path, load_external_data=False)
    served = [output for output in model.graph.output if output.name in SERVED]
    assert [output.name for output in served] == list(SERVED)
    del model.graph.output[:]
    model.graph.output.extend(served)
    onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


def run_torch(graph: ServingGraph, images: NDArray[np.uint8]) -> Probe:
    """What torch computes, in the precision of the graph's weights."""
    with torch.no_grad():
        return Probe(*(output.numpy() for output in graph.probed(torch.from_numpy(images))))


def open_probed(path: Path, threads: int = 0) -> Callable[[NDArray[np.uint8]], Probe]:
    """A CPU session of a graph with all probed outputs, to be called with pictures; 0 threads: as many as cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: Probe(*session.run(list(PROBED), {"images": images}))


def image_size(graph: ServingGraph) -> int:
    """Edge of the square input in pixels."""
    return int(graph.detector.model.config.vision_config.backbone_config.image_size)


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
