"""Filters: what they take, and where their text is wrong."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.servicebus.engine import CorrelationFilter, FalseFilter, InvalidArgument, Message, SqlFilter, TrueFilter
from fusebus.servicebus.engine.sql import MAX_NESTING, SqlSyntaxError

MESSAGE = Message(
    b"",
    message_id="m1",
    correlation_id="c1",
    subject="greeting",
    application_properties={
        "kind": "detect",
        "count": 3,
        "ratio": 0.5,
        "big": True,
        "it's": "quoted",
        "odd name": "x",
        "when": datetime(2026, 1, 1, tzinfo=UTC),
    },
)

TRUE = [
    "kind = 'detect'",
    "KIND = 'detect'",  # names of properties know no upper and lower case
    "user.kind = 'detect' and Counts IS null",
    "kind <> 'convert'",
    "kind != 'convert'",
    "count = 3 AND ratio = .5",
    "count = 3.0",
    "count > 2 AND count >= 3 AND count < 4 AND count <= 3",
    "count = +3 AND count > -1",
    "ratio = 5e-1",
    "big = TRUE",
    "NOT big = false",
    "only IS NULL OR only = 'detect'",
    "kind IS NOT NULL",
    "sys.MessageId = 'm1' AND sys.label = 'greeting' AND sys.Subject = 'greeting'",
    "sys.CorrelationId='c1'",
    "sys.To IS NULL",
    "[odd name] = 'x'",
    "\"odd name\" = 'x'",
    "[it's] = 'quoted'",
    "1 = 1",
    "NOT (missing = 1 AND 1 = 2)",
    "1=2 OR 1=2 AND 1=2 OR 1=1",
    "(1=1 OR 1=1) AND NOT 1=2",
    "kind > 'a'",
    "'it''s' = 'it''s'",
]
NOT_TRUE = [
    "kind = 'Detect'",
    "missing = 1",
    "missing <> 1",  # unknown, not true
    "NOT missing = 1",
    "missing = 1 OR missing <> 1",
    "kind = 3",
    "big = 1",  # a bool is no number
    "kind < 3",  # no order between kinds
    "NOT kind < 3",
    "(1=1 OR 1=1) AND 1=2",
    "1 > 1",
]
WRONG = [
    ("", 1, "a property or a literal"),
    ("kind", 5, "a comparison"),
    ("kind = ", 8, "a property or a literal"),
    ("kind = 'detect", 8, "unclosed quote"),
    ("kind = 'a' kind", 12, "AND, OR or the end"),
    ("(kind = 'a'", 12, "')'"),
    ("kind IS 3", 9, "NULL"),
    ("kind = 3 AND", 13, "a property or a literal"),
    ("kind ~ 3", 6, "unexpected character"),
    ("other.kind = 3", 1, "unknown scope"),
    ("sys.Nothing = 3", 5, "unknown system property"),
    ("a = = 1", 5, "a property or a literal"),
]


@pytest.mark.parametrize("expression", TRUE)
def test_an_expression_takes_a_message_for_which_it_is_true(expression: str) -> None:
    assert SqlFilter(expression).matches(MESSAGE)


@pytest.mark.parametrize("expression", NOT_TRUE)
def test_an_expression_that_is_false_or_unknown_takes_nothing(expression: str) -> None:
    assert not SqlFilter(expression).matches(MESSAGE)


@pytest.mark.parametrize(("expression", "position", "problem"), WRONG)
def test_a_wrong_expression_is_refused_with_its_position(expression: str, position: int, problem: str) -> None:
    with pytest.raises(SqlSyntaxError) as refusal:
        SqlFilter(expression)
    assert refusal.value.position == position
    assert problem in str(refusal.value)
    assert f"at position {position}" in str(refusal.value)


@pytest.mark.parametrize("opening", ["(", "NOT "])
def test_deep_nesting_is_refused_before_the_stack_runs_out(opening: str) -> None:
    with pytest.raises(SqlSyntaxError, match="nested deeper"):
        SqlFilter(opening * (MAX_NESTING + 1) + "1=1")
    with pytest.raises(SqlSyntaxError, match="longer than"):
        SqlFilter(opening * 2000)


@given(st.text(max_size=60) | st.text(alphabet="()=<>'\"[]. aANDORTIS1", max_size=60))
def test_any_text_is_a_filter_or_a_refusal(text: str) -> None:
    try:
        found = SqlFilter(text)
    except InvalidArgument:
        return
    assert found.matches(MESSAGE) in (True, False)


@given(st.text(), st.text())
def test_any_string_can_be_compared_by_quoting_it(left: str, right: str) -> None:
    quoted = "'" + left.replace("'", "''") + "'"
    if len(quoted) > 900:
        return
    assert SqlFilter(f"value = {quoted}").matches(Message(b"", application_properties={"value": right})) == (
        left == right
    )


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (CorrelationFilter(correlation_id="c1"), True),
        (CorrelationFilter(correlation_id="c1", subject="greeting", properties={"kind": "detect"}), True),
        (CorrelationFilter(correlation_id="c1", subject="other"), False),
        (CorrelationFilter(to="somewhere"), False),
        (CorrelationFilter(properties={"kind": "detect", "count": 3}), True),
        (CorrelationFilter(properties={"kind": "DETECT"}), False),
        (CorrelationFilter(properties={"Kind": "detect"}), False),
        (CorrelationFilter(properties={"missing": "x"}), False),
        (CorrelationFilter(properties={"count": 3.0}), True),
        (CorrelationFilter(properties={"count": "3"}), False),
        (CorrelationFilter(properties={"big": 1}), False),
        (CorrelationFilter(properties={"when": datetime(2026, 1, 1, tzinfo=UTC)}), True),
        (CorrelationFilter(), True),
        (TrueFilter(), True),
        (FalseFilter(), False),
    ],
)
def test_a_correlation_filter_wants_every_field_equal(wanted: CorrelationFilter, takes: bool) -> None:
    assert wanted.matches(MESSAGE) is takes
