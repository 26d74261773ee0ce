"""Actions on encoded messages: what a receiver gets is changed where it was asked, and nowhere else."""

from datetime import UTC, datetime, timedelta

import pytest

from fusebus.servicebus.amqp import sections
from fusebus.servicebus.amqp.types import Int, Symbol, Timestamp
from fusebus.servicebus.engine import FilterError, Message, SqlAction
from fusebus.servicebus.rewriting import rewrite
from fusebus.servicebus.wire_messages import engine_message

BODY = b"\x00\x53\x75\xa0\x03abc"
PROPERTIES = ["m1", None, None, "label", None, None, Symbol("text/plain")]
APPLICATION = {"n": Int(7), "s": "text", "at": Timestamp(1000), "gone": True}


def encoded() -> bytes:
    message = sections.message(PROPERTIES, APPLICATION, None)
    return message[: message.index(b"\x00\x53\x77")] + BODY


def after(action: str, **parameters: object) -> Message:
    message = engine_message(encoded())
    return rewrite(message, SqlAction(action, parameters).changes(message))


def test_fields_and_encoding_say_the_same() -> None:
    changed = after("SET n = n + 1; SET sys.Label = 'new'; SET sys.SessionId = 's'; REMOVE gone; SET fresh = 1.5")
    again = engine_message(changed.raw)
    assert (again.subject, again.session_id, again.message_id) == ("new", "s", "m1")
    assert again.application_properties == changed.application_properties
    assert dict(again.application_properties) == {
        "n": 8,
        "s": "text",
        "at": datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        "fresh": 1.5,
    }


def test_what_is_not_changed_keeps_its_bytes() -> None:
    before = engine_message(encoded())
    assert after("SET n = 8").raw.endswith(BODY)
    assert after("SET n = n").raw == before.raw
    parsed = sections.parse_message(after("SET s = 'other'").raw)
    assert type(parsed.application_properties["n"]) is Int
    assert type(parsed.application_properties["at"]) is Timestamp
    assert type(parsed.properties["content_type"]) is Symbol


def test_every_kind_of_value_can_be_set() -> None:
    given = {
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "span": timedelta(minutes=3),
        "flag": True,
        "big": 2**64 - 1,
        "none": None,
    }
    for name, value in given.items():
        parsed = sections.parse_message(after("SET p = @value; SET q = newid()", value=value).raw)
        assert "p" in parsed.application_properties, name
    assert engine_message(after("SET p = @value", value=given["time"]).raw).application_properties["p"] == given["time"]


def test_properties_are_added_to_a_message_that_has_none() -> None:
    message = Message(BODY, message_id="m")
    changed = rewrite(message, SqlAction("SET a = 1; SET sys.To = 'x'; SET sys.ContentType = 'c'").changes(message))
    again = engine_message(changed.raw)
    assert (again.to, again.content_type, again.application_properties["a"]) == ("x", "c", 1)
    assert changed.raw.endswith(BODY)


def test_the_partition_key_is_an_annotation() -> None:
    assert dict(after("SET sys.PartitionKey = 'k'").annotations) == {"x-opt-partition-key": "k"}
    message = Message(BODY, partition_key="k", annotations={"x-opt-partition-key": "k", "own": 1})
    cleared = rewrite(message, SqlAction("REMOVE sys.PartitionKey").changes(message))
    assert (cleared.partition_key, dict(cleared.annotations)) == (None, {"own": 1})


def test_what_amqp_cannot_carry_is_an_error_of_that_message() -> None:
    with pytest.raises(FilterError, match="cannot be changed so"):
        after("SET sys.ContentType = 'ü'")
