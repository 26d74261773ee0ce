"""Names of containers and blobs."""

import re
from datetime import UTC, datetime

import pytest

from fusebus.blobs import layout
from fusebus.contracts import identity

RUN = identity.run_id("acme", datetime(2026, 3, 4, 23, 59, tzinfo=UTC), "ab" * 16)
ANALYSIS = "0123456789abcdef" * 2


@pytest.mark.parametrize("supplier", ["ab", "acme", "a-b", "a1-b2-c3", "9" * 60])
def test_a_supplier_is_read_back_from_its_container(supplier: str) -> None:
    container = layout.supplier_container(supplier)
    assert layout.supplier_of(container) == supplier
    assert 3 <= len(container) <= 63


@pytest.mark.parametrize("name", ["", "a", "A1", "-a", "a-", "a--b", "a_b", "a.b", "a" * 61, "ä1", "a/b", "a\n"])
def test_a_name_that_storage_or_we_refuse_is_no_supplier(name: str) -> None:
    assert layout.supplier_of(f"in-{name}") is None
    with pytest.raises(ValueError, match="no supplier name"):
        layout.supplier_container(name)


@pytest.mark.parametrize("container", ["results", "in", "in-", "xin-acme", "acme", "IN-acme"])
def test_another_container_has_no_supplier(container: str) -> None:
    assert layout.supplier_of(container) is None


def test_results_lie_under_the_day_their_run_opened() -> None:
    assert layout.annotated_name(RUN, ANALYSIS) == f"annotated/2026-03-04/{RUN}/{ANALYSIS}.jpg"
    assert layout.result_name(RUN, ANALYSIS) == f"json/2026-03-04/{RUN}/{ANALYSIS}.json"
    assert layout.report_name(RUN) == f"report/{RUN}/index.html"


def test_each_kind_of_result_has_a_place_of_its_own() -> None:
    names = [place(RUN, ANALYSIS) for place in (layout.annotated_name, layout.thumbnail_name, layout.result_name)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9/._-]+", name) for name in names)
