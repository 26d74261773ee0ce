"""What unfolds beyond the caps, or is not of the size it says, is refused without being unfolded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from small_graphs import HUGE, SIZE, constant, node, sound_graph

from fusebus.models.inspection import GraphFacts
from fusebus.models.manifest import ModelError

Inspect = Callable[..., GraphFacts]

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
