"""Sound graphs pass; those of another model and what is no graph at all are refused for what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import COUNT, constant, external, node, sound_graph

from fusebus.models.inspection import GraphFacts, inspect_graph
from fusebus.models.manifest import ModelError, load_manifest
from fusebus.vision import DEMO_MODEL

Inspect = Callable[..., GraphFacts]
SEEDS = 300


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
