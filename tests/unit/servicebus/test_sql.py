"""The SQL language of rules: what each construct means, where its errors are, and what actions change."""

import math
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from fusebus.servicebus.engine import Changes, FilterError, Message, SqlAction, SqlFilter, apply_changes
from fusebus.servicebus.engine.sql import MAX_EXPRESSION_CHARACTERS, MAX_STATEMENTS, SqlSyntaxError

MESSAGE = Message(
    b"12345",
    message_id="m1",
    subject="order.eu",
    session_id="s1",
    ttl_seconds=90,
    scheduled_enqueue_time=0.0,
    application_properties={
        "n": 7,
        "neg": -7,
        "x": 2.5,
        "s": "100%_done",
        "flag": True,
        "none": None,
        "Mixed Case": "y",
        "to": "user's own",
        "at": datetime(2026, 1, 2, tzinfo=UTC),
        "in": 3,
    },
)

TRUE = [
    # arithmetic, by rank and from left to right
    "n + 3 * 2 = 13",
    "(n + 3) * 2 = 20",
    "n - 3 - 2 = 2",
    "n / 2 = 3 AND neg / 2 = -3 AND n / -2 = -3",  # truncated, as in C#
    "n % 4 = 3 AND neg % 4 = -3 AND neg % -4 = -3",
    "n / 2.0 = 3.5",
    "n * x = 17.5",
    "-n = neg AND - -n = n AND +n = n",
    "-n + 8 = 1",
    "2 * -3 = -6",
    "x / 0 > 1e300",  # a double's infinity
    "n + '' = '7' AND 'a' + n + 1 = 'a71' AND 'b' + flag = 'bTrue'",
    "0xFF = 255 AND 0x0 = 0",
    "1.5e2 = 150 AND .5 = 0.5 AND 5. = 5",
    "9223372036854775807 > n",
    # comparisons
    "n > x AND x < n AND n >= 7.0 AND n <= 7 AND n != 8 AND n <> 8",
    "at < @later AND at = @same",
    "at < @naive AND at <> @naive",
    # IN
    "n IN (1, 7)",
    "n IN (7.0)",
    "n NOT IN (1, 2)",
    "n in (3 + 4)",
    "s IN ('a', '100%_done')",
    "n NOT IN (missing, 3)",
    # LIKE
    "s LIKE '100%'",
    "s LIKE '%done'",
    "s LIKE '1__!%!_d%' ESCAPE '!'",
    "s LIKE '%\\%%' ESCAPE '\\'",
    "s NOT LIKE '%x%'",
    "s LIKE '___%_done'",
    "sys.Label LIKE 'order.%' AND NOT sys.Label LIKE 'orderx%'",
    "'' LIKE '' AND '' LIKE '%' AND 'abc' LIKE '%%c' AND 'aXbXc' LIKE 'a%b%c'",
    "'a.c' LIKE 'a.c' AND NOT 'abc' LIKE 'a.c'",
    "'abab' LIKE '%ab' AND NOT 'ab' LIKE 'ab%ab'",
    "s LIKE @pattern ESCAPE @mark",
    # NULL and existence
    "missing IS NULL AND none IS NULL AND n IS NOT NULL",
    "EXISTS(n) AND EXISTS(none) AND NOT EXISTS(missing)",
    "EXISTS(user.n) AND EXISTS(sys.MessageId) AND NOT EXISTS(sys.ReplyTo) AND EXISTS([Mixed Case])",
    # names
    "[mixed case] = 'y' AND \"Mixed Case\" = 'y' AND N = 7",
    "user.to = 'user''s own' AND sys.To IS NULL",
    "user.in = 3 AND [in] = 3",
    "property('n') = 7 AND p('sys.MessageId') = 'm1' AND p('user.' + 'x') = 2.5 AND p('nothing') IS NULL",
    "newid() <> newid()",
    "sys.Size = 5 AND sys.TimeToLive = @span AND sys.ScheduledEnqueueTimeUtc < at AND sys.DeliveryCount = 0",
    "sys.ForcePersistence = FALSE AND sys.State = 0 AND sys.ScheduledEnqueueTime = sys.ScheduledEnqueueTimeUtc",
    "sys.PartitionKey = 's1' AND EXISTS(sys.PartitionKey)",  # the session's, as it has none of its own
    "sys.LockedUntilUtc IS NULL AND sys.LockToken IS NULL AND NOT EXISTS(sys.ViaPartitionKey)",
    "sys.EnqueuedTimeUtc IS NULL AND NOT EXISTS(sys.SequenceNumber)",  # nobody says when it came
    # truth
    "flag = TRUE AND flag != false",
    "NOT NOT n = 7",
    "NOT n = 8 AND n = 7",
    "n = 8 OR n = 7 AND x = 2.5",
    "n = 7 OR missing = 1",
    "NOT (n = 8 AND missing = 1)",
]
NOT_TRUE = [
    "missing = 1 OR NOT missing = 1",
    "missing IN (1)",
    "missing NOT IN (1)",
    "missing LIKE '%'",
    "missing NOT LIKE '%'",
    "s LIKE missing",
    "n LIKE '7'",  # a number is no text
    "n NOT LIKE '8'",
    "missing + 1 = 1 OR -missing = 1",
    "n = NULL OR n <> NULL",
    "n > s OR n <= s",
    "flag > 0",
    "n = 7 AND missing = 1",
    "S LIKE '100!%' ESCAPE '!'",
    "s LIKE 'DONE'",
    "property(missing) = 1",
]
PARAMETERS = {
    "@later": datetime(2027, 1, 1, tzinfo=UTC),
    "same": datetime(2026, 1, 2, tzinfo=UTC),
    "naive": datetime(2026, 1, 2, 0, 0, 1),
    "@pattern": "%!%%",
    "@MARK": "!",
    "span": timedelta(seconds=90),
}


@pytest.mark.parametrize("expression", TRUE)
def test_an_expression_holds(expression: str) -> None:
    assert SqlFilter(expression, PARAMETERS).matches(MESSAGE)


@pytest.mark.parametrize("expression", NOT_TRUE)
def test_an_expression_is_false_or_unknown(expression: str) -> None:
    assert not SqlFilter(expression, PARAMETERS).matches(MESSAGE)


@pytest.mark.parametrize(
    ("expression", "position", "problem"),
    [
        ("a = @b", 5, "parameter @b has no value"),
        ("a = 9223372036854775808", 5, "beyond 64 bits"),
        ("a = 1x", 5, "malformed number"),
        ("a = 1.2.3", 5, "malformed number"),
        ("a = 0xG", 5, "malformed number"),
        ("_a = 1", 1, "unexpected character '_'"),
        ("a = @", 5, "unexpected character '@'"),
        ("a = [b", 5, "unclosed quote"),
        ("a IN ()", 7, "a property or a literal"),
        ("a IN 1", 6, "'('"),
        ("a IN (1,)", 9, "a property or a literal"),
        ("a IN (1", 8, "')'"),
        ("a NOT = 1", 7, "IN or LIKE"),
        ("a LIKE", 7, "a property or a literal"),
        ("a LIKE 'x!' ESCAPE '!'", 8, "ends with its escape"),
        ("a LIKE 'x' ESCAPE '!!'", 8, "not one character"),
        ("a LIKE 'x' ESCAPE", 18, "a property or a literal"),
        ("EXISTS n", 8, "'('"),
        ("EXISTS(1)", 8, "a property name"),
        ("EXISTS(sys.Nothing)", 12, "unknown system property"),
        ("1 IS NULL", 1, "only a property"),
        ("a + 1 IS NULL", 1, "only a property"),
        ("a = b = c", 7, "AND, OR or the end"),
        ("(a = 1) + 2 = 3", 9, "AND, OR or the end"),
        ("2 + (a = 1) = 3", 5, "a value was expected"),
        ("a = (b = c)", 5, "a value was expected"),
        ("a AND b = 1", 3, "a comparison"),
        ("TRUE", 5, "a comparison"),
        ("NOT a", 6, "a comparison"),
        ("-'a' = 1", 1, "no operator -"),
        ("lower(a) = 'x'", 1, "unknown function 'lower'"),
        ("newid(1) = a", 7, "')'"),
        ("a = 1; b = 2", 6, "AND, OR or the end"),
        ("user.sys.a = 1", 9, "a comparison"),
        ("and = 1", 1, "a property or a literal"),
    ],
)
def test_an_error_says_where(expression: str, position: int, problem: str) -> None:
    with pytest.raises(SqlSyntaxError) as refusal:
        SqlFilter(expression)
    assert (refusal.value.position, problem in str(refusal.value)) == (position, True), str(refusal.value)


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("n / 0 = 1", "division by zero"),
        ("n % (n - 7) = 1", "division by zero"),
        ("s - 1 = 1", "no operator - for a string and an integer"),
        ("-s = 1", "no operator - for a string"),
        ("+flag = 1", r"no operator \+ for a boolean"),
        ("flag * 2 = 1", "no operator \\* for a boolean and an integer"),
        ("9223372036854775807 * 4 = 1", "beyond 64 bits"),
        ("property(n) = 1", "must be a string"),
        ("property('sys.Nothing') = 1", "no system property 'Nothing'"),
        ("s LIKE 'x' ESCAPE s", "not one character"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_of_that_message(expression: str, problem: str) -> None:
    with pytest.raises(FilterError, match=problem) as refusal:
        SqlFilter(expression).matches(MESSAGE)
    assert expression in str(refusal.value)


def test_texts_of_an_expression_cannot_grow_without_bound() -> None:
    message = Message(b"", application_properties={"p": "x" * 60_000})
    with pytest.raises(FilterError, match="longer than"):
        SqlFilter("p + p = 'x'").matches(message)
    with pytest.raises(FilterError, match="longer than"):
        SqlFilter("'x' LIKE p").matches(message)
    with pytest.raises(FilterError, match="longer than"):
        SqlFilter("p LIKE 'x'").matches(Message(b"", application_properties={"p": "x" * 70_000}))


def test_the_worst_pattern_is_answered_at_once() -> None:
    message = Message(b"", application_properties={"p": "a" * 60_000})
    assert not SqlFilter(f"p LIKE '{'%a' * 400}b'").matches(message)
    assert not SqlFilter(f"p LIKE '%{'a_' * 400}b%'").matches(message)


def test_long_chains_need_no_deep_stack() -> None:
    assert SqlFilter("1" + "+1" * 500 + "=501").matches(MESSAGE)
    assert SqlFilter("1=1" + " OR 1=1" * 140).matches(MESSAGE)
    assert SqlFilter("(" * 60 + "1=1" + ")" * 60).matches(MESSAGE)
    with pytest.raises(SqlSyntaxError, match="longer than"):
        SqlFilter("1=1" + " " * MAX_EXPRESSION_CHARACTERS)


def test_nan_has_no_order() -> None:
    message = Message(b"", application_properties={"x": math.nan})
    assert not SqlFilter("x < 1 OR x >= 1 OR x = x").matches(message)


# Actions


def changed(expression: str, **parameters: object) -> Changes:
    return SqlAction(expression, parameters).changes(MESSAGE)


@pytest.mark.parametrize(
    ("expression", "changes"),
    [
        ("SET n = n + 1", Changes(properties={"n": 8})),
        ("set N = 'eight'", Changes(properties={"n": "eight"})),
        ("SET fresh = 'a' + n;", Changes(properties={"fresh": "a7"})),
        ("SET user.[new one] = x * 2", Changes(properties={"new one": 5.0})),
        ("SET x = 3", Changes(properties={"x": 3.0})),  # it stays a double
        ("SET fresh = missing", Changes(properties={"fresh": None})),
        ("SET sys.Label = 'l' + 1; SET sys.To = s", Changes(system={"subject": "l1", "to": "100%_done"})),
        ("SET sys.SessionId = NULL", Changes(system={"session_id": None})),
        ("SET sys.CorrelationId = n", Changes(system={"correlation_id": "7"})),
        ("REMOVE n REMOVE missing", Changes(removed=frozenset({"n"}))),
        ("REMOVE sys.MessageId", Changes(system={"message_id": None})),
        ("SET n = 1 SET m = n + 1, REMOVE x; REMOVE MIXED", Changes({}, {"n": 1, "m": 2}, frozenset({"x"}))),
        ("SET a = 1; REMOVE a", Changes()),
        ("SET a = @p", Changes(properties={"a": "given"})),
    ],
)
def test_an_action_changes(expression: str, changes: Changes) -> None:
    assert changed(expression, p="given") == changes


def test_changes_are_made_to_a_copy() -> None:
    after = apply_changes(MESSAGE, changed("SET sys.Label = 'new'; SET n = 1; REMOVE x"))
    assert (after.subject, after.application_properties["n"], "x" in after.application_properties) == ("new", 1, False)
    assert (MESSAGE.subject, MESSAGE.application_properties["n"]) == ("order.eu", 7)


def test_newid_makes_a_uuid_each_time() -> None:
    action = SqlAction("SET id = newid()")
    first, second = (action.changes(MESSAGE).properties["id"] for _ in range(2))
    assert isinstance(first, UUID)
    assert first != second


@pytest.mark.parametrize(
    ("expression", "position", "problem"),
    [
        ("", 1, "SET or REMOVE"),
        ("a = 1", 1, "SET or REMOVE"),
        ("SET", 4, "a property name"),
        ("SET a", 6, "'='"),
        ("SET a = ", 9, "a property or a literal"),
        ("SET a = b = c", 11, "SET, REMOVE or the end"),
        ("SET a = (b = c)", 9, "a value was expected"),
        ("SET a = 1; 2", 12, "SET, REMOVE or the end"),
        ("SET a = 1; DROP b", 12, "SET or REMOVE"),
        ("SET sys.Size = 1", 5, "cannot be changed"),
        ("SET sys.SequenceNumber = 1", 5, "cannot be changed"),
        ("SET sys.Nothing = 1", 9, "unknown system property"),
        ("REMOVE", 7, "a property name"),
        ("REMOVE a b", 10, "SET or REMOVE"),
        ("SET a = 1;" * (MAX_STATEMENTS + 1), 10 * MAX_STATEMENTS + 1, "more than 32 statements"),
    ],
)
def test_an_action_that_is_wrong_says_where(expression: str, position: int, problem: str) -> None:
    with pytest.raises(SqlSyntaxError) as refusal:
        SqlAction(expression)
    assert (refusal.value.position, problem in str(refusal.value)) == (position, True), str(refusal.value)


def test_an_action_that_cannot_be_evaluated_is_an_error_of_that_message() -> None:
    with pytest.raises(FilterError, match="division by zero in the action"):
        changed("SET a = n / 0")
