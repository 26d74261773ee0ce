import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from fusebus.vision import DEMO_MODEL, ModelError, load_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that loads."""
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    describe(tmp_path)
    return tmp_path


def describe(folder: Path, **changes: object) -> None:
    manifest = {
        "format_version": 1, "name": "m", "version": "m-1", "file": "model.onnx", "image_size": 224, "mask_size": 64,
        "sha256": hashlib.sha256(b"a graph").hexdigest(), "prompts": ["fuse neutral"], "top_k": 8,
        "score_threshold": 0.3, "nms_iou": 0.6, "something": "for people",
    }  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest | changes))


def test_the_demo_model_is_the_one_its_manifest_describes() -> None:
    manifest = load_manifest(DEMO_MODEL)
    assert manifest.label == "fuse neutral"
    assert (DEMO_MODEL / manifest.file).stat().st_size <= 5_000_000


def test_a_complete_folder_loads(folder: Path) -> None:
    assert load_manifest(folder).version == "m-1"


def test_an_altered_model_is_refused(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"b graph")
    with pytest.raises(ModelError, match="its manifest says"):
        load_manifest(folder)


def test_a_link_in_place_of_the_model_is_refused(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "elsewhere")
    (folder / "model.onnx").symlink_to(folder / "elsewhere")
    with pytest.raises(ModelError, match="no such regular file"):
        load_manifest(folder)
    (folder / "model.onnx").unlink()
    os.link(folder / "elsewhere", folder / "model.onnx")
    with pytest.raises(ModelError, match="2 hard links"):
        load_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "../model.onnx"}, "file"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": ".."}, "file"),
        ({"file": "missing.onnx"}, "no such regular file"),
        ({"sha256": "ABC"}, "sha256"),
        ({"image_size": 0}, "image_size"),
        ({"format_version": 2}, "format_version 2"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(folder: Path, changes: dict[str, object], words: str) -> None:
    describe(folder, **changes)
    with pytest.raises(ModelError, match=words):
        load_manifest(folder)


def test_a_folder_without_manifest_or_with_rubbish_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"{")
    with pytest.raises(ModelError):
        load_manifest(tmp_path)
