from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fusebus.inferencer import telemetry
from fusebus.inferencer.stages import Lap


class Recorded(list[float]):
    """A histogram that keeps its values."""

    def record(self, value: float, attributes: Any = None) -> None:
        self.append(value)


def test_each_image_says_how_long_it_took_and_each_fourth_how_long_in_each_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, stage, wait = Recorded(), Recorded(), Recorded()
    monkeypatch.setattr(telemetry, "_image_seconds", whole)
    monkeypatch.setattr(telemetry, "_stage_seconds", stage)
    monkeypatch.setattr(telemetry, "_wait_seconds", wait)
    monkeypatch.setattr(telemetry, "_images", iter(range(100)))
    laps = [Lap("decode", 1.0, 1.5, 1.75), Lap("model", 1.75, 1.75, 3.75)]
    now = datetime.now(UTC)
    for number in range(8):
        telemetry.passed(laps, now - timedelta(seconds=10), now)
        assert len(stage) == len(wait) == 2 * (number // 4 + 1)
    assert len(whole) == 8
    assert all(10 <= seconds < 60 for seconds in whole)
    assert stage == [0.25, 2.0, 0.25, 2.0]
    assert wait == [0.5, 0.0, 0.5, 0.0]
