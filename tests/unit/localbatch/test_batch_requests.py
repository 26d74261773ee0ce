"""Filters, pages, and which requests a fault hits."""

from typing import Any

import pytest

from fusebus.localbatch.entities import BatchProblem
from fusebus.localbatch.odata import matching, page, selected
from fusebus.localbatch.request_faults import Effect, Plane, RequestFaults, Rule

ITEMS: list[dict[str, Any]] = [
    {"id": "a", "state": "active", "size": 3, "info": {"code": 0}, "at": "2026-05-01T10:00:00.5Z", "good": True},
    {"id": "b", "state": "completed", "size": 10, "info": {"code": 7}, "at": "2026-05-02T10:00:00Z", "good": False},
    {"id": "it's", "state": "completed"},
]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("state eq 'completed'", ["b", "it's"]),
        ("id eq 'it''s'", ["it's"]),
        ("size gt 3", ["b"]),
        ("size le 3 or info/code eq 7", ["a", "b"]),
        ("good eq true", ["a"]),
        ("size eq null", ["it's"]),
        ("size ne 3", ["b", "it's"]),
        ("not (state eq 'active') and size ge 10", ["b"]),
        ("state eq 'active' or state eq 'completed' and size eq 10", ["a", "b"]),
        ("(state eq 'active' or state eq 'completed') and size eq 10", ["b"]),
        ("startswith(id, 'it')", ["it's"]),
        ("at ge datetime'2026-05-01T10:00:00.5Z' and at lt DateTime'2026-05-02'", ["a"]),
        ("at gt datetime'2026-05-01T12:00:00+02:00'", ["a", "b"]),
    ],
)
def test_filters_choose(expression: str, found: list[str]) -> None:
    assert [item["id"] for item in matching(ITEMS, expression)] == found


@pytest.mark.parametrize(
    "expression",
    ["state", "state eq", "state like 'x'", "eq 'x'", "(state eq 'x'", "state eq 'x' and", "at gt datetime'soon'", "#"],
)
def test_filters_that_are_none_are_refused(expression: str) -> None:
    with pytest.raises(BatchProblem) as refused:
        matching(ITEMS, expression)
    assert (refused.value.status, refused.value.code) == (400, "InvalidQueryParameterValue")


def test_selected_properties_are_all_that_is_told() -> None:
    assert selected(ITEMS[0], "id,info/code") == {"id": "a", "info": {"code": 0}}
    assert selected(ITEMS[0], None) == ITEMS[0]


def test_pages_neither_skip_nor_repeat_when_things_come_and_go_between_them() -> None:
    items = [{"id": f"{number:02}"} for number in range(10)]
    first, token = page(items, {"maxresults": "4"}, "id")
    assert token is not None
    rest, end = page([{"id": "00a"}, *items[2:]], {"$skiptoken": token, "maxresults": "100"}, "id")
    assert ([item["id"] for item in first + rest], end) == ([item["id"] for item in items], None)


@pytest.mark.parametrize("size", ["0", "1001", "many"])
def test_pages_of_no_size_are_refused(size: str) -> None:
    with pytest.raises(BatchProblem):
        page([], {"maxresults": size}, "id")


def test_a_rule_hits_what_it_is_for_as_often_and_as_long_as_it_says() -> None:
    faults = RequestFaults(rules=[Rule(Effect.ERROR, Plane.DATA, "POST", "/tasks$", left=2, until=100.0)])

    def hit(plane: Plane, method: str, path: str, now: float) -> bool:
        return faults.of(plane, method, path, now) is not None

    assert not hit(Plane.ARM, "POST", "/jobs/w/tasks", 1)
    assert not hit(Plane.DATA, "GET", "/jobs/w/tasks", 1)
    assert not hit(Plane.DATA, "POST", "/jobs/w/tasks/t", 1)
    assert hit(Plane.DATA, "POST", "/jobs/w/tasks", 1)
    assert not hit(Plane.DATA, "POST", "/jobs/w/tasks", 100)
    assert faults.rules == []


def test_a_rate_admits_so_many_requests_a_second_per_plane_and_says_when_to_come_again() -> None:
    faults = RequestFaults(requests_per_second=2)
    hits = [faults.of(Plane.ARM, "GET", "/", now) for now in (0, 0, 0, 0.5, 0.5, 10, 10, 10)]
    assert [rule is not None for rule in hits] == [False, False, True, False, True, False, False, True]
    assert hits[2] is not None and hits[2].retry_after == pytest.approx(0.5)
    assert faults.of(Plane.DATA, "GET", "/", 10) is None
