"""Each hostile graph is built here with onnx itself, and refused for what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from fusebus.models.inspection import GraphFacts, inspect_graph
from fusebus.models.manifest import ModelError, ModelManifest, describe_file, load_manifest, write_manifest
from fusebus.vision import DEMO_MODEL

OPSET = 23
SIZE, CELLS, COUNT = 8, 4, 3  # of the pictures, the masks and the detections
HUGE = 2**40
SEEDS = 300


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


def node(operator: str, inputs: Sequence[str], output: str = "out", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def test_the_demo_model_passes() -> None:
    manifest = load_manifest(DEMO_MODEL)
    facts = inspect_graph(DEMO_MODEL, manifest)
    assert facts.operators["Attention"] > 0
    assert facts.weight_bytes < manifest.total_bytes
    assert facts.largest_value_bytes < 10_000_000


def test_a_sound_graph_passes_with_and_without_weights_beside_it(inspect: Inspect) -> None:
    assert inspect(sound_graph()).has_classes
    weights = external("w", [25], location="model.onnx.data", offset=100, length=100)
    graph = sound_graph([node("Add", ["w", "w"])], [weights])
    assert inspect(graph, {"model.onnx.data": bytes(200)}).weight_bytes >= 100


# Row 18: external data.


@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/passwd", "sub/file", "./model.onnx.data", "unlisted.data", "model.onnx", "manifest.json", "",
     "*/_ORT_MEM_ADDR_/*", "model.onnx.data\0", "MODEL.ONNX.DATA", "C:\\secret", "\\\\host\\share"],
)  # fmt: skip
def test_external_data_elsewhere_is_refused(inspect: Inspect, location: str, tmp_path: Path) -> None:
    (tmp_path.parent / "secret").write_bytes(bytes(100))
    graph = sound_graph([node("Add", ["w", "w"])], [external("w", [25], location=location)])
    with pytest.raises(ModelError, match="that the manifest lists"):
        inspect(graph, {"model.onnx.data": bytes(100)})


def test_external_data_of_a_constant_node_is_found_too(inspect: Inspect) -> None:
    graph = sound_graph([node("Constant", [], value=external("", [25], location="../secret"))])
    with pytest.raises(ModelError, match=r"reads '\.\./secret'"):
        inspect(graph)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": 101}, "beyond its end"),
        ({"offset": 0, "length": 99}, "reads 99 bytes, its shape needs 100"),
        ({"offset": -4}, "for an offset"),
        ({"offset": "1e3"}, "for an offset"),
        ({"offset": 2**64}, "for an offset"),
        ({"offset": "٣"}, "for an offset"),
        ({"length": "0x64"}, "for an offset or length"),
        ({"basepath": "/etc"}, "keys"),
    ],
)
def test_external_data_out_of_bounds_is_refused(inspect: Inspect, entries: dict[str, object], words: str) -> None:
    graph = sound_graph([node("Add", ["w", "w"])], [external("w", [25], location="w.data", **entries)])
    with pytest.raises(ModelError, match=words):
        inspect(graph, {"w.data": bytes(200)})


def test_many_tensors_over_the_same_bytes_are_refused(inspect: Inspect) -> None:
    tensors = [external(f"w{index}", [25], location="w.data") for index in range(3)]
    with pytest.raises(ModelError, match="more than once"):
        inspect(sound_graph(tensors=tensors), {"w.data": bytes(200)})


def test_data_inside_and_outside_at_once_is_refused(inspect: Inspect) -> None:
    tensor = external("w", [1], location="w.data")
    tensor.raw_data = bytes(4)
    with pytest.raises(ModelError, match="inside and outside"):
        inspect(sound_graph(tensors=[tensor]), {"w.data": bytes(4)})


@pytest.mark.parametrize("name", ["model.onnx", "w.data"])
@pytest.mark.parametrize("link", ["symbolic", "hard"])
def test_links_made_after_the_digests_were_checked_are_refused(
    inspect: Inspect, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str, link: str
) -> None:
    inspect(sound_graph(), {"w.data": bytes(4)})
    manifest = load_manifest(tmp_path)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / name
    (tmp_path / name).rename(elsewhere)
    if link == "symbolic":
        (tmp_path / name).symlink_to(elsewhere)
    else:
        os.link(elsewhere, tmp_path / name)
    with pytest.raises(ModelError, match=r"a link|2 hard links"):
        inspect_graph(tmp_path, manifest)


# Row 19: operators.


@pytest.mark.parametrize("domain", ["com.microsoft", "evil", "ai.onnx.ml", "ai.onnx.training"])
def test_operators_of_other_domains_are_refused(inspect: Inspect, domain: str) -> None:
    graph = sound_graph([node("Relu", ["pixels"], domain=domain)])
    with pytest.raises(ModelError, match="only ONNX's own operators"):
        inspect(graph)
    imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(domain, 1)]
    with pytest.raises(ModelError, match=f"imports the operator domain '{domain}'"):
        inspect(sound_graph(opset_imports=imports))


@pytest.mark.parametrize("operator", ["RandomNormal", "StringConcat", "NonZero", "SequenceConstruct", "Nonsense", ""])
def test_operators_outside_the_list_are_refused(inspect: Inspect, operator: str) -> None:
    with pytest.raises(ModelError, match="not on the list"):
        inspect(sound_graph([node(operator, ["pixels"])]))


def endless() -> GraphProto:
    """A loop body that always goes on."""
    info = helper.make_tensor_value_info
    return helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"])],
        "body",
        [info("turn", TensorProto.INT64, []), info("goes_on", TensorProto.BOOL, [])],
        [info("still", TensorProto.BOOL, [])],
    )


def test_an_endless_loop_is_refused(inspect: Inspect) -> None:
    loop = helper.make_node("Loop", ["", "yes"], [], body=endless())
    with pytest.raises(ModelError, match="'Loop', which runs a graph inside"):
        inspect(sound_graph([loop], [constant("yes", True, np.bool_)]))


@pytest.mark.parametrize("operator", ["Relu", "If", "Scan", "SequenceMap"])
def test_graphs_inside_of_any_operator_are_refused(inspect: Inspect, operator: str) -> None:
    with pytest.raises(ModelError, match="runs a graph inside"):
        inspect(sound_graph([node(operator, ["pixels"], anything=endless())]))
    several = node("Relu", ["pixels"])
    several.attribute.append(helper.make_attribute("branches", [endless()]))
    with pytest.raises(ModelError, match="runs a graph inside"):
        inspect(sound_graph([several]))


def test_a_function_that_hides_operators_is_refused(inspect: Inspect) -> None:
    imports = [helper.make_opsetid("", OPSET)]
    hidden = helper.make_function("", "Relu", ["x"], ["y"], [node("RandomNormalLike", ["x"], "y")], imports)
    with pytest.raises(ModelError, match="defines the function 'Relu'"):
        inspect(sound_graph([node("Relu", ["pixels"])], functions=[hidden]))


def test_odd_nodes_are_refused(inspect: Inspect) -> None:
    reference = node("Softmax", ["pixels"])
    reference.attribute.append(onnx.AttributeProto(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="a"))
    twice = node("Softmax", ["pixels"], axis=0)
    twice.attribute.append(helper.make_attribute("axis", 1))
    overloaded = node("Relu", ["pixels"])
    overloaded.overload = "other"
    for hostile in (
        node("Constant", [], value_string=b"text"),
        node("Constant", [], value_strings=[b"text"]),
        reference,
        twice,
        overloaded,
        helper.make_node("Expand", ["pixels", "batch"], []),
        helper.make_node("Relu", ["pixels"], [""]),
    ):
        with pytest.raises(ModelError):
            inspect(sound_graph([hostile]))


def test_runtime_options_in_the_file_are_refused(inspect: Inspect) -> None:
    model = sound_graph()
    model.metadata_props.add(key="ort_config", value='{"session_options": {}}')
    with pytest.raises(ModelError, match="runtime options"):
        inspect(model)


def test_training_steps_and_fields_that_onnx_does_not_know_are_refused(inspect: Inspect) -> None:
    model = sound_graph()
    model.training_info.add()
    with pytest.raises(ModelError, match="training"):
        inspect(model)
    with pytest.raises(ModelError, match="fields that ONNX doesn't know"):
        inspect(sound_graph().SerializeToString() + b"\x82\x7d\x03new")  # field 2000 with three bytes


# Row 19: bombs.

BOMBS = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"])], [constant("s", [HUGE])]),
    "ConstantOfShape of a folded shape": (
        [node("Mul", ["s", "s"], "t"), node("ConstantOfShape", ["t"])],
        [constant("s", [2**20])],
    ),
    "Expand": ([node("Expand", ["v", "s"])], [constant("v", [1.0], np.float32), constant("s", [HUGE])]),
    "Tile": ([node("Tile", ["v", "s"])], [constant("v", [1.0], np.float32), constant("s", [HUGE])]),
    "Range": (
        [node("Range", ["a", "b", "c"])],
        [constant("a", 0), constant("b", HUGE), constant("c", 1)],
    ),
    "Pad": ([node("Pad", ["v", "s"])], [constant("v", [1.0], np.float32), constant("s", [HUGE, HUGE])]),
    "Resize": (
        [node("Resize", ["v", "", "r"])],
        [constant("v", np.ones((1, 1, 2, 2)), np.float32), constant("r", [1, 1, 1e6, 1e6], np.float32)],
    ),
    "OneHot": (
        [node("OneHot", ["i", "d", "v"])],
        [constant("i", range(1000)), constant("d", 2**30), constant("v", [0, 1])],
    ),
    "outer sum": (
        [node("Add", ["v", "w"])],
        [constant("v", np.ones((2**16, 1)), np.float32), constant("w", np.ones((1, 2**16)), np.float32)],
    ),
    "outer product": (
        [node("MatMul", ["v", "w"])],
        [constant("v", np.ones((2**16, 1)), np.float32), constant("w", np.ones((1, 2**16)), np.float32)],
    ),
    "Gather of the same again": (
        [node("Gather", ["v", "i"])],
        [constant("v", np.ones((1, 2**16)), np.float32), constant("i", np.zeros(2**16))],
    ),
    "Einsum": (
        [node("Einsum", ["v", "v", "v"], equation="i,j,k->ijk")],
        [constant("v", np.ones(2000), np.float32)],
    ),
    "Concat again and again": (
        [node("Concat", [f"v{step}"] * 2, f"v{step + 1}", axis=0) for step in range(40)],
        [constant("v0", np.ones(64), np.float32)],
    ),
    "ConvTranspose": (
        [node("ConvTranspose", ["v", "k"], strides=[2**20, 2**20])],
        [constant("v", np.ones((1, 1, 4, 4)), np.float32), constant("k", np.ones((1, 1, 1, 1)), np.float32)],
    ),
    "of pixels": (
        [node("Tile", ["pixels", "s"])],
        [constant("s", [1, 2**16, 2**16, 1])],
    ),
    "many that are allowed alone": (
        [node("ConstantOfShape", ["s"], f"o{index}") for index in range(10)],
        [constant("s", [2**25])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_unfolds_to_more_memory_than_allowed_is_refused_without_unfolding_it(inspect: Inspect, name: str) -> None:
    nodes, tensors = BOMBS[name]
    with pytest.raises(ModelError, match=r"allowed are|unfold to more than|don't fit together|can't be told"):
        inspect(sound_graph(nodes, tensors))


def test_a_size_that_only_running_tells_is_refused(inspect: Inspect) -> None:
    nodes = [
        node("ReduceMax", ["pixels"], "most", keepdims=0),
        node("Cast", ["most"], "count", to=TensorProto.INT64),
        node("Range", ["zero", "count", "one"]),
    ]
    with pytest.raises(ModelError, match=r"the size of 'out' \(Range\) can't be told"):
        inspect(sound_graph(nodes, [constant("zero", 0), constant("one", 1)]))


def test_what_grows_faster_than_the_batch_is_refused(inspect: Inspect) -> None:
    nodes = [
        node("Reshape", ["pixels", "flat"], "column"),
        node("Transpose", ["column"], "row"),
        node("MatMul", ["column", "row"]),
    ]
    with pytest.raises(ModelError, match="grows faster than the batch"):
        inspect(sound_graph(nodes, [constant("flat", [-1, 1])]))


# Row 19: sizes.


def test_an_initialiser_that_claims_more_than_it_brings_is_refused(inspect: Inspect) -> None:
    giant = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE], raw_data=bytes(16))
    with pytest.raises(ModelError, match="the graph brings 16"):
        inspect(sound_graph(tensors=[giant]))
    typed = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE], float_data=[1.0])
    with pytest.raises(ModelError, match="the graph brings 4"):
        inspect(sound_graph(tensors=[typed]))


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1, -4], raw_data=bytes(16)),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[1], string_data=[b"text"]),
        TensorProto(name="w", data_type=TensorProto.COMPLEX64, dims=[1], raw_data=bytes(8)),
        TensorProto(name="w", data_type=99, dims=[1], raw_data=bytes(8)),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1] * 99, raw_data=bytes(4)),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], raw_data=bytes(4), float_data=[1.0]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], int64_data=[1]),
        TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], segment=TensorProto.Segment(begin=0, end=9)),
    ],
)
def test_odd_tensors_are_refused(inspect: Inspect, tensor: TensorProto) -> None:
    with pytest.raises(ModelError, match="tensor 'w'"):
        inspect(sound_graph(tensors=[tensor]))


def test_sparse_tensors_are_refused(inspect: Inspect) -> None:
    model = sound_graph()
    values, indices = constant("w", [1.0], np.float32), constant("", [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [HUGE]))
    with pytest.raises(ModelError, match="sparse"):
        inspect(model)


def test_a_value_that_is_made_twice_is_refused(inspect: Inspect) -> None:
    for extra in (sound_graph([node("Relu", ["pixels"], "scores")]), sound_graph(tensors=[constant("pixels", 1)])):
        with pytest.raises(ModelError, match="made twice"):
            inspect(extra)


def declared(model: ModelProto, name: str, dims: Sequence[object]) -> ModelProto:
    model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    return model


def test_a_declared_shape_that_is_not_the_real_one_is_refused(inspect: Inspect) -> None:
    inspect(declared(sound_graph(), "pixels", ["batch", SIZE, SIZE, 3]))
    for lie in (["batch", SIZE, SIZE, 1], ["batch", SIZE], [2, SIZE, SIZE, 3]):
        with pytest.raises(ModelError, match="'pixels' says it is"):
            inspect(declared(sound_graph(), "pixels", lie))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 16}, "its input is"),
        ({"mask_size": 8}, "output `masks`"),
        ({"top_k": 4}, "output `scores`"),
        ({"opset": 22}, "imports opsets"),
    ],
)
def test_a_graph_of_another_manifest_is_refused(inspect: Inspect, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        inspect(sound_graph(), **changes)


def test_outputs_that_claim_a_shape_which_their_values_have_not_are_refused(inspect: Inspect) -> None:
    model = sound_graph()
    next(tensor for tensor in model.graph.initializer if tensor.name == "scores_dims").CopyFrom(
        constant("scores_dims", [1, COUNT])
    )
    with pytest.raises(ModelError, match="output `scores` is"):
        inspect(model)


def test_other_inputs_and_outputs_are_refused(inspect: Inspect) -> None:
    more = sound_graph()
    more.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    fixed = sound_graph()
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    fewer = sound_graph()
    del fewer.graph.output[1:]
    for model, words in ((more, "inputs"), (fixed, "its input is"), (fewer, "outputs")):
        with pytest.raises(ModelError, match=words):
            inspect(model)


def test_without_classes_there_is_one_prompt_only(inspect: Inspect) -> None:
    model = sound_graph()
    del model.graph.output[3:]
    assert not inspect(model).has_classes
    with pytest.raises(ModelError, match="no output `classes`"):
        inspect(model, prompts=("fuse neutral", "fuse"), score_thresholds=(0.3, 0.3))


def test_a_graph_that_is_cut_off_is_refused_wherever(inspect: Inspect) -> None:
    whole = sound_graph().SerializeToString()
    for length in range(0, len(whole), 7):
        with pytest.raises(ModelError):
            inspect(whole[:length])


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"\xff" * 64, b"ORTM" * 16, b"\x0b" * 64, b"{}", os.urandom(999)])
def test_what_is_no_graph_is_refused(inspect: Inspect, data: bytes) -> None:
    with pytest.raises(ModelError):
        inspect(data)


def test_a_flipped_bit_gives_a_refusal_or_a_sound_graph_never_a_crash(inspect: Inspect) -> None:
    whole, random = sound_graph().SerializeToString(), np.random.default_rng(19)
    refused = 0
    for _ in range(SEEDS):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << int(random.integers(8))
        try:
            inspect(bytes(damaged))
        except ModelError:
            refused += 1
    assert refused > 100


def test_graphs_nested_beyond_reason_are_refused(inspect: Inspect) -> None:
    inner = b""
    for _ in range(5_000):  # GraphProto.node[0].attribute[0].g, again and again
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            size = len(inner)
            length = b""
            while size >= 0x80:
                length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
            inner = tag + length + bytes([size]) + inner
    with pytest.raises(ModelError):
        inspect(b"\x08\x0a\x3a" + b"\x80\x80\x02" + inner[: 2 << 14])


def test_an_oversized_graph_is_refused_before_it_is_parsed(inspect: Inspect, tmp_path: Path) -> None:
    """Two bytes each in the file, a hundred in memory."""
    inspect(sound_graph())
    manifest = load_manifest(tmp_path)
    with pytest.raises(ModelError, match=r"fields; that is no model|besides its weights"):
        nodes = b"\x0a\x00" * 3_000_000
        inspect(b"\x08\x0a\x3a" + varint(len(nodes)) + nodes)
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelError, match="use external data"):
        inspect_graph(tmp_path, manifest)


def varint(value: int) -> bytes:
    encoded = b""
    while value >= 0x80:
        encoded, value = encoded + bytes([value & 0x7F | 0x80]), value >> 7
    return encoded + bytes([value])


def test_a_name_of_another_runtimes_format_is_refused(inspect: Inspect, tmp_path: Path) -> None:
    inspect(sound_graph(), {"model.ort": b"ORTM"})
    manifest = msgspec.structs.replace(load_manifest(tmp_path), file="model.ort")
    with pytest.raises(ModelError, match=r"must end in \.onnx"):
        inspect_graph(tmp_path, manifest)
