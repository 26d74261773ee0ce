"""Checks what shape inference found: every value under its cap, and inputs and outputs as the manifest says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from fusebus.models.manifest import ModelError, ModelManifest
from fusebus.models.walking import Shape, Value, value_bytes, walk

MAX_CONSTANT_BYTES = 512 * 1024**2
"""Of all values that depend on constants only: a runtime folds them when it loads the graph, and keeps them."""
BATCHES = (1, 4)
"""A value must not grow faster than the batch."""


def check_values(model: ModelProto, manifest: ModelManifest) -> int:
    """Bytes of the largest value for a batch of one.

    Raises ModelError: inputs or outputs other than the manifest's, a value whose size can't be told or is over the
    cap, constants that unfold beyond theirs, or a shape in the file that is not the real one.
    """
    graph = model.graph
    _check_names(graph)
    _check_input(graph, manifest)
    sizes = [walk(model, batch) for batch in BATCHES]
    one, many = ({name: value_bytes(name, value) for name, value in found.items()} for found in sizes)
    for name, size in one.items():
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


def _declared(value: ValueInfoProto) -> tuple[int, tuple[int | None, ...]]:
    """Element type and dims; None for a dim that is a name or unknown. Raises ModelError for what is no tensor."""
    kind = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type" or not kind.HasField("shape"):
        raise ModelError(f"value {value.name[:100]!r} is no tensor of known rank")
    return kind.elem_type, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)


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


def _check_outputs(graph: GraphProto, manifest: ModelManifest, found: Iterable[dict[str, Value]]) -> None:
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
            if name not in values:
                raise ModelError(f"no node makes its output `{name}`")
            if values[name] != (kind, (batch, *shape)):
                raise ModelError(
                    f"its output `{name}` is {_text(*values[name])} for a batch of {batch}, the manifest says"
                    f" {_text(kind, (batch, *shape))}"
                )


def _check_declared(graph: GraphProto, found: Iterable[dict[str, Value]]) -> None:
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
