"""Every file of the corpus gets the verdict it deserves, in time, within its memory, and no metadata leaks."""

import msgspec
import numpy as np
import pytest
from picture_bytes import SECRET
from pictures import Case, corpus

from fusebus.contracts.messages import RejectReason
from fusebus.validation import ForkServer, Verdict, explanation
from fusebus.vision import decode

SECONDS = 10.0  # on a crowded machine; what is usual, the README says
BYTES = 512_000_000
JPEG_PARTS = {0xC0, 0xC4, 0xDA, 0xDB, 0xE0}
"""Markers that a picture of nothing but pixels has: frame, tables, scan, and the fixed eighteen bytes of JFIF."""
JFIF_BYTES = 16

CASES = corpus()
QUICK_EVERY = 6
"""One in so many is judged each time, all of them in the long tests."""
_verdicts: dict[str, Verdict] = {}


def chosen(cases: list[Case]) -> list[object]:
    marks = [() if number % QUICK_EVERY == 0 else (pytest.mark.long,) for number in range(len(cases))]
    return [pytest.param(case, id=case.name, marks=mark) for case, mark in zip(cases, marks, strict=True)]


def verdict_on(case: Case, server: ForkServer) -> Verdict:
    if case.name not in _verdicts:
        _verdicts[case.name] = server.check(case.data, derivative=True)
    return _verdicts[case.name]


def segments(jpeg: bytes) -> list[tuple[int, bytes]]:
    """Marker and content of each segment before the scan's data."""
    found, position = [], 2
    while not found or found[-1][0] != 0xDA:
        length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
        found.append((jpeg[position + 1], jpeg[position + 4 : position + 2 + length]))
        position += 2 + length
    return found


def test_the_corpus_is_large_and_made_alike_each_time() -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert min(sum(not case.reasons for case in CASES), sum(bool(case.reasons) for case in CASES)) >= 100


@pytest.mark.parametrize("case", chosen(CASES))
def test_the_verdict_is_right_and_in_time(case: Case, server: ForkServer) -> None:
    verdict = verdict_on(case, server)
    assert ("accept" if verdict.accepted else "reject", verdict.reason in (case.reasons or (None,))) == (
        case.verdict,
        True,
    ), verdict
    assert "unforeseen" not in verdict.detail
    assert verdict.cost.wall_seconds < SECONDS
    assert verdict.cost.peak_bytes < BYTES
    if verdict.reason is not None:
        assert verdict.detail.isprintable()
        assert explanation(verdict.reason, max_bytes=1_000_000, max_pixels=1_000_000).endswith(".")


@pytest.mark.parametrize("case", chosen([case for case in CASES if not case.reasons]))
def test_an_accepted_picture_is_rebuilt_upright_from_its_pixels_alone(case: Case, server: ForkServer) -> None:
    verdict = verdict_on(case, server)
    assert verdict.facts is not None
    pixels = decode(verdict.derivative)
    assert case.size is None or pixels.shape[1::-1] == case.size
    if case.colour is not None:
        assert np.abs(pixels.astype(int) - case.colour).max() < 12
    parts = segments(verdict.derivative)
    assert {kind for kind, _ in parts} <= JPEG_PARTS
    assert all(len(content) <= JFIF_BYTES for kind, content in parts if kind == 0xE0)
    assert verdict.derivative.endswith(b"\xff\xd9")
    assert SECRET[:12] not in verdict.derivative + msgspec.json.encode(verdict.facts)
    assert (verdict.facts.captured_at, verdict.facts.camera) == case.kept
    assert case.quality is None or verdict.facts.quality == case.quality


def test_every_reason_that_bytes_can_have_is_in_the_corpus() -> None:
    of_blobs = {RejectReason.BLOB_VANISHED, RejectReason.BLOB_CHANGED, RejectReason.BLOB_TYPE, RejectReason.TOO_LARGE}
    assert {reason for case in CASES for reason in case.reasons} == set(RejectReason) - of_blobs
