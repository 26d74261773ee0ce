"""The part of OData that Batch lists take: `$filter`, `$select`, and pages with a next link."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fusebus.localbatch.entities import BatchProblem

MAX_PAGE = 1000  # Batch's own upper limit of one answer
Item = Mapping[str, Any]
Test = Callable[[Item], bool]

_TOKEN = re.compile(
    r"\s*(?:(?P<punctuation>[(),])"
    r"|(?P<time>datetime'[^']*')"
    r"|(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>-?\d+(?:\.\d+)?)(?![\w/])"
    r"|(?P<word>[A-Za-z_][\w/]*))",
    re.IGNORECASE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda left, right: bool(left == right),
    "ne": lambda left, right: bool(left != right),
    "gt": lambda left, right: bool(left > right),
    "ge": lambda left, right: bool(left >= right),
    "lt": lambda left, right: bool(left < right),
    "le": lambda left, right: bool(left <= right),
}


def matching(items: Sequence[dict[str, Any]], expression: str | None) -> list[dict[str, Any]]:
    """Items that fit: eq, ne, gt, ge, lt, le, and, or, not, parentheses, startswith(); datetime'…' for times."""
    if not expression:
        return list(items)
    test = _Parser(expression).whole()
    return [item for item in items if test(item)]


def selected(item: dict[str, Any], names: str | None) -> dict[str, Any]:
    """Only the named properties, as Batch answers; all without names."""
    if not names:
        return item
    wanted = {name.strip().split("/")[0] for name in names.split(",")}
    return {name: value for name, value in item.items() if name in wanted}


def page(
    items: Sequence[dict[str, Any]], query: Mapping[str, str], key: str
) -> tuple[list[dict[str, Any]], str | None]:
    """The page that `maxresults` and `$skiptoken` ask for, in the order of `key`, and where the next begins.

    The token is the last key that was told: what comes or goes between two pages moves nothing else.
    """
    try:
        size = int(query.get("maxresults", MAX_PAGE))
    except ValueError as error:
        raise BatchProblem(400, "InvalidQueryParameterValue", "maxresults is a number.") from error
    if not 1 <= size <= MAX_PAGE:
        raise BatchProblem(400, "OutOfRangeQueryParameterValue", f"maxresults is a number from 1 to {MAX_PAGE}.")
    after = query.get("$skiptoken", "")
    rest = sorted((item for item in items if str(item[key]) > after), key=lambda item: str(item[key]))
    return rest[:size], str(rest[size - 1][key]) if len(rest) > size else None


class _Parser:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens, self._at = self._split(expression), 0

    def whole(self) -> Test:
        test = self._any()
        if self._peek() is not None:
            raise self._refusal()
        return test

    def _any(self) -> Test:
        tests = [self._all()]
        while self._take_word("or"):
            tests.append(self._all())
        return lambda item: any(test(item) for test in tests)

    def _all(self) -> Test:
        tests = [self._one()]
        while self._take_word("and"):
            tests.append(self._one())
        return lambda item: all(test(item) for test in tests)

    def _one(self) -> Test:
        if self._take_word("not"):
            inner = self._one()
            return lambda item: not inner(item)
        if self._take("punctuation", "("):
            inner = self._any()
            self._expect("punctuation", ")")
            return inner
        if self._take_word("startswith"):
            return self._starts_with()
        name = self._expect("word")
        compare = _COMPARE.get(self._expect("word").lower())
        if compare is None:
            raise self._refusal()
        wanted = self._value()
        return lambda item: _compared(item, name, compare, wanted)

    def _starts_with(self) -> Test:
        self._expect("punctuation", "(")
        name = self._expect("word")
        self._expect("punctuation", ",")
        start = self._expect("text")[1:-1].replace("''", "'")
        self._expect("punctuation", ")")
        return lambda item: str(_property(item, name) or "").startswith(start)

    def _value(self) -> Any:
        token = self._peek()
        self._at += 1
        match token:
            case ("text", text):
                return text[1:-1].replace("''", "'")
            case ("number", text):
                return float(text)
            case ("time", text):
                return self._time(text)
            case ("word", "true" | "false" | "null" as word):
                return {"true": True, "false": False, "null": None}[word]
        raise self._refusal()

    def _time(self, text: str) -> datetime:
        try:
            return time_of(text[text.index("'") + 1 : -1])
        except ValueError as error:
            raise self._refusal() from error

    def _split(self, expression: str) -> list[tuple[str, str]]:
        tokens, at, text = [], 0, expression.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._refusal()
            tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        return tokens

    def _peek(self) -> tuple[str, str] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, kind: str, text: str) -> bool:
        found = self._peek()
        taken = found is not None and found[0] == kind and found[1].lower() == text
        self._at += taken
        return taken

    def _take_word(self, word: str) -> bool:
        return self._take("word", word)

    def _expect(self, kind: str, text: str | None = None) -> str:
        found = self._peek()
        if found is None or found[0] != kind or text not in (None, found[1]):
            raise self._refusal()
        self._at += 1
        return found[1]

    def _refusal(self) -> BatchProblem:
        return BatchProblem(
            400, "InvalidQueryParameterValue", f"The filter {self._expression!r} is not supported here."
        )


def time_of(text: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC. Raises ValueError."""
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _property(item: Item, name: str) -> Any:
    value: Any = item
    for part in name.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _compared(item: Item, name: str, compare: Callable[[Any, Any], bool], wanted: Any) -> bool:
    value = _property(item, name)
    if isinstance(wanted, datetime) and isinstance(value, str):
        value = time_of(value)
    try:
        return compare(value, wanted)
    except TypeError:  # one is missing, or they are of different kinds: only `ne` can be true
        return False
