"""Walks a graph node by node and tells type and shape of every value, before anything is computed with weights.

The step for one node is onnx's own shape inference. Its inference of whole graphs is not used: that unfolds constants
without a limit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, defs, helper, numpy_helper
from onnx.checker import ValidationError
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import InferenceError, infer_node_outputs

from fusebus.models.manifest import ModelError
from fusebus.models.operators import SHAPE_OF_FIRST_INPUT, SIZE_ARITHMETIC, SIZE_INPUTS
from fusebus.models.tensors import ITEM_BYTES, MAX_RANK

MAX_VALUE_BYTES = 4 * 1024**3
"""Of one value for a batch of one; SAM 3 at full size stays under 0.2 GB."""
MAX_KNOWN_ITEMS = 4096
"""Up to so many numbers are computed with here: shapes, axes, indices."""

Shape = tuple[int, ...]
Value = tuple[int, Shape]
"""Element type and shape."""


def walk(model: ModelProto, batch: int) -> dict[str, Value]:
    """Every value that a node makes, for so many pictures.

    Raises ModelError for one whose size can't be told or is over the cap, and for nodes that don't fit together.
    """
    steps = _Walk(model, batch)
    for node in model.graph.node:
        steps.take(node)
    return steps.made


def value_bytes(name: str, value: Value) -> int:
    """What it takes in memory. Raises ModelError for a type or shape that no value of ours has."""
    kind, shape = value
    if kind not in ITEM_BYTES:
        raise ModelError(f"value {name[:100]!r} has the element type {kind}, which no graph of ours needs")
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape):
        raise ModelError(f"value {name[:100]!r} has the shape {shape[:9]}")
    return ITEM_BYTES[kind] * math.prod(shape)


class _Walk:
    def __init__(self, model: ModelProto, batch: int) -> None:
        self._opset = next(entry.version for entry in model.opset_import)
        self._imports = [OperatorSetIdProto(domain="", version=self._opset)]
        self._ir_version = int(model.ir_version)
        self._cap = batch * MAX_VALUE_BYTES
        picture = model.graph.input[0]
        edges = tuple(dim.dim_value for dim in picture.type.tensor_type.shape.dim)[1:]
        self._values: dict[str, Value] = {picture.name: (TensorProto.UINT8, (batch, *edges))}
        self._known: dict[str, NDArray[np.generic]] = {}
        self.made: dict[str, Value] = {}
        for tensor in model.graph.initializer:
            self._values[tensor.name] = (tensor.data_type, tuple(tensor.dims))
            if math.prod(tensor.dims) <= MAX_KNOWN_ITEMS and not tensor.external_data:
                self._known[tensor.name] = numpy_helper.to_array(tensor)

    def take(self, node: NodeProto) -> None:
        """Tell what the node makes."""
        for name in node.input:
            if name and name not in self._values:
                raise ModelError(f"{node.op_type} reads {name[:100]!r}, which nothing made before")
        for index in SIZE_INPUTS.get(node.op_type, ()):
            if index < len(node.input) and node.input[index] and node.input[index] not in self._known:
                raise self._untold(node)
        found = self._inferred(node)
        for name in node.output:
            if name:
                self._values[name] = self.made[name] = self._measured(node, name, found.get(name))
        self._compute(node)

    def _inferred(self, node: NodeProto) -> dict[str, TypeProto]:
        names = {name for name in node.input if name}
        types = {name: helper.make_tensor_type_proto(*self._values[name]) for name in names}
        if node.op_type in SHAPE_OF_FIRST_INPUT and node.input and node.output:
            return {node.output[0]: types[node.input[0]]}
        data = {name: numpy_helper.from_array(self._known[name], name) for name in names & self._known.keys()}
        try:
            schema = defs.get_schema(node.op_type, self._opset, "")
            found: dict[str, TypeProto] = infer_node_outputs(
                schema, node, types, data, None, self._imports, self._ir_version
            )
        except (InferenceError, ValidationError, defs.SchemaError, RuntimeError, ValueError) as error:
            reason = str(error)[:300]
            raise ModelError(f"{node.op_type} {node.name[:100]!r} doesn't fit its inputs: {reason}") from error
        return found

    def _measured(self, node: NodeProto, name: str, found: TypeProto | None) -> Value:
        kind = found.tensor_type if found is not None and found.HasField("tensor_type") else None
        if kind is None or not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in kind.shape.dim):
            raise self._untold(node)
        value = (kind.elem_type, tuple(dim.dim_value for dim in kind.shape.dim))
        size = value_bytes(name, value)
        if size > self._cap:
            raise ModelError(f"value {name[:100]!r} ({node.op_type}) would have {size} bytes, allowed are {self._cap}")
        return value

    def _compute(self, node: NodeProto) -> None:
        """Do arithmetic on sizes; values that don't come of it are unknown."""
        if any(name and math.prod(self._values[name][1]) > MAX_KNOWN_ITEMS for name in node.output):
            return
        results: list[NDArray[np.generic]] = []
        if node.op_type == "Shape":
            shape = np.array(self._values[node.input[0]][1], np.int64)
            bounds = {attribute.name: attribute.i for attribute in node.attribute}
            results = [shape[bounds.get("start", 0) : bounds.get("end", len(shape))]]
        elif node.op_type == "Size":
            results = [np.array(math.prod(self._values[node.input[0]][1]), np.int64)]
        elif node.op_type in SIZE_ARITHMETIC and all(not name or name in self._known for name in node.input):
            results = self._evaluated(node)
        for name, result in zip(node.output, results, strict=False):
            if name and (helper.np_dtype_to_tensor_dtype(result.dtype), result.shape) == self._values[name]:
                self._known[name] = result

    def _evaluated(self, node: NodeProto) -> list[NDArray[np.generic]]:
        feeds = {name: self._known[name] for name in node.input if name}
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(node, opsets={"": self._opset}).run(None, feeds)
        except Exception:  # whatever the reference does not like leaves the value unknown
            return []
        return [np.asarray(result) for result in found]

    def _untold(self, node: NodeProto) -> ModelError:
        return ModelError(
            f"the size of {node.output[0][:100]!r} ({node.op_type}) can't be told before it runs; fold constants"
            " (onnxslim), with shapes inside of the graph"
        )
