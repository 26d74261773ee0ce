"""The broker without a network: sends, deliveries, settlements and timers over the entities of one namespace."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.entities import Entity, RuntimeCounts
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.messages import Delivery, Message, ReceiveMode
from fusebus.servicebus.engine.namespace import Namespace


class Engine:
    """Single-threaded and synchronous; time comes only from `clock` (seconds since the epoch, UTC).

    Every public call first runs the timers that are due, so locks, expiry and schedules are exact even when
    `tick` comes late; then it acts; then it hands ready messages to waiting consumers by their callbacks.
    Callbacks may call the engine again (settle, add credit, detach); they must not raise.

    Paths are case-insensitive: `queue`, `topic`, `topic/Subscriptions/sub`, and `<queue or subscription>/$DeadLetterQueue`.
    Every method that takes a path raises EntityNotFound for an unknown one.

    `engine.namespace` creates, changes, lists and deletes entities (see Namespace).
    """

    namespace: Namespace
    on_next_timer: Callable[[float], None] | None
    """Set by the front: called with the new time whenever the earliest timer became earlier."""

    def __init__(self, clock: Callable[[], float], *, new_token: Callable[[], UUID] = uuid4) -> None:
        """`new_token` makes lock tokens; give a seeded one for repeatable simulations."""

    def resolve(self, path: str) -> Entity:
        """The entity behind a path, with `.path` (as created), `.kind`, `.can_send`, `.can_receive`."""

    # Sending

    def send(self, path: str, messages: Sequence[Message]) -> list[int]:
        """Enqueue all messages or none, in order; returns their sequence numbers.

        A message whose `scheduled_enqueue_time` lies ahead waits until then; its number is good for
        `cancel_scheduled`. A duplicate is swallowed and answers with the number of the first.
        Raises EntityDisabled, NotAllowed (a subscription or dead-letter queue), QuotaExceeded, InvalidArgument.
        """

    def cancel_scheduled(self, path: str, sequence_numbers: Sequence[int]) -> None:
        """Remove scheduled messages, all or none; raises MessageNotFound."""

    # Receiving

    def attach_consumer(
        self,
        path: str,
        on_delivery: Callable[[Delivery], None],
        mode: ReceiveMode = ReceiveMode.PEEK_LOCK,
        on_closed: Callable[[EngineError], None] | None = None,
    ) -> Consumer:
        """A consumer without credit; `consumer.set_credit(n)` or `add_credit(n)` starts deliveries at once.

        Messages go out in the order of their sequence numbers, to consumers with credit in turn.
        `on_closed` is called when the entity is deleted or disabled. `consumer.detach()` ends it: its
        locks stay until they are settled or expire, as in the service.
        Raises EntityDisabled, NotAllowed (a topic).
        """

    def receive(self, path: str, count: int, mode: ReceiveMode = ReceiveMode.PEEK_LOCK) -> list[Delivery]:
        """Up to `count` messages that are ready now; never waits."""

    def receive_deferred(
        self, path: str, sequence_numbers: Sequence[int], mode: ReceiveMode = ReceiveMode.PEEK_LOCK
    ) -> list[Delivery]:
        """Deferred messages by number, all or none; raises MessageNotFound."""

    def peek(self, path: str, from_sequence_number: int, count: int) -> list[Delivery]:
        """Look at up to `count` messages from that number on: active (locked too), deferred and scheduled."""

    # Settling: `path` is that of the entity the message was received from; all raise MessageLockLost

    def complete(self, path: str, lock_token: UUID) -> None:
        """The message is done and gone."""

    def abandon(self, path: str, lock_token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Back to its place with delivery count + 1, or to the dead letters when that reaches the limit."""

    def defer(self, path: str, lock_token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Put aside; only `receive_deferred` finds it again. Delivery count + 1."""

    def dead_letter(
        self,
        path: str,
        lock_token: UUID,
        reason: str | None = None,
        description: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Move to the dead-letter queue, with DeadLetterReason and DeadLetterErrorDescription where given."""

    def release(self, path: str, lock_token: UUID) -> None:
        """Back to its place as if it had not been delivered: same delivery count."""

    def renew_lock(self, path: str, lock_token: UUID) -> float:
        """Lock it again for the entity's lock duration from now; returns the new `locked_until`."""

    # Time

    def next_timer(self) -> float | None:
        """When `tick` has something to do next; None when nothing is pending."""

    def tick(self) -> None:
        """Run what is due: lock expiry, schedules, time to live; then deliver."""

    # Counts

    def counts(self, path: str) -> RuntimeCounts:
        """True counts of a queue, topic or subscription; locked messages count as active, like the service."""

    def purge(self, path: str) -> int:
        """Remove every message of one entity (not of its dead-letter queue); returns how many."""
