"""Rows as table columns: whatever a name holds comes back, and no key can hold what a table refuses."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.contracts.messages import StageTimings, StoredBlob
from fusebus.ledger import Final, FinalKind, ImageFacts, UploadRow
from fusebus.ledger.columns import MAX_TEXT_UNITS, from_columns, key, to_columns
from fusebus.ledger.runs import inverted

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
UPLOAD = UploadRow(
    upload_id="ab" * 16,
    run_id="20260102T030405Z-acme-abababab",
    supplier="acme",
    container="in-acme",
    blob_name="photo.jpg",
    blob_etag="0x8D",
    size=2**40,
    uploaded_at=NOW,
    entered_at=NOW,
    image=ImageFacts(image_id="cd" * 16, sha256="ef" * 32, format="jpeg", width=4000, height=3000),
    final=Final(
        kind=FinalKind.ANALYSED,
        at=NOW,
        best_score=1.0,
        annotated=StoredBlob(container="results", name="annotated/x.jpg"),
        timings=StageTimings(download=0.25, model=1.0),
    ),
)


def test_a_row_comes_back_from_its_columns() -> None:
    columns = to_columns(UPLOAD)
    assert "version" not in columns
    assert columns["final__kind"] == "analysed"
    assert from_columns(columns, UploadRow, version="W/1") == msgspec.structs.replace(UPLOAD, version="W/1")


def test_what_is_not_known_is_no_column() -> None:
    columns = to_columns(msgspec.structs.replace(UPLOAD, image=None, final=None))
    assert not [name for name in columns if name.startswith(("image", "final"))]


def test_a_column_of_a_later_release_is_passed_over() -> None:
    assert from_columns({**to_columns(UPLOAD), "colour": "blue"}, UploadRow) == UPLOAD


@given(st.text(st.characters(codec=None), max_size=1024))
def test_any_blob_name_comes_back_and_travels_without_characters_a_table_might_drop(name: str) -> None:
    columns = to_columns(msgspec.structs.replace(UPLOAD, blob_name=name))
    assert from_columns(columns, UploadRow).blob_name == name
    stored = columns["blob_name"]
    stored.encode("utf-8")  # no lone surrogate
    assert not any(ord(character) < 32 or character == "\x7f" for character in stored)


def test_text_that_no_column_keeps_is_refused_not_cut() -> None:
    to_columns(msgspec.structs.replace(UPLOAD, blob_name="\U0001f600" * (MAX_TEXT_UNITS // 2)))
    with pytest.raises(ValueError, match="blob_name"):
        to_columns(msgspec.structs.replace(UPLOAD, blob_name="\U0001f600" * (MAX_TEXT_UNITS // 2) + "a"))


@pytest.mark.parametrize("text", ["", "a/b", "a\\b", "a#b", "a?b", "a\x00", "a\n", "a%2f", "a'b", "\ud800", "a" * 513])
def test_text_that_no_key_can_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        key(text)


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2500, 1, 1)), st.datetimes(datetime(1990, 1, 1), datetime(2500, 1, 1))
)
def test_a_later_moment_comes_first_among_names(one: datetime, two: datetime) -> None:
    one, two = one.replace(tzinfo=UTC), two.replace(tzinfo=UTC)
    assert (one < two) == (inverted(one) > inverted(two))
