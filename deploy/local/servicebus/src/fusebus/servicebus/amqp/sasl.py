"""The server's side of SASL: what is offered, and what the client answers."""

from __future__ import annotations

from fusebus.servicebus.amqp.frames import SASL_FRAME, build_frame
from fusebus.servicebus.amqp.performatives import SaslInit, SaslMechanisms, SaslOutcome
from fusebus.servicebus.amqp.types import Array, Symbol

# What the service's clients ask for: Python and JavaScript ANONYMOUS, .NET and Java MSSBCBS, plain AMQP tools PLAIN.
MECHANISMS = ("MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL")
PLAIN = "PLAIN"  # the only one that carries a secret: key name and key
OK, REFUSED = 0, 1


def mechanisms_frame() -> bytes:
    """The server's first SASL frame."""
    offered = SaslMechanisms(mechanisms=Array(Symbol(name) for name in MECHANISMS))
    return build_frame(0, offered.encoded(), kind=SASL_FRAME)


def outcome_frame(code: int) -> bytes:
    """The server's last SASL frame."""
    return build_frame(0, SaslOutcome(code=code).encoded(), kind=SASL_FRAME)


def plain_credentials(init: SaslInit) -> tuple[str, str] | None:
    """(user, password) of a PLAIN response, None if it is malformed."""
    parts = (init.initial_response or b"").split(b"\0")
    if len(parts) != 3:
        return None
    try:
        return parts[1].decode("utf-8"), parts[2].decode("utf-8")
    except UnicodeDecodeError:
        return None
