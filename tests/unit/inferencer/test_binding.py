import numpy as np
import onnxruntime
import pytest

from fusebus.inferencer.backends import BackendError
from fusebus.inferencer.backends.binding import BoundSession
from fusebus.models import load_manifest
from fusebus.vision import DEMO_MODEL, resize_to_model
from fusebus.vision.boards import draw_board

OUTPUTS = ("scores", "boxes", "masks")


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(DEMO_MODEL / "model.onnx"), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    edge = load_manifest(DEMO_MODEL).image_size
    return np.stack([resize_to_model(draw_board(seed, (400, 300)).image, edge) for seed in range(3)])


def test_bound_buffers_give_what_an_ordinary_call_gives_at_every_batch_size(
    session: onnxruntime.InferenceSession, images: np.ndarray
) -> None:
    bound = BoundSession(session, "images", OUTPUTS, "cpu")
    for batch in (images[:1], images, images[1:2], images[::-1], images[:2]):
        plain = session.run(list(OUTPUTS), {"images": np.ascontiguousarray(batch)})
        found = bound.run(batch)
        assert all(np.array_equal(one, other) for one, other in zip(found, plain, strict=True))


def test_results_stay_when_the_buffers_are_used_again(
    session: onnxruntime.InferenceSession, images: np.ndarray
) -> None:
    bound = BoundSession(session, "images", OUTPUTS, "cpu")
    first = bound.run(images[:1])
    before = [output.copy() for output in first]
    bound.run(images[1:2])
    assert all(np.array_equal(one, other) for one, other in zip(first, before, strict=True))


def test_buffers_are_made_once_for_each_batch_size(session: onnxruntime.InferenceSession, images: np.ndarray) -> None:
    bound = BoundSession(session, "images", OUTPUTS, "cpu", graphs=True)  # on a CPU the graph's number has no effect
    for _ in range(3):
        bound.run(images[:1])
        bound.run(images[:2])
    assert sorted(bound._buffers) == [1, 2]
    assert bound._buffers[2].options.get_run_config_entry("gpu_graph_id") == "2"


def test_an_output_whose_size_is_not_known_beforehand_is_an_error(session: onnxruntime.InferenceSession) -> None:
    class Described:
        name, type, shape = "scores", "tensor(float)", ["batch", "anything"]

    with pytest.raises(BackendError, match="only the batch may vary"):
        BoundSession._described(Described())
