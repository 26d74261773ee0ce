"""The pictures: what is drawn, and that thinning a month loses no peak."""

import msgspec
import pytest

from fusebus.planning.simulation import Lump, scenarios, simulate
from fusebus.planning.simulation.plots import MOST_POINTS, plot, thinned


def test_a_month_of_looks_is_thinned_and_keeps_every_peak():
    timeline = [(15.0 * k, 50 if k == 77_777 else k % 3, 0, 0.01 * k) for k in range(170_000)]
    found = thinned(timeline, 1, timeline[-1][0])
    assert len(found) <= MOST_POINTS
    assert (15.0 * 77_777, 50) in found
    assert found == sorted(found, key=lambda point: point[0])
    assert (found[0][0], found[-1][0]) == (0.0, timeline[-1][0])


def test_a_short_run_is_drawn_as_it_was():
    timeline = [(0.0, 1, 5, 0.1), (15.0, 2, 4, 0.2)]
    assert thinned(timeline, 2, 15.0) == [(0.0, 5), (15.0, 4)]


def test_a_picture_shows_the_times_without_spot_and_every_policy(tmp_path):
    pytest.importorskip("matplotlib")
    few = msgspec.structs.replace(scenarios()["spot-storm"], lumps=(Lump(0.0, 500),))
    (path,) = plot(simulate(few, ["ours", "keda"]), tmp_path)
    assert path.name == "spot-storm.png"
    assert path.read_bytes().startswith(b"\x89PNG")
