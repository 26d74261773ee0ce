"""The server's side of SASL: what is offered, and who may pass."""

from __future__ import annotations

import hmac

from fusebus.servicebus.amqp.frames import SASL_FRAME, build_frame
from fusebus.servicebus.amqp.performatives import SaslInit, SaslMechanisms, SaslOutcome
from fusebus.servicebus.amqp.types import Array, Symbol

# What the service's clients ask for: Python and JavaScript ANONYMOUS, .NET and Java MSSBCBS, plain AMQP tools PLAIN.
MECHANISMS = ("MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL")
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


def judge(init: SaslInit, key_name: str, key: str, insecure: bool) -> tuple[int, bool]:
    """(outcome code, whether every entity is thereby allowed) for a client's choice.

    Only PLAIN carries a secret (key name and key); the others prove themselves later, through claims.
    """
    if init.mechanism not in MECHANISMS:
        return REFUSED, False
    if init.mechanism != "PLAIN" or insecure:
        return OK, insecure
    given = plain_credentials(init)
    if given is None or given[0] != key_name:
        return REFUSED, False
    if not hmac.compare_digest(given[1].encode("utf-8"), key.encode("utf-8")):
        return REFUSED, False
    return OK, True
