"""Tells how large every value of a graph becomes, by shape inference: what is unknown or too large is refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, shape_inference

from fusebus.models.manifest import ModelError, ModelManifest
from fusebus.models.operators import SHAPE_OF_FIRST_INPUT
from fusebus.models.tensors import ITEM_BYTES

MAX_VALUE_BYTES = 4 * 1024**3
"""Of one value between two nodes for a batch of one; SAM 3 at full size stays under 0.2 GB."""
MAX_CONSTANT_BYTES = 512 * 1024**2
"""Of all values that depend on constants only: a runtime folds them when it loads the graph, and keeps them."""
MAX_SMALL_ITEMS = 4096
"""Tensors up to here are shown to the inference with their values: shapes, axes, indices."""
BATCHES = (1, 4)
"""A value must not grow faster than the batch."""

Shape = tuple[int, ...]
_Value = tuple[int, Shape]
"""Element type and shape."""


def check_values(model: ModelProto, manifest: ModelManifest) -> int:
    """Bytes of the largest value for a batch of one.

    Raises ModelError: inputs or outputs other than the manifest's, a value whose size can't be told or is over the
    cap, constants that unfold beyond theirs, or a shape in the file that is not the real one.
    """
    graph = model.graph
    _check_names(graph)
    _check_input(graph, manifest)
    small = _without_weights(model)
    sizes = [_inferred(small, batch) for batch in BATCHES]
    one, many = ({name: _bytes(name, value) for name, value in found.items()} for found in sizes)
    for name, size in one.items():
        if size > MAX_VALUE_BYTES:
            raise ModelError(f"value {name[:100]!r} would have {size} bytes, allowed are {MAX_VALUE_BYTES}")
        if many[name] > size * BATCHES[1]:
            raise ModelError(f"value {name[:100]!r} grows faster than the batch: {size} bytes, then {many[name]}")
    _check_constants(graph, one)
    _check_outputs(graph, manifest, sizes)
    _check_declared(graph, sizes)
    return max(one.values(), default=0)


def _check_names(graph: GraphProto) -> None:
    """Each value is made once, so that every reader means the same one."""
    made = [*(tensor.name for tensor in graph.initializer), *(value.name for value in graph.input)]
    made += [name for node in graph.node for name in node.output if name]
    twice, times = next(iter(Counter(made).most_common(1)), ("", 0))
    if times > 1 or "" in made:
        raise ModelError(f"value {twice[:100]!r} is made twice or has no name")


def _check_input(graph: GraphProto, manifest: ModelManifest) -> None:
    names = [value.name for value in graph.input]
    if names != ["images"]:
        raise ModelError(f"has the inputs {names[:9]}, it must be `images` alone")
    wanted = (TensorProto.UINT8, manifest.image_size, manifest.image_size, 3)
    kind, dims = _declared(graph.input[0])
    if (kind, *dims[1:]) != wanted or len(dims) != 4 or dims[0] is not None:
        raise ModelError(f"its input is {_text(kind, dims)}, the manifest says {_text(wanted[0], (None, *wanted[1:]))}")


def _without_weights(model: ModelProto) -> ModelProto:
    """The same graph, weights given by type and shape only, and nothing that it says of its own values."""
    small = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = small.graph
    graph.name = "inspected"
    graph.node.extend(_plain(node) for node in model.graph.node)
    graph.input.append(model.graph.input[0])
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) <= MAX_SMALL_ITEMS and not tensor.external_data:
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    for value in model.graph.output:
        kind, _ = _declared(value)
        graph.output.append(helper.make_tensor_value_info(value.name, kind, None))
    return small


def _plain(node: NodeProto) -> NodeProto:
    if node.op_type not in SHAPE_OF_FIRST_INPUT:
        return node
    return helper.make_node("Identity", node.input[:1], node.output)


def _inferred(small: ModelProto, batch: int) -> dict[str, _Value]:
    small.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
    try:
        found = shape_inference.infer_shapes(small, check_type=True, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"its values don't fit together: {str(error)[:500]}") from error
    values: dict[str, _Value] = {}
    for value in (*found.graph.value_info, *found.graph.output):
        kind, dims = _declared(value)
        if all(dim is not None for dim in dims):
            values[value.name] = (kind, tuple(dim for dim in dims if dim is not None))
    for node in small.graph.node:
        for name in node.output:
            if name and name not in values:
                raise ModelError(
                    f"the size of {name[:100]!r} ({node.op_type}) can't be told before it runs; fold constants first"
                    " (onnxslim)"
                )
    return values


def _declared(value: ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    """Element type and dims; None for a dim that is a name or unknown. Raises ModelError for what is no tensor."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        raise ModelError(f"value {value.name[:100]!r} is no tensor of known rank")
    return kind.elem_type, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)


def _bytes(name: str, value: _Value) -> int:
    kind, shape = value
    if kind not in ITEM_BYTES:
        raise ModelError(f"value {name[:100]!r} has the element type {kind}, which no graph of ours needs")
    if any(dim < 0 for dim in shape):
        raise ModelError(f"value {name[:100]!r} has the shape {shape[:9]}")
    return ITEM_BYTES[kind] * math.prod(shape)


def _check_constants(graph: GraphProto, sizes: dict[str, int]) -> None:
    """Whatever has no path from the input is folded at load."""
    constant = {tensor.name for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if all(not name or name in constant for name in node.input):
            constant.update(node.output)
            total += sum(sizes[name] for name in node.output if name)
            if total > MAX_CONSTANT_BYTES:
                raise ModelError(
                    f"its constants unfold to more than {MAX_CONSTANT_BYTES} bytes, up to {node.op_type}"
                    f" {node.output[0][:100]!r}; store weights as initialisers"
                )


def _check_outputs(graph: GraphProto, manifest: ModelManifest, found: Iterable[dict[str, _Value]]) -> None:
    edge, count = manifest.mask_size, manifest.top_k
    wanted: dict[str, tuple[int, Shape]] = {
        "scores": (TensorProto.FLOAT, (count,)),
        "boxes": (TensorProto.FLOAT, (count, 4)),
        "masks": (TensorProto.UINT8, (count, edge, edge)),
        "classes": (TensorProto.INT64, (count,)),
    }
    names = [value.name for value in graph.output]
    if names not in ([*wanted], [*wanted][:3]):
        raise ModelError(f"has the outputs {names[:9]}, they must be {[*wanted]}")
    if len(names) == 3 and len(manifest.prompts) > 1:
        raise ModelError(f"has no output `classes`, and its manifest names {len(manifest.prompts)} prompts")
    for batch, values in zip(BATCHES, found, strict=True):
        for name in names:
            kind, shape = wanted[name]
            if values.get(name) != (kind, (batch, *shape)):
                raise ModelError(
                    f"its output `{name}` is {_text(*values[name])} for a batch of {batch}, the manifest says"
                    f" {_text(kind, (batch, *shape))}"
                )


def _check_declared(graph: GraphProto, found: Iterable[dict[str, _Value]]) -> None:
    """What the file says of its values must be so: a runtime that trusts it would reserve the wrong memory."""
    one, many = found
    for value in (*graph.value_info, *graph.output):
        kind, dims = _declared(value)
        for values in (one, many):
            if value.name not in values:
                break
            real_kind, real = values[value.name]
            same = len(dims) == len(real) and all(dim in (None, size) for dim, size in zip(dims, real, strict=True))
            if kind != real_kind or not same:
                raise ModelError(
                    f"value {value.name[:100]!r} says it is {_text(kind, dims)}, and is {_text(real_kind, real)}"
                )


def _text(kind: int, dims: Iterable[int | None]) -> str:
    name = TensorProto.DataType.Name(kind).lower() if kind in TensorProto.DataType.values() else f"type {kind}"
    return f"{name} ({', '.join('batch' if dim is None else str(dim) for dim in dims)})"
