"""The demo model under other versions, its graph edited: harmless, or hostile in one way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fusebus.models import describe_file, load_manifest, write_manifest
from fusebus.vision import DEMO_MODEL

NAME, OWN = load_manifest(DEMO_MODEL).name, load_manifest(DEMO_MODEL).ref
EDGE = load_manifest(DEMO_MODEL).image_size
Edit = Callable[[ModelProto], None]


def variant(into: Path, version: str, edit: Edit = lambda _: None, **fields: Any) -> Path:
    """The demo model under another version, its graph edited and its manifest true of it."""
    into.mkdir()
    manifest = load_manifest(DEMO_MODEL)
    graph = onnx.load(DEMO_MODEL / manifest.file)
    graph.doc_string = version
    edit(graph)
    onnx.save(graph, into / manifest.file)
    files = {manifest.file: describe_file(into / manifest.file)}
    write_manifest(into, msgspec.structs.replace(manifest, version=version, files=files, **fields))
    return into


def before_scores(model: ModelProto, nodes: Sequence[Any], constants: dict[str, np.ndarray], joined: str) -> None:
    """Add `nodes`, which make `joined` from `images`, and combine it with the scores: so they are not left out."""
    graph = model.graph
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == "scores":
                node.output[index] = "plain_scores"
    graph.node.extend([*nodes, helper.make_node("Max", ["plain_scores", joined], ["scores"])])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def random_numbers(model: ModelProto) -> None:
    node = helper.make_node("RandomUniform", [], ["noise"], shape=[1, 1])
    before_scores(model, [node], {}, "noise")


def scores_above_1(model: ModelProto) -> None:
    before_scores(model, [], {"seven": np.full((1, 1), 7, np.float32)}, "seven")


def index_out_of_range(model: ModelProto) -> None:
    """Only known once a picture is seen: its brightest value is the index."""
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole", "axes"], ["brightest"], keepdims=0),
        helper.make_node("Gather", ["few", "brightest"], ["found"], axis=0),
        helper.make_node("Unsqueeze", ["found", "last"], ["column"]),
    ]
    constants = {"axes": np.array([1, 2, 3]), "few": np.zeros(8, np.float32), "last": np.array([1])}
    before_scores(model, nodes, constants, "column")


def memory_bomb(model: ModelProto) -> None:
    """One value of 3.6 GB, less than what the inspection allows."""
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "tall"], ["column"]),
        helper.make_node("MatMul", ["column", "wide"], ["bomb"]),
        helper.make_node("ReduceMin", ["bomb", "axes"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["harmless"]),
    ]
    constants = {
        "tall": np.array([-1, EDGE * EDGE * 3, 1]),
        "wide": np.ones((1, 900_000_000 // (EDGE * EDGE * 3)), np.float32),
        "axes": np.array([1, 2]),
        "nothing": np.zeros((), np.float32),
        "last": np.array([1]),
    }
    before_scores(model, nodes, constants, "harmless")


def slow(model: ModelProto) -> None:
    """A TFLOP a picture: no loop is needed to take for ever."""
    count = 10**12 // (6 * EDGE**3)
    nodes = [
        helper.make_node("Cast", ["images"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["real", "square"], ["product_0"]),
        *(helper.make_node("MatMul", [f"product_{n}", "weights"], [f"product_{n + 1}"]) for n in range(count)),
        helper.make_node("ReduceMin", [f"product_{count}", "axes"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "nothing"], ["zero"]),
        helper.make_node("Unsqueeze", ["zero", "last"], ["harmless"]),
    ]
    constants = {
        "square": np.array([-1, 3 * EDGE, EDGE]),
        "weights": np.eye(EDGE, dtype=np.float32),
        "axes": np.array([1, 2]),
        "nothing": np.zeros((), np.float32),
        "last": np.array([1]),
    }
    before_scores(model, nodes, constants, "harmless")
