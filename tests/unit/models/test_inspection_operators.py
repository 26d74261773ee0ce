"""Operators, functions and options that a model has no need of are refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper
from small_graphs import OPSET, constant, node, sound_graph

from fusebus.models.inspection import GraphFacts
from fusebus.models.manifest import ModelError

Inspect = Callable[..., GraphFacts]


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
