"""The port to a durable store: what the engine says about each durable change, and what it is rebuilt from.

One call of the engine (a batch sent, a settlement, a tick) may say several things; they belong together, so a store
commits only between calls of the engine, never inside one. Methods must be quick (append to a buffer) and must not
call the engine. The values that they are given may change after they return: a store copies or encodes them at once.
Locks, consumers and credit are not durable: after a restart every message is as if its lock had been released.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.settings import QueueSettings, Rule, SubscriptionSettings, TopicSettings

IDS_PER_ENTITY: Final = 4
DEAD_LETTER_OFFSET: Final = 1
TRANSFER_DEAD_LETTER_OFFSET: Final = 2


@dataclass(frozen=True, slots=True)
class EntityImage:
    """A queue, topic or subscription without its messages.

    `id` is a multiple of IDS_PER_ENTITY that no living entity shares; the entity's own mailbox has that number, its
    dead-letter queue `id` + 1, its transfer dead-letter queue `id` + 2. What it is follows from `settings`.
    """

    id: int
    path: str
    """As created; of a subscription `topic/Subscriptions/name`."""
    settings: QueueSettings | TopicSettings | SubscriptionSettings
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SessionImage:
    """The state of one session; without a state there is nothing to keep."""

    mailbox_id: int
    session_id: str
    state: bytes
    updated_at: float


@dataclass(frozen=True, slots=True)
class DuplicateImage:
    """A message id that an entity has seen; `key` is the id, with its partition where that counts."""

    entity_id: int
    key: str
    sequence_number: int
    seen_at: float


class Journal(Protocol):
    """One method per kind of durable change, called in the order in which the changes happen."""

    refusal: str | None
    """Why nothing new can be stored at the moment, such as a full disk; sends are refused with this sentence."""

    def entity_saved(self, image: EntityImage) -> None:
        """Created, or settings changed: replaces what is known of this id."""

    def entity_deleted(self, entity_id: int) -> None:
        """Gone with its rules, sessions and history; the messages of its mailboxes were removed one by one before."""

    def rule_saved(self, entity_id: int, rule: Rule) -> None:
        """Created or changed; names are unique in a subscription whatever their case."""

    def rule_deleted(self, entity_id: int, name: str) -> None: ...

    def message_stored(self, mailbox_id: int, record: Record) -> None:
        """New in this mailbox, under `record.sequence_number`; a move is a removal and then this."""

    def message_changed(self, mailbox_id: int, record: Record) -> None:
        """Delivery count, state or modified properties changed."""

    def message_removed(self, mailbox_id: int, record: Record) -> None:
        """Said before the record gets another number elsewhere."""

    def numbers_taken(self, mailbox_id: int, last: int) -> None:
        """The sequence number `last` was given without storing a message under it, as topics do."""

    def session_saved(self, mailbox_id: int, session_id: str, state: bytes | None, updated_at: float) -> None:
        """The session's state was set; None: there is none any more."""

    def duplicate_seen(self, image: DuplicateImage) -> None: ...

    def duplicates_forgotten(self, entity_id: int, seen_until: float) -> None:
        """What was seen at or before that instant no longer counts."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything durable, for `Engine.restore`; each iterable is gone through once, in the order of the fields.

    What names an entity or mailbox that does not exist is left out and reported by `restore`.
    """

    entities: Iterable[EntityImage] = ()
    """Topics before their subscriptions."""
    rules: Iterable[tuple[int, Rule]] = ()
    """(entity id, rule)"""
    last_numbers: Mapping[int, int] = field(default_factory=dict)
    """Mailbox id -> the last number taken or stored, even if that message is gone: numbers never repeat."""
    sessions: Iterable[SessionImage] = ()
    records: Iterable[tuple[int, Record]] = ()
    """(mailbox id, record), with growing sequence numbers within a mailbox."""
    duplicates: Iterable[DuplicateImage] = ()
    """By `seen_at`, oldest first."""
