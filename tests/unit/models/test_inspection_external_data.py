"""Weights that lie outside of the graph: anywhere but in the listed files' own bytes they are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from small_graphs import external, node, sound_graph

from fusebus.models.inspection import GraphFacts, inspect_graph
from fusebus.models.manifest import ModelError, load_manifest

Inspect = Callable[..., GraphFacts]


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
