"""What an entity is to the outside: its path, its kind, its settings and its counts."""

from dataclasses import dataclass
from enum import Enum


class EntityKind(Enum):
    QUEUE = "queue"
    TOPIC = "topic"
    SUBSCRIPTION = "subscription"
    DEAD_LETTER = "dead-letter"


class Entity:
    """One addressable thing; see `Engine.resolve`."""

    path: str
    """As created, e.g. `images/Subscriptions/detect/$DeadLetterQueue`."""
    kind: EntityKind
    can_send: bool
    """Kind and status allow it."""
    can_receive: bool
    created_at: float
    updated_at: float
    accessed_at: float


@dataclass(frozen=True, slots=True)
class RuntimeCounts:
    """Messages by state; `active` includes locked ones."""

    active: int
    deferred: int
    scheduled: int
    dead_letter: int
    size_bytes: int

    @property
    def total(self) -> int:
        return self.active + self.deferred + self.scheduled + self.dead_letter
