import pytest

from fusebus.inferencer.policy import BEFORE_MEASURED, Pace, Times, slots


@pytest.mark.parametrize(
    ("times", "lock", "most", "number", "because"),
    [
        (None, 60.0, 32, BEFORE_MEASURED, "measured"),
        (None, 60.0, 2, 2, "measured"),
        (Times(path=0.4, step=0.03), 60.0, 32, 25, "busy"),
        (Times(path=0.4, step=0.03), 60.0, 16, 16, "setting"),
        (Times(path=0.4, step=0.03), 0.0, 64, 25, "busy"),
        (Times(path=6.0, step=5.0), 60.0, 32, 5, "half a lock"),
        (Times(path=40.0, step=30.0), 60.0, 32, 1, "half a lock"),
        (Times(path=0.4, step=0.03), 1.0, 32, 4, "half a lock"),
    ],
)
def test_enough_are_held_to_keep_the_model_busy_and_no_more_than_half_a_lock_allows(
    times: Times | None, lock: float, most: int, number: int, because: str
) -> None:
    chosen = slots(times, lock, most, batch=4)
    assert chosen.number == number
    assert because in chosen.because
    if times is not None and lock and number > 1:
        assert times.path + (number - 1) * times.step <= lock / 2


@pytest.mark.parametrize(("step", "each"), [(0.03, 26), (1.0, 9), (5.0, 1), (20.0, 1)])
def test_all_lanes_together_hold_no_more_than_half_a_lock_allows(step: float, each: int) -> None:
    times = Times(path=step + 0.4, step=step)
    chosen = slots(times, 60.0, 32, batch=4 if step < 1 else 8, lanes=3)
    assert chosen.number == each
    if each > 1:
        assert times.path + (3 * each - 1) * step <= 30.0


def test_the_pace_follows_what_images_take() -> None:
    pace = Pace(most=64, batch=1, threads=2, downloads=64)
    assert pace.limit(60.0) == BEFORE_MEASURED
    quick = {"download": 0.02, "decode": 0.02, "model": 0.03, "annotate": 0.02, "upload": 0.03}
    for _ in range(50):
        pace.learn(quick, 0.03)
    before = pace.limit(60.0)
    assert 8 <= before <= 20
    for _ in range(50):
        pace.learn(quick | {"download": 2.0}, 0.03)
    assert pace.limit(60.0) == 64, "what takes long to come must be asked for early"
    for _ in range(200):
        pace.learn(quick | {"model": 20.0}, 20.0)
    assert pace.limit(60.0) == 1


def test_where_the_codecs_are_slower_than_the_model_they_set_the_pace() -> None:
    pace = Pace(threads=2)
    pace.learn({"decode": 0.3, "annotate": 0.5, "model": 0.01}, 0.01)
    assert pace.times is not None
    assert pace.times.step == pytest.approx(0.4)


def test_where_storage_is_slow_no_more_are_held_than_it_can_bring_in_half_a_lock() -> None:
    pace = Pace(most=64, batch=1, threads=2, downloads=8, uploads=4)
    pace.learn({"download": 8.0, "decode": 0.02, "annotate": 0.02, "upload": 0.1}, 0.03)
    assert pace.times is not None
    assert pace.times.step == pytest.approx(1.0), "eight at a time, each of eight seconds"
    assert pace.limit(60.0) <= 22
    pace = Pace(most=64, batch=1, threads=2, downloads=8, uploads=4)
    pace.learn({"download": 0.1, "decode": 0.02, "annotate": 0.02, "upload": 8.0}, 0.03)
    assert pace.times is not None
    assert pace.times.step == pytest.approx(2.0)
