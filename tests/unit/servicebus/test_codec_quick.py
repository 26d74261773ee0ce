"""The quick reading of transfers and dispositions against the general decoder."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.servicebus.amqp.fields import decode_composite
from fusebus.servicebus.amqp.performatives import PERFORMATIVES, Accepted, Disposition, Modified, Rejected, Transfer
from fusebus.servicebus.amqp.quick import quick_performative
from fusebus.servicebus.amqp.types import CodecError

NUMBERS = st.integers(0, 2**32 - 1) | st.integers(0, 300)
FLAGS = st.none() | st.booleans()


def both(data: bytes) -> tuple[Any, Any]:
    return quick_performative(data, 0), decode_composite(data, 0, PERFORMATIVES)


@given(NUMBERS, st.none() | NUMBERS, st.none() | st.binary(max_size=32), st.none() | NUMBERS, FLAGS, st.booleans())
def test_a_usual_transfer_is_read_alike(
    handle: int, number: int | None, tag: bytes | None, form: int | None, settled: bool | None, more: bool
) -> None:
    quick, general = both(Transfer(handle, number, tag, form, settled, more).encoded())
    assert quick == general


@given(st.booleans(), NUMBERS, st.none() | NUMBERS, st.booleans())
def test_a_completion_is_read_alike(role: bool, first: int, last: int | None, settled: bool) -> None:
    quick, general = both(Disposition(role, first, last, settled, Accepted()).encoded())
    assert quick == general


@pytest.mark.parametrize(
    "data",
    [
        "005314c0150b52035201a00400000001435600560040404040400053",
        "005314c0160b52035201a00400000001435601560140404056004053",
        "005315c00d06560152014056000053244540",
        "005315c00e0656015201405601005324455600",
    ],
)
def test_what_the_python_sdk_writes_is_read_quickly_and_alike(data: str) -> None:
    quick = quick_performative(bytes.fromhex(data), 0)
    assert quick is not None
    assert quick == decode_composite(bytes.fromhex(data), 0, PERFORMATIVES)


@pytest.mark.parametrize("state", [Rejected(), Modified(delivery_failed=True), None])
def test_other_outcomes_are_left_to_the_general_decoder(state: Any) -> None:
    assert quick_performative(Disposition(True, 1, None, False, state).encoded(), 0) is None


@pytest.mark.parametrize("field", ["aborted", "resume", "batchable"])
def test_rare_fields_of_a_transfer_are_left_to_the_general_decoder(field: str) -> None:
    assert quick_performative(Transfer(0, 1, b"t", 0, **{field: True}).encoded(), 0) is None


@given(st.sampled_from([b"\x00\x53\x14\xc0", b"\x00\x53\x15\xc0"]), st.binary(max_size=80))
def test_bytes_that_are_read_quickly_mean_the_same_to_the_general_decoder(head: bytes, rest: bytes) -> None:
    quick = quick_performative(head + rest, 0)
    if quick is not None:
        assert quick == decode_composite(head + rest, 0, PERFORMATIVES)


@given(st.lists(st.sampled_from([0x40, 0x41, 0x42, 0x43, 0x52, 0x56, 0x70, 0xA0, 0, 1, 0x24, 0x45, 0x53]), max_size=40))
def test_likely_bytes_too(parts: list[int]) -> None:
    fields = bytes(parts)
    for code in (0x14, 0x15):
        for count in range(3, 12):
            data = bytes((0x00, 0x53, code, 0xC0, len(fields) + 1, count)) + fields
            if (quick := quick_performative(data, 0)) is not None:
                try:
                    assert quick == decode_composite(data, 0, PERFORMATIVES)
                except CodecError as error:
                    pytest.fail(f"{data.hex()} is not AMQP: {error}")
