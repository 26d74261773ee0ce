"""The part of OData that Batch lists take: simple filters, and pages with a next link."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fusebus.localbatch.entities import BatchProblem

MAX_PAGE = 1000  # Batch's own upper limit of one answer
_TERM = re.compile(r"\s*(\w+(?:/\w+)?)\s+(eq|ne)\s+('(?:[^']|'')*'|true|false|\d+)\s*")


def matching(items: Sequence[dict[str, Any]], expression: str | None) -> list[dict[str, Any]]:
    """Items that fit `a eq 'x' and b ne 'y' or c eq true` (`and` binds closer; no parentheses)."""
    if not expression:
        return list(items)
    alternatives = [[_term(text) for text in part.split(" and ")] for part in expression.split(" or ")]
    return [item for item in items if any(all(_fits(item, *term) for term in terms) for terms in alternatives)]


def page(items: Sequence[dict[str, Any]], query: Mapping[str, str]) -> tuple[list[dict[str, Any]], int | None]:
    """The page that `maxresults` and `$skiptoken` ask for, and where the next begins."""
    try:
        start, size = int(query.get("$skiptoken", 0)), int(query.get("maxresults", MAX_PAGE))
    except ValueError as error:
        raise BatchProblem(400, "InvalidQueryParameterValue", "maxresults and $skiptoken are numbers.") from error
    size = min(max(size, 1), MAX_PAGE)
    following = start + size if start + size < len(items) else None
    return list(items[start : start + size]), following


def _term(text: str) -> tuple[str, bool, str]:
    match = _TERM.fullmatch(text)
    if match is None:
        raise BatchProblem(400, "InvalidQueryParameterValue", f"The filter {text!r} is not supported here.")
    name, operator, value = match.groups()
    return name, operator == "eq", value[1:-1].replace("''", "'") if value.startswith("'") else value


def _fits(item: dict[str, Any], name: str, equal: bool, wanted: str) -> bool:
    value: Any = item
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, dict) else None
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return (text == wanted) is equal
