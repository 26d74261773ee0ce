"""What all addressable things have in common: paths, kinds and counts."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.errors import NotAllowed
from fusebus.servicebus.engine.mailbox import Mailbox
from fusebus.servicebus.engine.messages import MessageState
from fusebus.servicebus.engine.records import Record

DEAD_LETTER_SUFFIX = "/$DeadLetterQueue"
TRANSFER_DEAD_LETTER_SUFFIX = "/$Transfer/$DeadLetterQueue"
SUBSCRIPTIONS = "/Subscriptions/"


class EntityKind(Enum):
    QUEUE = "queue"
    TOPIC = "topic"
    SUBSCRIPTION = "subscription"
    DEAD_LETTER = "dead-letter"
    TRANSFER_DEAD_LETTER = "transfer-dead-letter"


@dataclass(frozen=True, slots=True)
class RuntimeCounts:
    """Messages by state; `active` includes locked ones, of which `deferred` has none.

    `transfer` is always 0: what is forwarded arrives, or not, in the same instant.
    """

    active: int
    deferred: int
    scheduled: int
    dead_letter: int
    size_bytes: int
    transfer: int = 0
    transfer_dead_letter: int = 0

    @property
    def total(self) -> int:
        return self.active + self.deferred + self.scheduled + self.dead_letter + self.transfer_dead_letter


class Entity:
    """One addressable thing. `path` is as created; times are seconds since the epoch, UTC."""

    kind: EntityKind
    mailbox: Mailbox
    accepts_messages = False
    """Whether it is of a kind that takes messages from senders."""
    can_send = False
    can_receive = False
    """Whether kind and status allow it."""

    def __init__(self, core: Core, number: int, path: str) -> None:
        """`number` is its id in the journal."""
        self.id = number
        self.path = path
        self.created_at = self.updated_at = self.accessed_at = core.now
        self._core = core

    def counts(self) -> RuntimeCounts:
        box = self.mailbox
        return RuntimeCounts(
            active=box.count_by_state[MessageState.ACTIVE],
            deferred=box.count_by_state[MessageState.DEFERRED],
            scheduled=box.count_by_state[MessageState.SCHEDULED],
            dead_letter=0,
            size_bytes=box.meter.bytes,
        )

    def parts(self) -> "tuple[Entity, ...]":
        """Itself and its sub-queues."""
        return (self,)

    def watched(self) -> "tuple[Entity, ...]":
        """What must be idle before it deletes itself."""
        return self.parts()

    def forward_targets(self) -> Iterator[str]:
        """The paths of the entities that messages sent here are forwarded to."""
        return iter(())

    def check_sendable(self, added_bytes: int) -> None:
        """Raises NotAllowed, EntityDisabled, QuotaExceeded."""
        raise NotAllowed(f"{self.path}: messages cannot be sent to a {self.kind.value}")

    def accept_forwarded(self, record: Record) -> None:
        """Take a message from another entity; after `check_sendable`."""
        raise NotAllowed(f"{self.path}: messages cannot be sent to a {self.kind.value}")
