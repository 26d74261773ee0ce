"""When two finals of the same upload say the same."""

from datetime import UTC, datetime

import msgspec
import pytest

from fusebus.contracts.messages import StageTimings
from fusebus.ledger import Final, FinalKind

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FINAL = Final(kind=FinalKind.ANALYSED, at=NOW, analysis_id="a", worker="one")


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        ({}, True),
        ({"at": datetime(2026, 1, 3, tzinfo=UTC)}, True),
        ({"worker": "two", "timings": StageTimings(model=1.0)}, True),
        ({"explanation": "in other words"}, True),
        ({"analysis_id": "b"}, False),
        ({"kind": FinalKind.FAILED}, False),
        ({"reason": "gave_up"}, False),
        ({"duplicate_of": "other"}, False),
    ],
)
def test_finals_agree_when_they_say_the_same_of_the_upload(change: dict[str, object], agrees: bool) -> None:
    assert FINAL.agrees_with(msgspec.structs.replace(FINAL, **change)) is agrees
