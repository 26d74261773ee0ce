import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.onnx import OnnxBackend, require_provider
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, resize_to_model
from fusebus.vision.boards import draw_board

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def backend() -> OnnxBackend:
    return OnnxBackend(DEMO_MODEL / load_manifest(DEMO_MODEL).file, CPU, intra_op_threads=1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    size = load_manifest(DEMO_MODEL).image_size
    return np.stack([resize_to_model(draw_board(seed, (800, 600)).image, size) for seed in range(4)])


@pytest.mark.parametrize("count", [1, 3, 4])
def test_outputs_have_the_shapes_that_the_manifest_says(backend: OnnxBackend, images: np.ndarray, count: int) -> None:
    manifest = load_manifest(DEMO_MODEL)
    scores, boxes, masks, classes = backend.run(images[:count])
    assert (scores.shape, scores.dtype) == ((count, manifest.top_k), np.float32)
    assert (boxes.shape, boxes.dtype) == ((count, manifest.top_k, 4), np.float32)
    assert masks.shape == (count, manifest.top_k, manifest.mask_size, manifest.mask_size)
    assert masks.dtype == np.uint8
    assert (classes.shape, classes.dtype, classes.max()) == ((count, manifest.top_k), np.int64, 0)
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_a_picture_gets_the_same_answer_alone_and_in_a_batch(backend: OnnxBackend, images: np.ndarray) -> None:
    together = backend.run(images)
    for index in range(len(images)):
        alone = backend.run(images[index : index + 1])
        assert np.abs(together.scores[index] - alone.scores[0]).max() < 0.01
        again = backend.run(images[index : index + 1])
        assert all(np.array_equal(one, two) for one, two in zip(alone, again, strict=True))


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime knows CUDA")
def test_a_gpu_that_this_onnxruntime_does_not_know_is_a_clear_error() -> None:
    with pytest.raises(BackendError, match=r"CUDAExecutionProvider was asked for.*fusebus-inferencer\[gpu\]"):
        OnnxBackend(DEMO_MODEL / "model.onnx", CUDA, intra_op_threads=1)


def test_a_silent_fallback_to_the_cpu_is_an_error() -> None:
    with pytest.raises(BackendError, match="fell back to CPUExecutionProvider"):
        require_provider(CUDA, [CPU])
    with pytest.raises(BackendError, match="fell back to nothing"):
        require_provider(CUDA, [])
    require_provider(CUDA, [CUDA, CPU])


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(BackendError, match="does not load"):
        OnnxBackend(tmp_path / "model.onnx", CPU, intra_op_threads=1)


def test_a_missing_onnxruntime_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match="exactly one of"):
        OnnxBackend(DEMO_MODEL / "model.onnx", CPU, intra_op_threads=1)
