"""The performatives and composite types of AMQP 1.0 that travel in frames."""

# ruff: noqa: RUF009 - _of and _map are dataclasses.field() with a kind
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from fusebus.servicebus.amqp.fields import (
    ANY,
    BINARY,
    BOOLEAN,
    MAP,
    STRING,
    SYMBOL,
    SYMBOLS,
    UBYTE,
    UINT,
    ULONG,
    USHORT,
    Composite,
    Kind,
    encode_composite,
    wrap_as,
)

C = TypeVar("C", bound=Composite)

MANY = 0xFFFFFFFF
SENDER, RECEIVER = False, True  # values of a `role` field
UNSETTLED, SETTLED, MIXED = 0, 1, 2  # sender settle modes
FIRST, SECOND = 0, 1  # receiver settle modes


def _of(kind: Kind, default: Any = None) -> Any:
    return field(default=default, metadata={"kind": kind})


def _map() -> Any:
    return field(default=None, metadata={"kind": MAP})


def _wire(code: int, mandatory: int = 0) -> Callable[[type[C]], type[C]]:
    """Gives a composite its descriptor and reads the field table off its dataclass fields."""

    def finish(cls: type[C]) -> type[C]:
        members = fields(cls)  # type: ignore[arg-type]
        cls.CODE, cls.MANDATORY = code, mandatory
        cls.NAMES = tuple(member.name for member in members)
        cls.KINDS = tuple(member.metadata["kind"] for member in members)
        return cls

    return finish


@_wire(0x1D, mandatory=1)
@dataclass(slots=True)
class Error(Composite):
    """Always all three fields: the Python SDK indexes them blindly."""

    condition: str = _of(SYMBOL, "")
    description: str | None = _of(STRING)
    info: dict[Any, Any] | None = _map()

    def encoded(self) -> bytes:
        """The error with an empty map rather than null as information."""
        return Composite.encoded(self if self.info is not None else replace(self, info={}))


ERROR = Kind(encode_composite, object, wrap_as(Error))


@_wire(0x24)
@dataclass(slots=True)
class Accepted(Composite):
    """Outcome: processed."""


@_wire(0x25)
@dataclass(slots=True)
class Rejected(Composite):
    """Outcome: invalid; from a Service Bus receiver it means dead-letter."""

    error: Error | None = _of(ERROR)


@_wire(0x26)
@dataclass(slots=True)
class Released(Composite):
    """Outcome: not processed, and not to be counted."""


@_wire(0x27)
@dataclass(slots=True)
class Modified(Composite):
    """Outcome: abandoned or, with `undeliverable_here`, deferred."""

    delivery_failed: bool | None = _of(BOOLEAN)
    undeliverable_here: bool | None = _of(BOOLEAN)
    message_annotations: dict[Any, Any] | None = _map()


@_wire(0x23, mandatory=2)
@dataclass(slots=True)
class Received(Composite):
    """State: how much of a delivery has arrived."""

    section_number: int = _of(UINT, 0)
    section_offset: int = _of(ULONG, 0)


STATE = Kind(encode_composite, object, wrap_as(Accepted, Rejected, Released, Modified, Received))


@_wire(0x28)
@dataclass(slots=True)
class Source(Composite):
    """Where a link's messages come from."""

    address: Any = _of(ANY)
    durable: int | None = _of(UINT)
    expiry_policy: str | None = _of(SYMBOL)
    timeout: int | None = _of(UINT)
    dynamic: bool | None = _of(BOOLEAN)
    dynamic_node_properties: dict[Any, Any] | None = _map()
    distribution_mode: str | None = _of(SYMBOL)
    filter: dict[Any, Any] | None = _map()
    default_outcome: Any = _of(STATE)
    outcomes: Any = _of(SYMBOLS)
    capabilities: Any = _of(SYMBOLS)


@_wire(0x29)
@dataclass(slots=True)
class Target(Composite):
    """Where a link's messages go."""

    address: Any = _of(ANY)
    durable: int | None = _of(UINT)
    expiry_policy: str | None = _of(SYMBOL)
    timeout: int | None = _of(UINT)
    dynamic: bool | None = _of(BOOLEAN)
    dynamic_node_properties: dict[Any, Any] | None = _map()
    capabilities: Any = _of(SYMBOLS)


SOURCE = Kind(encode_composite, object, wrap_as(Source))
TARGET = Kind(encode_composite, object, wrap_as(Target))


@_wire(0x10, mandatory=1)
@dataclass(slots=True)
class Open(Composite):
    """Negotiates a connection."""

    container_id: str = _of(STRING, "")
    hostname: str | None = _of(STRING)
    max_frame_size: int = _of(UINT, MANY)  # bytes
    channel_max: int = _of(USHORT, 65535)
    idle_time_out: int | None = _of(UINT)  # milliseconds
    outgoing_locales: Any = _of(SYMBOLS)
    incoming_locales: Any = _of(SYMBOLS)
    offered_capabilities: Any = _of(SYMBOLS)
    desired_capabilities: Any = _of(SYMBOLS)
    properties: dict[Any, Any] | None = _map()


@_wire(0x11)
@dataclass(slots=True)
class Begin(Composite):
    """Begins a session on a channel."""

    remote_channel: int | None = _of(USHORT)
    next_outgoing_id: int = _of(UINT, 0)
    incoming_window: int = _of(UINT, 0)  # transfers
    outgoing_window: int = _of(UINT, 0)  # transfers
    handle_max: int = _of(UINT, MANY)
    offered_capabilities: Any = _of(SYMBOLS)
    desired_capabilities: Any = _of(SYMBOLS)
    properties: dict[Any, Any] | None = _map()


@_wire(0x12, mandatory=3)
@dataclass(slots=True)
class Attach(Composite):
    """Attaches a link to a session."""

    name: str = _of(STRING, "")
    handle: int = _of(UINT, 0)
    role: bool = _of(BOOLEAN, SENDER)
    snd_settle_mode: int = _of(UBYTE, MIXED)
    rcv_settle_mode: int = _of(UBYTE, FIRST)
    source: Any = _of(SOURCE)
    target: Any = _of(TARGET)
    unsettled: dict[Any, Any] | None = _map()
    incomplete_unsettled: bool = _of(BOOLEAN, False)
    initial_delivery_count: int | None = _of(UINT)
    max_message_size: int | None = _of(ULONG)  # bytes; 0 and absent: no limit
    offered_capabilities: Any = _of(SYMBOLS)
    desired_capabilities: Any = _of(SYMBOLS)
    properties: dict[Any, Any] | None = _map()


@_wire(0x13)
@dataclass(slots=True)
class Flow(Composite):
    """Windows of a session and, with a handle, credit of a link."""

    next_incoming_id: int | None = _of(UINT)
    incoming_window: int = _of(UINT, 0)
    next_outgoing_id: int = _of(UINT, 0)
    outgoing_window: int = _of(UINT, 0)
    handle: int | None = _of(UINT)
    delivery_count: int | None = _of(UINT)
    link_credit: int | None = _of(UINT)
    available: int | None = _of(UINT)
    drain: bool = _of(BOOLEAN, False)
    echo: bool = _of(BOOLEAN, False)
    properties: dict[Any, Any] | None = _map()


@_wire(0x14, mandatory=1)
@dataclass(slots=True)
class Transfer(Composite):
    """A message, or a piece of one; the payload follows it in the frame."""

    handle: int = _of(UINT, 0)
    delivery_id: int | None = _of(UINT)
    delivery_tag: bytes | None = _of(BINARY)
    message_format: int | None = _of(UINT)
    settled: bool | None = _of(BOOLEAN)
    more: bool = _of(BOOLEAN, False)
    rcv_settle_mode: int | None = _of(UBYTE)
    state: Any = _of(STATE)
    resume: bool = _of(BOOLEAN, False)
    aborted: bool = _of(BOOLEAN, False)
    batchable: bool = _of(BOOLEAN, False)


@_wire(0x15, mandatory=2)
@dataclass(slots=True)
class Disposition(Composite):
    """State of the deliveries `first` to `last` of the other side's `role`."""

    role: bool = _of(BOOLEAN, RECEIVER)
    first: int = _of(UINT, 0)
    last: int | None = _of(UINT)
    settled: bool = _of(BOOLEAN, False)
    state: Any = _of(STATE)
    batchable: bool = _of(BOOLEAN, False)


@_wire(0x16, mandatory=1)
@dataclass(slots=True)
class Detach(Composite):
    """Detaches (`closed`: ends) a link."""

    handle: int = _of(UINT, 0)
    closed: bool = _of(BOOLEAN, False)
    error: Error | None = _of(ERROR)


@_wire(0x17)
@dataclass(slots=True)
class End(Composite):
    """Ends a session."""

    error: Error | None = _of(ERROR)


@_wire(0x18)
@dataclass(slots=True)
class Close(Composite):
    """Ends a connection."""

    error: Error | None = _of(ERROR)


@_wire(0x40)
@dataclass(slots=True)
class SaslMechanisms(Composite):
    """What the server offers."""

    mechanisms: Any = _of(SYMBOLS)


@_wire(0x41, mandatory=1)
@dataclass(slots=True)
class SaslInit(Composite):
    """What the client chose."""

    mechanism: str = _of(SYMBOL, "")
    initial_response: bytes | None = _of(BINARY)
    hostname: str | None = _of(STRING)


@_wire(0x44)
@dataclass(slots=True)
class SaslOutcome(Composite):
    """How authentication ended: 0 ok, 1 refused."""

    code: int = _of(UBYTE, 0)
    additional_data: bytes | None = _of(BINARY)


PERFORMATIVES: dict[int, type[Composite]] = {
    kind.CODE: kind for kind in (Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close)
}
SASL: dict[int, type[Composite]] = {kind.CODE: kind for kind in (SaslMechanisms, SaslInit, SaslOutcome)}
