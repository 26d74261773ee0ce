"""Traces: what is read, and what is refused with the line's number."""

import pytest

from fusebus.planning.simulation import Lump
from fusebus.planning.simulation.trace import TraceError, read_trace


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "arrivals.csv"
        path.write_text(text)
        return path

    return write


def test_seconds_and_moments_are_read_and_begin_at_zero(written):
    plain = read_trace(written("at,images\n100,5\n40,3\n"))
    assert plain.lumps == (Lump(0.0, 3), Lump(60.0, 5))
    moments = read_trace(written("at,images,kind\n2026-03-01T08:00:00Z,5,convert\n2026-03-01T08:01:00+00:00,1,\n"))
    assert moments.lumps == (Lump(0.0, 5, "convert"), Lump(60.0, 1))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("when,images\n1,2\n", "columns"),
        ("at,images\n", "no arrivals"),
        ("at,images\n1,2\n2,many\n", "line 3"),
        ("at,images\n1,0\n", "1 or more"),
        ("at,images\nnan,1\n", "no moment"),
        ("at,images\n2026-03-01T08:00:00,1\n", "has no zone"),
        ("at,images,kind\n1,1,paint\n", "kind"),
        ("at,images\n1,999999999\n", "more than"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_place(written, text, part):
    with pytest.raises(TraceError, match=part):
        read_trace(written(text))
