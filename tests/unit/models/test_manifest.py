import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fusebus.models import ModelError, ModelManifest, describe_file, load_manifest, write_manifest
from fusebus.vision import DEMO_MODEL

GRAPH = b"a graph"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that loads."""
    (tmp_path / "model.onnx").write_bytes(GRAPH)
    describe(tmp_path)
    return tmp_path


def describe(folder: Path, **changes: object) -> None:
    manifest: dict[str, object] = {
        "format_version": 2, "name": "m", "version": "m-1", "file": "model.onnx", "image_size": 224, "mask_size": 64,
        "files": {"model.onnx": {"sha256": hashlib.sha256(GRAPH).hexdigest(), "bytes": len(GRAPH)}},
        "prompts": ["fuse neutral"], "top_k": 8, "score_thresholds": [0.3], "nms_iou": 0.6, "precision": "fp32",
        "opset": 23, "something": "for people",
    }  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest | changes))


def test_the_demo_model_is_the_one_its_manifest_describes() -> None:
    manifest = load_manifest(DEMO_MODEL)
    assert manifest.prompts == ("fuse neutral",)
    assert manifest.total_bytes <= 5_000_000


def test_a_complete_folder_loads(folder: Path) -> None:
    manifest = load_manifest(folder)
    assert manifest.ref == "m@m-1"
    assert manifest.sha256 == hashlib.sha256(GRAPH).hexdigest()


def test_a_written_manifest_reads_back_and_names_several_files_as_sha256sum_does(folder: Path) -> None:
    (folder / "model.onnx.data").write_bytes(b"weights")
    manifest = msgspec.structs.replace(
        load_manifest_of(folder),
        files={name: describe_file(folder / name) for name in ("model.onnx.data", "model.onnx")},
    )
    write_manifest(folder, manifest)
    assert load_manifest(folder) == manifest
    lines = (
        f"{hashlib.sha256(GRAPH).hexdigest()}  model.onnx\n{hashlib.sha256(b'weights').hexdigest()}  model.onnx.data\n"
    )
    assert manifest.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def load_manifest_of(folder: Path) -> ModelManifest:
    return msgspec.json.decode((folder / "manifest.json").read_bytes(), type=ModelManifest)


def test_an_altered_model_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"b graph")
    with pytest.raises(ModelError, match="its manifest says"):
        load_manifest(folder)


def test_a_shorter_file_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(GRAPH[:-1])
    with pytest.raises(ModelError, match="has 6 bytes"):
        load_manifest(folder)


def test_a_link_in_place_of_the_model_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "model.onnx"
    (folder / "model.onnx").rename(elsewhere)
    (folder / "model.onnx").symlink_to(elsewhere)
    with pytest.raises(ModelError, match="a link"):
        load_manifest(folder)
    (folder / "model.onnx").unlink()
    os.link(elsewhere, folder / "model.onnx")
    with pytest.raises(ModelError, match="2 hard links"):
        load_manifest(folder)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_without_waiting_for_it(folder: Path, kind: str) -> None:
    (folder / "model.onnx").unlink()
    if kind == "folder":
        (folder / "model.onnx").mkdir()
    else:
        os.mkfifo(folder / "model.onnx")
    with pytest.raises(ModelError, match="no such regular file"):
        load_manifest(folder)


def test_a_linked_manifest_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "manifest.json"
    (folder / "manifest.json").rename(elsewhere)
    (folder / "manifest.json").symlink_to(elsewhere)
    with pytest.raises(ModelError, match="a link"):
        load_manifest(folder)


def test_a_file_that_the_graph_could_read_unlisted_is_refused(folder: Path) -> None:
    (folder / "MODEL_CARD.md").write_text("for people")
    load_manifest(folder)
    (folder / "secret.bin").write_bytes(b"s")
    with pytest.raises(ModelError, match=r"secret\.bin: lies beside the model"):
        load_manifest(folder)


def test_a_linked_card_is_refused(folder: Path) -> None:
    (folder / "MODEL_CARD.md").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="lies beside the model"):
        load_manifest(folder)


ENTRY = {"sha256": "0" * 64, "bytes": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "../model.onnx"}, "file"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": ".."}, "file"),
        ({"file": "model.onnx\n"}, "file"),
        ({"file": "missing.onnx"}, "`files` doesn't list"),
        ({"files": {"../model.onnx": ENTRY}}, "files"),
        ({"files": {"model.onnx": {"sha256": "ABC", "bytes": 1}}}, "sha256"),
        ({"files": {"model.onnx": {"sha256": "0" * 64 + "\n", "bytes": 1}}}, "sha256"),
        ({"files": {"model.onnx": ENTRY, "manifest.json": ENTRY}}, "own digest"),
        ({"files": {"model.onnx": ENTRY, **{f"{index}.data": ENTRY for index in range(64)}}}, "files"),
        ({"files": {}}, "files"),
        ({"name": "a/b"}, "name"),
        ({"version": "1."}, "version"),
        ({"version": ".."}, "version"),
        ({"image_size": 0}, "image_size"),
        ({"prompts": []}, "prompts"),
        ({"prompts": ["a", "b"]}, "1 `score_thresholds` for 2 `prompts`"),
        ({"precision": "int4"}, "precision"),
        ({"format_version": 1}, "format_version 1, this release reads 2"),
        ({"format_version": 3, "files": None}, "format_version 3"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(folder: Path, changes: dict[str, Any], words: str) -> None:
    describe(folder, **changes)
    with pytest.raises(ModelError, match=words):
        load_manifest(folder)


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 1_000_001])
def test_a_folder_without_manifest_or_with_rubbish_is_refused(tmp_path: Path, rubbish: bytes) -> None:
    with pytest.raises(ModelError, match="no such regular file"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(rubbish)
    with pytest.raises(ModelError):
        load_manifest(tmp_path)
