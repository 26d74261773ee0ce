"""A small ONNX graph that passes the inspection, and the parts to make hostile ones of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 23
SIZE, CELLS, COUNT = 8, 4, 3  # of the pictures, the masks and the detections
HUGE = 2**40


def constant(name: str, values: object, kind: Any = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, kind), name)


def external(name: str, shape: Sequence[int], **entries: object) -> TensorProto:
    """A float tensor whose data lies outside."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def outputs_from_weights() -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that give each picture of the batch the same outputs of the right shapes."""
    nodes = [
        helper.make_node("Shape", ["images"], ["batch"], end=1),
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
    ]
    tensors = []
    for name, shape, kind in (
        ("scores", (COUNT,), np.float32), ("boxes", (COUNT, 4), np.float32), ("masks", (COUNT, CELLS, CELLS), np.uint8),
        ("classes", (COUNT,), np.int64),
    ):  # fmt: skip
        tensors += [constant(f"{name}_one", np.zeros((1, *shape)), kind), constant(f"{name}_dims", shape)]
        nodes += [
            helper.make_node("Concat", ["batch", f"{name}_dims"], [f"{name}_shape"], axis=0),
            helper.make_node("Expand", [f"{name}_one", f"{name}_shape"], [name]),
        ]
    return nodes, tensors


def sound_graph(nodes: Sequence[NodeProto] = (), tensors: Sequence[TensorProto] = (), **options: Any) -> ModelProto:
    """A small graph with the right inputs and outputs, and `nodes` and `tensors` on top."""
    own_nodes, own_tensors = outputs_from_weights()
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [*own_nodes, *nodes],
        "graph",
        [info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [
            info("scores", TensorProto.FLOAT, ["batch", COUNT]),
            info("boxes", TensorProto.FLOAT, ["batch", COUNT, 4]),
            info("masks", TensorProto.UINT8, ["batch", COUNT, CELLS, CELLS]),
            info("classes", TensorProto.INT64, ["batch", COUNT]),
        ],
        [*own_tensors, *tensors],
    )
    imports = options.pop("opset_imports", [helper.make_opsetid("", OPSET)])
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **options)


def node(operator: str, inputs: Sequence[str], output: str = "out", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)
