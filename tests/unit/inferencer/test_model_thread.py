import asyncio
import threading

import numpy as np
import pytest

from fusebus.inferencer.backends import BackendError, Outputs
from fusebus.inferencer.batching import lacks_memory
from fusebus.inferencer.model import MemoryLacking, ModelBroken, ModelThread, PictureFailed
from fusebus.inferencer.urgency import Urgency


class Recorder:
    """A model that remembers its batches; while `held` it does not answer."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.fits = 100
        self.lost = False
        self.lacking = 0

    def run(self, images: np.ndarray) -> Outputs:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(images))
        self.started.set()
        assert self.go.wait(10)
        if self.lost:
            raise RuntimeError("device lost")
        if len(images) > self.fits or self.lacking:
            self.lacking = max(0, self.lacking - 1)
            raise RuntimeError("CUDA failure 2: out of memory")
        if (images == 13).all(axis=(1, 2, 3)).any():
            raise RuntimeError("Reshape: the input does not fit")
        scores = images[:, 0, 0, :1].astype(np.float32)
        boxes = np.zeros((len(images), 1, 4), np.float32)
        return Outputs(scores, boxes, np.zeros((len(images), 1, 4, 4), np.uint8), np.zeros((len(images), 1), np.int64))


def picture(value: int) -> np.ndarray:
    return np.full((8, 8, 3), value, np.uint8)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def held(recorder: Recorder, model: ModelThread) -> asyncio.Task[object]:
    """The model is busy with a first picture until `go` is set."""
    recorder.go.clear()
    recorder.started.clear()
    first = asyncio.create_task(model.detect(picture(0)))
    assert await asyncio.to_thread(recorder.started.wait, 10)
    return first


async def test_what_is_queued_goes_in_one_batch_up_to_the_limit(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=4) as model:
        first = await held(recorder, model)
        waiting = [asyncio.create_task(model.detect(picture(value))) for value in range(1, 7)]
        await asyncio.sleep(0)
        recorder.go.set()
        answers = await asyncio.gather(first, *waiting)
    assert recorder.batches == [1, 4, 2]
    assert [float(answer.outputs.scores[0]) for answer in answers] == [0, 1, 2, 3, 4, 5, 6]
    assert recorder.threads == {"model"}


async def test_a_lone_picture_does_not_wait_for_others(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=8) as model:
        answer = await asyncio.wait_for(model.detect(picture(5)), 5)
    assert answer.outputs.scores.shape == (1,)
    assert answer.outputs.masks.shape == (1, 4, 4)
    assert answer.waited >= 0
    assert answer.took >= 0


async def test_a_model_that_fails_on_a_blank_picture_too_is_broken_for_every_later_caller(recorder: Recorder) -> None:
    recorder.lost = True
    async with ModelThread(lambda: recorder, max_batch=1) as model:
        assert model.broken is None
        for value in (13, 1):
            with pytest.raises(ModelBroken, match="device lost"):
                await asyncio.wait_for(model.detect(picture(value)), 5)
        assert recorder.batches == [1, 1], "a broken device is not asked again"


async def test_a_picture_that_the_model_fails_on_alone_is_blamed_alone(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=8) as model:
        first = await held(recorder, model)
        waiting = [asyncio.create_task(model.detect(picture(value))) for value in (1, 2, 13, 3, 4)]
        await asyncio.sleep(0)
        recorder.go.set()
        found = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert isinstance(found.pop(3), PictureFailed)
        assert [float(answer.outputs.scores[0]) for answer in found] == [0, 1, 2, 3, 4]
        assert model.broken is None
        assert float((await model.detect(picture(5))).outputs.scores[0]) == 5


async def test_several_such_pictures_in_a_row_are_the_devices_fault(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=1) as model:
        for _ in range(2):
            with pytest.raises(PictureFailed):
                await model.detect(picture(13))
        with pytest.raises(ModelBroken):
            await model.detect(picture(13))


async def test_a_call_that_lacks_memory_is_repeated_with_fewer_pictures_and_the_next_ones_are_smaller(
    recorder: Recorder,
) -> None:
    recorder.fits = 2
    async with ModelThread(lambda: recorder, max_batch=8) as model:
        first = await held(recorder, model)
        waiting = [asyncio.create_task(model.detect(picture(value))) for value in range(1, 13)]
        await asyncio.sleep(0)
        recorder.go.set()
        answers = await asyncio.gather(first, *waiting)
    assert [float(answer.outputs.scores[0]) for answer in answers] == list(range(13))
    assert recorder.batches == [1, 8, 4, 2, 2, 4, 2, 2, 2, 2]
    assert model.broken is None


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "Failed to allocate memory for requested buffer of size 67108864",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED",
        "OutOfMemory (Requested size was 1073741824 bytes.)",
        "Available memory of 1024 is smaller than requested bytes of 4096",
        "std::bad_alloc",
    ],
)
def test_want_of_memory_is_known_by_what_libraries_say_of_it(said: str) -> None:
    assert lacks_memory(RuntimeError(said))
    assert not lacks_memory(RuntimeError("Reshape: the input does not fit"))


async def test_a_lone_picture_that_found_no_memory_is_not_blamed_for_it(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=4) as model:
        recorder.lacking = 1
        with pytest.raises(MemoryLacking, match="out of memory"):
            await model.detect(picture(1))
        assert recorder.batches == [1, 1], "a blank one of its size found some"
        assert float((await model.detect(picture(1))).outputs.scores[0]) == 1


async def test_the_most_urgent_of_what_waits_goes_first(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=1) as model:
        first, ended = await held(recorder, model), []

        async def ask(value: int, urgency: Urgency) -> None:
            await model.detect(picture(value), urgency)
            ended.append(value)

        order = [(1, Urgency(1, 50, 1)), (2, Urgency(2, 1, 2)), (3, Urgency(1, 40, 3)), (4, Urgency(0, 99, 4))]
        waiting = [asyncio.create_task(ask(*one)) for one in order]
        await asyncio.sleep(0)
        recorder.go.set()
        await asyncio.gather(first, *waiting)
    assert ended == [4, 3, 1, 2]


async def test_a_call_holds_no_more_pixels_than_allowed_and_always_one_picture(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=8, max_pixels=3 * 8 * 8 + 1) as model:
        first = await held(recorder, model)
        waiting = [asyncio.create_task(model.detect(picture(value))) for value in range(1, 5)]
        large = asyncio.create_task(model.detect(np.zeros((16, 16, 3), np.uint8)))
        await asyncio.sleep(0)
        recorder.go.set()
        await asyncio.gather(first, *waiting, large)
    assert recorder.batches == [1, 3, 1, 1]


async def test_a_cancelled_caller_costs_no_model_call(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=4) as model:
        first = await held(recorder, model)
        cancelled = asyncio.create_task(model.detect(picture(1)))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        recorder.go.set()
        await first
    assert recorder.batches == [1]


async def test_a_model_that_does_not_load_fails_the_start() -> None:
    def broken() -> Recorder:
        raise BackendError("no GPU here")

    with pytest.raises(BackendError, match="no GPU here"):
        async with ModelThread(broken, max_batch=1):
            pass


async def test_the_model_is_warm_before_the_first_picture(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=1, warm_up=8):
        assert recorder.batches == [1]


async def test_what_was_queued_before_the_end_is_still_answered(recorder: Recorder) -> None:
    async with ModelThread(lambda: recorder, max_batch=2) as model:
        first = await held(recorder, model)
        waiting = [asyncio.create_task(model.detect(picture(value))) for value in range(1, 4)]
        await asyncio.sleep(0)
        recorder.go.set()
    assert len(await asyncio.gather(first, *waiting)) == 4
    assert not model.is_alive()


async def test_two_models_on_one_device_take_turns(recorder: Recorder) -> None:
    device, other = threading.Lock(), Recorder()
    async with (
        ModelThread(lambda: recorder, max_batch=1, device=device) as model,
        ModelThread(lambda: other, max_batch=1, device=device) as second,
    ):
        first = await held(recorder, model)
        waiting = asyncio.create_task(second.detect(picture(1)))
        await asyncio.sleep(0.1)
        assert other.batches == []
        recorder.go.set()
        await asyncio.gather(first, waiting)
    assert other.batches == [1]


async def test_a_start_that_nobody_waits_for_any_more_ends_by_itself() -> None:
    opening = threading.Event()

    def slow() -> Recorder:
        assert opening.wait(10)
        return Recorder()

    model = ModelThread(slow, max_batch=1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await model.open()
    opening.set()
    await model.close()
    assert not model.is_alive()
