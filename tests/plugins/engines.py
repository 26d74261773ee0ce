"""What tests of the engine share: a clock that stands still, and short words for one queue named q."""

from typing import Any
from uuid import UUID

from fusebus.servicebus.engine import Delivery, Engine, Message

DEAD = "q/$DeadLetterQueue"
START = 1_000.0


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.message.raw for delivery in deliveries]


def send(engine: Engine, *raw: bytes, **fields: Any) -> list[int]:
    return engine.send("q", [Message(body, **fields) for body in raw])


def receive_one(engine: Engine, path: str = "q") -> Delivery:
    (delivery,) = engine.receive(path, 1)
    return delivery


def token_of(delivery: Delivery) -> UUID:
    assert delivery.lock_token is not None
    return delivery.lock_token
