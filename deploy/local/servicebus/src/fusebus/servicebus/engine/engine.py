"""The broker without a network: sends, deliveries, settlements and timers over the entities of one namespace."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, cast
from uuid import UUID

from fusebus.servicebus.engine.actions import Changes, apply_changes
from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.destinations import Destination
from fusebus.servicebus.engine.entities import Entity, EntityKind, RuntimeCounts
from fusebus.servicebus.engine.errors import EngineError, EntityDisabled, MessageTooLarge, NotAllowed, QuotaExceeded
from fusebus.servicebus.engine.journal import Journal, Snapshot
from fusebus.servicebus.engine.messages import Delivery, Message, ReceiveMode
from fusebus.servicebus.engine.namespace import Namespace
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.restoring import Restoration
from fusebus.servicebus.engine.session_mailbox import SessionMailbox
from fusebus.servicebus.engine.sessions import DEFAULT_ACCEPT_SECONDS, SessionConsumer, SessionWait
from fusebus.servicebus.engine.tokens import LockTokens

DEFAULT_MAX_MESSAGE_BYTES = 262_144  # the standard tier's


class Engine:
    """Single-threaded and synchronous; time comes only from `clock` (seconds since the epoch, UTC).

    Every public call first runs the timers that are due, so locks, expiry and schedules are exact even when
    `tick` comes late; then it acts; then it hands ready messages to waiting consumers by their callbacks.
    Callbacks may call the engine again (settle, add credit, detach); they must not raise.

    Paths are case-insensitive: `queue`, `topic`, `topic/Subscriptions/sub`, and those of queues and subscriptions
    with `/$DeadLetterQueue` or `/$Transfer/$DeadLetterQueue`.
    Every method that takes a path raises EntityNotFound for an unknown one.

    `engine.namespace` creates, changes, lists and deletes entities (see Namespace).
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        new_token: Callable[[], UUID] | None = None,
        journal: Journal | None = None,
        rewrite: Callable[[Message, Changes], Message] = apply_changes,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        """`new_token` makes lock tokens; give a seeded one for repeatable simulations.

        `journal` is told every durable change; None keeps nothing. `rewrite` makes the changed message that a rule's
        action wants, its `raw` too. `max_message_bytes` is of one message in an entity that has no limit of its own.
        """
        self.max_message_bytes = max_message_bytes
        self._core = Core(clock, new_token or LockTokens())
        self._core.journal = journal
        self._core.rewrite = rewrite
        self._namespace = Namespace(self._core)

    def restore(self, snapshot: Snapshot) -> list[str]:
        """Rebuild an engine that is still empty; the journal is not told what it knows already.

        What was due meanwhile happens at the next call or `tick`, and the journal hears of it. Returns a sentence for
        each thing in the snapshot that could not be used, for the log; raises ValueError if the engine is not empty.
        """
        if not self._namespace.is_empty:
            raise ValueError("only an engine without entities can be restored")
        self._core.set_time()
        restoration = Restoration(self._core, self._namespace)
        restoration.run(snapshot)
        return restoration.problems

    def set_journal(self, journal: Journal | None) -> None:
        """From now on; for an engine that was made before its store."""
        self._core.journal = journal

    def find_record(self, mailbox_id: int, sequence_number: int) -> Record | None:
        """What is stored now under that number, for the journal."""
        mailbox = self._namespace.mailbox(mailbox_id)
        return None if mailbox is None else mailbox.record(sequence_number)

    def last_numbers(self) -> dict[int, int]:
        """The last number taken in each mailbox, by the mailbox's id, for the journal."""
        return self._namespace.last_numbers()

    @property
    def now(self) -> float:
        """The present instant, after running what is due; seconds since the epoch, UTC."""
        self._core.begin()
        return self._core.now

    @property
    def namespace(self) -> Namespace:
        """Creates, changes, lists and deletes entities, at the present instant."""
        self._core.begin()
        return self._namespace

    def on_next_timer(self, callback: Callable[[float], None] | None) -> None:
        """`callback(time)` whenever the earliest timer became earlier, so that a front can set one alarm."""
        self._core.timers.on_earlier = callback

    def resolve(self, path: str) -> Entity:
        """The entity behind a path, with `.path` (as created), `.kind`, `.can_send`, `.can_receive`."""
        return self._namespace.find(path)

    # Sending

    def send(self, path: str, messages: Sequence[Message]) -> list[int]:
        """Enqueue all messages or none, in order; returns their sequence numbers.

        A message whose `scheduled_enqueue_time` lies ahead waits until then; its number is good for
        `cancel_scheduled`. A duplicate is swallowed and answers with the number of the first.
        Raises EntityDisabled, NotAllowed (a subscription or dead-letter queue; no session id where one is needed),
        QuotaExceeded, MessageTooLarge.
        """
        entity = self._begin(path)
        entity.check_sendable(self._checked_size(entity, messages))
        if (journal := self._core.journal) is not None and journal.refusal is not None:
            raise QuotaExceeded(journal.refusal)
        accept = cast("Destination", entity).accept
        numbers = [accept(message) for message in messages]
        self._core.pump()
        return numbers

    def check_sendable(self, path: str) -> None:
        """Whether a sender may attach; raises EntityDisabled, NotAllowed."""
        entity = self._begin(path)
        if isinstance(entity, Destination) and entity.can_send:
            return  # a full entity takes senders, not messages
        entity.check_sendable(0)

    def message_limit(self, path: str) -> int:
        """The most bytes that one message for this entity may have."""
        return self._limit(self._namespace.find(path))

    def _limit(self, entity: Entity) -> int:
        if not entity.accepts_messages:
            return 0
        return cast("Destination", entity).max_message_bytes(self.max_message_bytes)

    def _checked_size(self, entity: Entity, messages: Sequence[Message]) -> int:
        limit = self._limit(entity)
        needs_session = entity.kind is EntityKind.QUEUE and entity.mailbox.has_sessions
        total = 0
        for message in messages:
            size = len(message.raw)
            total += size
            if size > limit > 0:
                raise MessageTooLarge(f"A message of {size} bytes; '{entity.path}' takes at most {limit}.")
            if needs_session and message.session_id is None:
                raise NotAllowed(f"{entity.path}: a message without a session id; the entity requires sessions.")
        return total

    def cancel_scheduled(self, path: str, sequence_numbers: Sequence[int]) -> None:
        """Remove scheduled messages, all or none; raises MessageNotFound."""
        self._begin(path).mailbox.cancel_scheduled(sequence_numbers)

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
        Raises EntityDisabled, NotAllowed (a topic; an entity that requires sessions or forwards its messages).
        """
        mailbox = self._receivable(path).mailbox
        if mailbox.has_sessions:
            raise NotAllowed(f"{mailbox.path}: the entity requires sessions: accept one to receive its messages.")
        consumer = Consumer(self._core, mailbox, mode, on_delivery, on_closed)
        mailbox.consumers[consumer] = None
        return consumer

    def receive(self, path: str, count: int, mode: ReceiveMode = ReceiveMode.PEEK_LOCK) -> list[Delivery]:
        """Up to `count` messages that are ready now; never waits."""
        return self._receivable(path).mailbox.receive(count, mode)

    def receive_deferred(
        self,
        path: str,
        sequence_numbers: Sequence[int],
        mode: ReceiveMode = ReceiveMode.PEEK_LOCK,
        session_id: str | None = None,
    ) -> list[Delivery]:
        """Deferred messages by number, all or none; raises MessageNotFound.

        Of a session: `session_id` must be locked, and the messages live under its lock; raises SessionLockLost.
        """
        return self._receivable(path).mailbox.receive_deferred(sequence_numbers, mode, session_id)

    def peek(self, path: str, from_sequence_number: int, count: int, session_id: str | None = None) -> list[Delivery]:
        """Look at up to `count` messages from that number on: active (locked too), deferred and scheduled.

        With `session_id` only those of that session.
        """
        return self._begin(path).mailbox.peek(from_sequence_number, count, session_id)

    # Sessions: of a queue or subscription with `requires_session`; elsewhere all raise NotAllowed

    def accept_session(
        self,
        path: str,
        session_id: str,
        on_delivery: Callable[[Delivery], None],
        mode: ReceiveMode = ReceiveMode.PEEK_LOCK,
        on_closed: Callable[[EngineError], None] | None = None,
    ) -> SessionConsumer:
        """Lock one session, with or without messages, now; raises SessionCannotBeLocked, EntityDisabled.

        The consumer has `session_id` and `locked_until`; credit as with `attach_consumer`. `detach()` releases the
        session and its messages at once. When the lock expires (0.5 s after `locked_until`, for slow clocks)
        the messages come back with delivery count + 1 and `on_closed` is called with SessionLockLost.
        Messages are settled with their own tokens, as everywhere, but live as long as the session's lock:
        settling one after that raises SessionLockLost.
        """
        mailbox = self._with_sessions(self._receivable(path))
        consumer = mailbox.accept(session_id, on_delivery, mode, on_closed)
        self._core.pump()
        return consumer

    def accept_next_session(
        self,
        path: str,
        on_accepted: Callable[[SessionConsumer], None],
        on_refused: Callable[[EngineError], None],
        on_delivery: Callable[[Delivery], None],
        mode: ReceiveMode = ReceiveMode.PEEK_LOCK,
        on_closed: Callable[[EngineError], None] | None = None,
        timeout_seconds: float = DEFAULT_ACCEPT_SECONDS,
    ) -> SessionWait:
        """Lock the next free session that has a message ready: at once or when there is one, in the order of asking.

        Exactly one of `on_accepted` and `on_refused` is called, perhaps before this returns, unless `cancel()` of
        what is returned comes first (it is harmless later). `on_refused` gets OperationTimeout after
        `timeout_seconds`, or why the entity went away. Raises EntityDisabled.
        """
        mailbox = self._with_sessions(self._receivable(path))
        wait = SessionWait(mailbox, on_accepted, on_refused, on_delivery, mode, on_closed)
        mailbox.wait_for_any(wait, timeout_seconds)
        self._core.pump()
        return wait

    def renew_session_lock(self, path: str, session_id: str, holder: SessionConsumer | None = None) -> float:
        """Lock it again for the entity's lock duration from now; returns the new `locked_until`.

        `holder`, here and below: who asks; None trusts that it is the one. Raises SessionLockLost.
        """
        return self._with_sessions(self._begin(path)).renew_session(session_id, holder)

    def session_state(self, path: str, session_id: str, holder: SessionConsumer | None = None) -> bytes | None:
        """What was set last; raises SessionLockLost."""
        return self._with_sessions(self._begin(path)).state_of(session_id, holder)

    def set_session_state(
        self, path: str, session_id: str, state: bytes | None, holder: SessionConsumer | None = None
    ) -> None:
        """None clears it; raises SessionLockLost."""
        self._with_sessions(self._begin(path)).set_state(session_id, state, holder)

    def list_sessions(self, path: str, updated_since: float | None = None, skip: int = 0, top: int = 100) -> list[str]:
        """Ids of sessions with messages or a state; with `updated_since` those whose state was set since then."""
        found = self._with_sessions(self._begin(path)).list_sessions(updated_since)
        return list(islice(found, skip, skip + top))

    def lose_session_lock(self, path: str, session_id: str) -> None:
        """End a session's lock as if it had expired; raises SessionLockLost if nobody holds it."""
        self._with_sessions(self._begin(path)).lose_session(session_id)
        self._core.pump()

    # Settling: `path` is that of the entity the message was received from; all raise MessageLockLost

    def complete(self, path: str, lock_token: UUID) -> None:
        """The message is done and gone."""
        self._begin(path).mailbox.complete(lock_token)

    def abandon(self, path: str, lock_token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Back to its place with delivery count + 1, or to the dead letters when that reaches the limit."""
        self._begin(path).mailbox.abandon(lock_token, properties)
        self._core.pump()

    def defer(self, path: str, lock_token: UUID, properties: Mapping[str, Any] | None = None) -> None:
        """Put aside; only `receive_deferred` finds it again. Delivery count + 1."""
        self._begin(path).mailbox.defer(lock_token, properties)
        self._core.pump()

    def dead_letter(
        self,
        path: str,
        lock_token: UUID,
        reason: str | None = None,
        description: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Move to the dead-letter queue, with DeadLetterReason and DeadLetterErrorDescription where given."""
        said = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        given = {name: text for name, text in said.items() if text is not None}
        self._begin(path).mailbox.dead_letter(lock_token, {**(properties or {}), **given})
        self._core.pump()

    def release(self, path: str, lock_token: UUID) -> None:
        """Back to its place as if it had not been delivered: same delivery count."""
        self._begin(path).mailbox.release(lock_token)
        self._core.pump()

    def renew_lock(self, path: str, lock_token: UUID) -> float:
        """Lock it again for the entity's lock duration from now; returns the new `locked_until`."""
        return self._begin(path).mailbox.renew(lock_token)

    def is_locked(self, path: str, lock_token: UUID) -> bool:
        """Whether the lock is held still; as a look from outside, it uses nothing and changes nothing."""
        self._core.begin()
        return self._namespace.find(path).mailbox.is_locked(lock_token)

    # Time

    def next_timer(self) -> float | None:
        """When `tick` has something to do next; None when nothing is pending."""
        return self._core.timers.next_due()

    def tick(self) -> None:
        """Run what is due: lock expiry, schedules, time to live; then deliver."""
        self._core.begin()

    # Counts

    def counts(self, path: str) -> RuntimeCounts:
        """True counts of any entity; locked messages count as active, like the service."""
        self._core.begin()
        return self._namespace.find(path).counts()

    @property
    def held_bytes(self) -> int:
        """Of all messages in all entities; so that a process can give memory back after a drain."""
        return self._core.meter.bytes

    def purge(self, path: str) -> int:
        """Remove every message of one entity (not of its dead-letter queue); returns how many."""
        return self._begin(path).mailbox.purge()

    def batch_delete(
        self, path: str, count: int, enqueued_before: float = math.inf, session_id: str | None = None
    ) -> int:
        """Remove the first `count` messages that are active and not locked; returns how many there were.

        `enqueued_before`: seconds since the epoch, UTC. With `session_id` only those of that session.
        """
        return self._begin(path).mailbox.delete_ready(count, enqueued_before, session_id)

    def _begin(self, path: str) -> Entity:
        self._core.begin()
        entity = self._namespace.find(path)
        entity.accessed_at = self._core.now
        return entity

    @staticmethod
    def _with_sessions(entity: Entity) -> SessionMailbox:
        if not isinstance(entity.mailbox, SessionMailbox):
            raise NotAllowed(f"{entity.path}: the entity has no sessions.")
        return entity.mailbox

    def _receivable(self, path: str) -> Entity:
        entity = self._begin(path)
        if entity.kind is EntityKind.TOPIC:
            raise NotAllowed(f"{entity.path}: a topic cannot be received from, only its subscriptions")
        if not entity.can_receive:
            raise EntityDisabled(f"The messaging entity '{entity.path}' is disabled for receiving.")
        if entity.mailbox.forward is not None:
            raise NotAllowed(f"{entity.path}: the entity forwards its messages; receive from where they go.")
        return entity
