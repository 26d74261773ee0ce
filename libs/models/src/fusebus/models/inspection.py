"""Proves that a graph is harmless before a runtime sees it: what it may read, run and grow to, by walking it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from fusebus.models.inference import check_values
from fusebus.models.manifest import ModelError, ModelManifest, open_regular
from fusebus.models.operators import ALLOWED, FIRST_OPSET, LAST_OPSET
from fusebus.models.tensors import TensorBudget
from fusebus.models.wire import check_framing

MAX_GRAPH_BYTES = 2**31 - 1
"""What a protobuf file can have; larger models keep their weights in external data."""
MAX_NODES = 50_000
"""SAM 3 at full size has 4,500."""
RUNTIME_OPTIONS = "ort_config"
"""A metadata key from which onnxruntime may take session options."""


class GraphFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the inspection saw."""

    nodes: int
    operators: dict[str, int]
    """How often each is used."""
    opset: int
    weight_bytes: int
    """Of all tensors in the file and in external data."""
    largest_value_bytes: int
    """Of the largest value between two nodes, for a batch of one."""
    has_classes: bool
    """Whether it has the output `classes`; without it every detection is of the first class."""


def inspect_graph(folder: Path, manifest: ModelManifest) -> GraphFacts:
    """Look through the graph without running it; call load_manifest before (0.3 s for SAM 3 without weights inside).

    Raises ModelError: cut off or too large, operators or domains outside the list, control flow, functions, external
    data anywhere but in the listed files and within them, tensors that are not as large as they say, values that grow
    beyond the caps, inputs or outputs that are not the manifest's.
    """
    where = str(folder / manifest.file)
    if not manifest.file.endswith(".onnx"):
        raise ModelError(f"{where}: the graph's name must end in .onnx, or a runtime may take it for something else")
    model = _parse(folder / manifest.file)
    try:
        _check_model(model, manifest)
        operators = _check_nodes(model.graph)
        budget = TensorBudget(folder, manifest)
        for tensor in _tensors(model.graph):
            budget.take(tensor)
        largest = check_values(model, manifest)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from error
    return GraphFacts(
        nodes=len(model.graph.node),
        operators=dict(operators.most_common()),
        opset=manifest.opset,
        weight_bytes=budget.total,
        largest_value_bytes=largest,
        has_classes=any(output.name == "classes" for output in model.graph.output),
    )


def _parse(path: Path) -> ModelProto:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MAX_GRAPH_BYTES:
            raise ModelError(f"{path}: has {size} bytes, at most {MAX_GRAPH_BYTES} can be read; use external data")
        data = stream.read()
    check_framing(data, str(path))
    try:
        return ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise ModelError(f"{path}: is cut off or no ONNX file ({error}); export or fetch it anew") from error


def _check_model(model: ModelProto, manifest: ModelManifest) -> None:
    known = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != known:
        raise ModelError("has fields that ONNX doesn't know; export it with a released onnx")
    imports = [(entry.domain, entry.version) for entry in model.opset_import]
    foreign = sorted(domain for domain, _ in imports if domain not in ("", "ai.onnx"))
    if foreign:
        raise ModelError(f"imports the operator domain {foreign[0]!r}; only ONNX's own operators are allowed")
    if imports not in ([("", manifest.opset)], [("ai.onnx", manifest.opset)]):
        raise ModelError(f"imports opsets {imports}, its manifest says {manifest.opset}")
    if not FIRST_OPSET <= manifest.opset <= LAST_OPSET:
        raise ModelError(f"has opset {manifest.opset}, allowed are {FIRST_OPSET} to {LAST_OPSET}")
    if model.functions:
        raise ModelError(f"defines the function {model.functions[0].name!r}, which hides operators; inline it")
    if model.training_info:
        raise ModelError("holds training steps; export it for inference")
    if any(entry.key == RUNTIME_OPTIONS for entry in model.metadata_props):
        raise ModelError(f"sets runtime options (metadata {RUNTIME_OPTIONS!r}); remove them")


def _check_nodes(graph: GraphProto) -> Counter[str]:
    if len(graph.node) > MAX_NODES:
        raise ModelError(f"has {len(graph.node)} nodes, allowed are {MAX_NODES}")
    if graph.sparse_initializer:
        raise ModelError("has sparse initialisers, which unfold to any size; store them dense")
    for node in graph.node:
        _check_node(node)
    return Counter(node.op_type for node in graph.node)


def _check_node(node: NodeProto) -> None:
    name = node.op_type[:100]
    if node.domain not in ("", "ai.onnx"):
        raise ModelError(f"uses {node.domain[:100]!r}:{name!r}; only ONNX's own operators are allowed")
    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise ModelError(f"uses {name!r}, which runs a graph inside the graph (endless, perhaps); unroll it")
    if node.op_type not in ALLOWED:
        raise ModelError(f"uses {name!r}, which is not on the list of allowed operators")
    if not any(node.output):
        raise ModelError(f"node {node.name[:100]!r} ({name}) makes no value")
    if node.overload or node.device_configurations:
        raise ModelError(f"node {node.name[:100]!r} has an overload or device settings; export it plainly")
    names = [attribute.name for attribute in node.attribute]
    if len(set(names)) != len(names):
        raise ModelError(f"node {node.name[:100]!r} has an attribute twice")
    for attribute in node.attribute:
        _check_attribute(node, attribute)


def _check_attribute(node: NodeProto, attribute: AttributeProto) -> None:
    if attribute.ref_attr_name:
        raise ModelError(f"node {node.name[:100]!r} refers to a function's attribute outside of any function")
    if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.strings:
        raise ModelError(f"node {node.name[:100]!r} has a sparse or text constant; store it dense")
    if attribute.HasField("tp") or attribute.type_protos or attribute.tensors:
        raise ModelError(f"node {node.name[:100]!r} has an attribute that no allowed operator takes")
    if node.op_type == "Constant" and attribute.name == "value_string":
        raise ModelError(f"node {node.name[:100]!r} has a text constant; no graph of ours needs any")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
