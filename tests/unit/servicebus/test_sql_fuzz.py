"""The SQL language against hostile text, and against SQLite's opinion of the same expressions."""

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusebus.servicebus.engine import FilterError, InvalidArgument, Message, SqlAction, SqlFilter

WORDS = [
    "AND", "OR", "NOT", "IS", "NULL", "TRUE", "FALSE", "IN", "LIKE", "ESCAPE", "EXISTS", "SET", "REMOVE",
    "sys.", "user.", "sys.Label", "newid()", "p(", "property(", "@p", "a", "b", "[c d]", '"e"', "'%'", "'_x'",
    "1", "2.5", "0x1F", "1e9", "9223372036854775807", "(", ")", ",", ";", "=", "<>", "<", ">=", "+", "-", "*", "/", "%",
]  # fmt: skip
VALUES = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20)
    | st.binary(max_size=8) | st.datetimes() | st.timedeltas() | st.uuids() | st.lists(st.integers(), max_size=3)
)  # fmt: skip
MESSAGES = st.builds(
    lambda properties, label: Message(b"", subject=label, application_properties=properties),
    st.dictionaries(st.sampled_from(["a", "A", "b", "c d", "e", "p"]), VALUES, max_size=4),
    st.none() | st.text(max_size=10),
)
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, MESSAGES)
def test_any_text_is_a_filter_and_an_action_or_a_refusal(text: str, message: Message) -> None:
    for kind in (SqlFilter, SqlAction):
        try:
            made = kind(text, {"@p": "value"})
        except InvalidArgument:
            continue
        try:
            made.matches(message) if isinstance(made, SqlFilter) else made.changes(message)
        except FilterError as error:
            assert text in str(error) or repr(text) in str(error)


def numbers() -> st.SearchStrategy[str]:
    """Arithmetic that cannot fail: no divisor is zero, nothing leaves 64 bits."""
    leaf = st.sampled_from(["a", "b", "missing"]) | st.integers(-50, 50).map(lambda n: f"({n})")

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return (
            st.tuples(inner, st.sampled_from("+-*"), inner).map(" ".join)
            | st.tuples(inner, st.sampled_from("/%"), st.sampled_from(["3", "(-4)", "7"])).map(" ".join)
            | inner.map(lambda text: f"({text})")
            | inner.map(lambda text: f"-({text})")
        )

    return st.recursive(leaf, deeper, max_leaves=5)


def conditions() -> st.SearchStrategy[str]:
    texts = st.sampled_from(["s", "missing", "'ab'", "'b%'"])
    patterns = st.text(alphabet="ab%_!", max_size=5).map(lambda text: f"'{text.replace('!', '!!')}'")
    leaf = (
        st.tuples(numbers(), st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), numbers()).map(" ".join)
        | st.tuples(st.sampled_from(["a", "s", "missing"]), st.sampled_from(["IS NULL", "IS NOT NULL"])).map(" ".join)
        | st.tuples(texts, st.sampled_from(["LIKE", "NOT LIKE"]), patterns).map(
            lambda parts: f"{' '.join(parts)} ESCAPE '!'"
        )
        | st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["IN", "NOT IN"]), st.integers(-3, 3)).map(
            lambda parts: f"{parts[0]} {parts[1]} (1, {parts[2]})"
        )
    )

    def deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return (
            st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(" ".join)
            | inner.map(lambda text: f"NOT {text}")
            | inner.map(lambda text: f"({text})")
        )

    return st.recursive(leaf, deeper, max_leaves=6)


@pytest.fixture(scope="module")
def sqlite() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = ON")
    yield connection
    connection.close()


@settings(max_examples=400, deadline=None)
@given(conditions(), st.integers(-20, 20), st.integers(-20, 20), st.text(alphabet="ab%_!", max_size=6))
def test_conditions_mean_what_sqlite_says(sqlite: sqlite3.Connection, text: str, a: int, b: int, s: str) -> None:
    if len(text) > 1000:
        return
    row = sqlite.execute(f"SELECT {text} FROM (SELECT ? AS a, ? AS b, ? AS s, NULL AS missing)", (a, b, s)).fetchone()
    message = Message(b"", application_properties={"a": a, "b": b, "s": s})
    assert SqlFilter(text).matches(message) == (row[0] == 1)
