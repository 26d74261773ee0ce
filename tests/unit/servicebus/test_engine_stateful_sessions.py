"""Any sequence of what happens to sessions behind a forwarding queue, against a model that a reader can check by eye.

At most one holder per session, first in first out within each, nothing lost and nothing twice on the way.
"""

from dataclasses import dataclass
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusebus.servicebus.engine import (
    Delivery,
    Engine,
    EngineError,
    EntityDisabled,
    EntityStatus,
    Message,
    OperationTimeout,
    QueueSettings,
    SessionCannotBeLocked,
    SessionConsumer,
    SessionLockLost,
    SessionWait,
)
from fusebus.servicebus.engine.memory_journal import MemoryJournal

LOCK_SECONDS, GRACE_SECONDS = 10.0, 0.5
PATIENCE_SECONDS = 20.0
MAX_DELIVERY_COUNT = 3
ENTRY, QUEUE = "in", "s"
GRAVES, DEAD, STUCK = "graves", f"{QUEUE}/$DeadLetterQueue", f"{ENTRY}/$Transfer/$DeadLetterQueue"
SESSIONS = ["a", "b"]
a_session = st.sampled_from(SESSIONS)


@dataclass
class Modelled:
    """One message as the model knows it; the list that it is in is the order of arrival."""

    name: bytes
    session: str
    state: str = "ready"  # ready, deferred, dead, stuck, gone
    token: UUID | None = None
    failures: int = 0
    number: int = 0


@dataclass(eq=False)
class Hold:
    """A session that somebody has."""

    consumer: SessionConsumer
    locked_until: float


class SessionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tokens = count(1)
        self.journal = MemoryJournal()
        self.engine = self.new_engine()
        self.messages: list[Modelled] = []
        self.holds: dict[str, Hold] = {}
        self.states: dict[str, bytes] = {}
        self.delivered: list[Delivery] = []
        self.waits: dict[SessionWait | None, float] = {}  # until when
        self.serial = count(1)
        self.ended: list[EngineError] = []
        self.open = True
        self.graves: str | None = None  # where dead letters are forwarded to

    def new_engine(self) -> Engine:
        return Engine(lambda: self.now, new_token=lambda: UUID(int=next(self.tokens)), journal=self.journal)

    @initialize(graves=st.booleans())
    def create(self, graves: bool) -> None:
        self.graves = GRAVES if graves else None
        self.engine.namespace.create_queue(GRAVES)
        self.engine.namespace.create_queue(QUEUE, self.queue_settings())
        self.engine.namespace.create_queue(ENTRY, QueueSettings(forward_to=QUEUE))

    def queue_settings(self, status: EntityStatus = EntityStatus.ACTIVE) -> QueueSettings:
        return QueueSettings(
            lock_seconds=LOCK_SECONDS,
            max_delivery_count=MAX_DELIVERY_COUNT,
            requires_session=True,
            status=status,
            forward_dead_lettered_to=self.graves,
        )

    # The model

    def ready(self, session: str) -> list[Modelled]:
        return [
            found for found in self.messages if (found.session, found.state, found.token) == (session, "ready", None)
        ]

    def locked(self, session: str | None = None) -> list[Modelled]:
        return [found for found in self.messages if found.token and session in (None, found.session)]

    def fail(self, found: Modelled) -> None:
        found.token = None
        found.failures += 1
        if found.failures >= MAX_DELIVERY_COUNT:
            found.state = "dead"

    def hold(self, consumer: SessionConsumer) -> None:
        earlier = self.holds.get(consumer.session_id)
        assert earlier is None or not earlier.consumer.attached
        self.holds[consumer.session_id] = Hold(consumer, self.now + LOCK_SECONDS)
        assert consumer.locked_until == self.now + LOCK_SECONDS

    # What may happen

    @rule(session=a_session, size=st.integers(1, 3), path=st.sampled_from([ENTRY, QUEUE]))
    def send(self, session: str, size: int, path: str) -> None:
        batch = [Modelled(str(next(self.serial)).encode(), session) for _ in range(size)]
        encoded = [Message(found.name, session_id=session) for found in batch]
        if self.open:
            self.messages += batch
            self.engine.send(path, encoded)
        elif path == ENTRY:
            self.engine.send(path, encoded)
            self.messages += batch
            for found in batch:
                found.state = "stuck"
        else:
            with pytest.raises(EntityDisabled):
                self.engine.send(path, encoded)

    @rule()
    def close_or_open(self) -> None:
        self.open = not self.open
        status = EntityStatus.ACTIVE if self.open else EntityStatus.SEND_DISABLED
        self.engine.namespace.update_queue(QUEUE, self.queue_settings(status))

    @rule(session=a_session)
    def accept(self, session: str) -> None:
        if session in self.holds:
            with pytest.raises(SessionCannotBeLocked):
                self.engine.accept_session(QUEUE, session, self.delivered.append)
        else:
            self.hold(self.engine.accept_session(QUEUE, session, self.delivered.append, on_closed=self.ended.append))

    @rule()
    def accept_next(self) -> None:
        free = [session for session in SESSIONS if session not in self.holds and self.ready(session)]
        wait: SessionWait | None = None
        accepted: list[SessionConsumer] = []

        def on_accepted(consumer: SessionConsumer) -> None:
            accepted.append(consumer)
            self.waits.pop(wait, None)
            self.hold(consumer)

        def on_refused(error: EngineError) -> None:
            assert isinstance(error, OperationTimeout)
            assert self.waits.pop(wait) <= self.now

        wait = self.engine.accept_next_session(
            QUEUE,
            on_accepted,
            on_refused,
            self.delivered.append,
            on_closed=self.ended.append,
            timeout_seconds=PATIENCE_SECONDS,
        )
        if free:
            assert accepted[0].session_id in free
        else:
            assert not accepted
            self.waits[wait] = self.now + PATIENCE_SECONDS

    @rule()
    @precondition(lambda self: self.waits)
    def stop_waiting(self) -> None:
        wait = next(iter(self.waits))
        del self.waits[wait]
        assert wait is not None
        wait.cancel()
        wait.cancel()

    @rule(data=st.data(), size=st.integers(1, 4))
    @precondition(lambda self: self.holds)
    def receive(self, data: st.DataObject, size: int) -> None:
        session = data.draw(st.sampled_from(sorted(self.holds)))
        consumer = self.holds[session].consumer
        expected = self.ready(session)[:size]
        self.delivered.clear()
        consumer.set_credit(size)
        consumer.set_credit(0)
        assert [found.message.raw for found in self.delivered] == [found.name for found in expected]
        for found, delivery in zip(expected, self.delivered, strict=True):
            assert (delivery.delivery_count, delivery.locked_until) == (found.failures, consumer.locked_until)
            found.token, found.number = delivery.lock_token, delivery.sequence_number

    @rule(data=st.data(), how=st.sampled_from(["complete", "abandon", "release", "defer", "dead_letter"]))
    @precondition(lambda self: self.locked())
    def settle(self, data: st.DataObject, how: str) -> None:
        found = data.draw(st.sampled_from(self.locked()))
        token = found.token
        getattr(self.engine, how)(QUEUE, token)
        with pytest.raises(SessionLockLost):
            self.engine.complete(QUEUE, token)
        if how == "abandon":
            self.fail(found)
            return
        found.token = None
        found.state = {"complete": "gone", "dead_letter": "dead", "defer": "deferred"}.get(how, found.state)
        found.failures += how == "defer"

    @rule(data=st.data())
    @precondition(lambda self: any(found.state == "deferred" and not found.token for found in self.messages))
    def receive_deferred(self, data: st.DataObject) -> None:
        waiting = [found for found in self.messages if found.state == "deferred" and not found.token]
        found = data.draw(st.sampled_from(waiting))
        if found.session not in self.holds:
            with pytest.raises(SessionLockLost):
                self.engine.receive_deferred(QUEUE, [found.number], session_id=found.session)
        else:
            (delivery,) = self.engine.receive_deferred(QUEUE, [found.number], session_id=found.session)
            assert delivery.message.raw == found.name
            found.token = delivery.lock_token

    @rule(data=st.data())
    @precondition(lambda self: self.holds)
    def detach(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.holds)))
        for found in self.locked(session):
            found.token = None
        self.holds.pop(session).consumer.detach()

    @rule(data=st.data())
    @precondition(lambda self: self.holds)
    def renew(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(sorted(self.holds)))
        hold = self.holds[session]
        hold.locked_until = self.now + LOCK_SECONDS
        assert self.engine.renew_session_lock(QUEUE, session, hold.consumer) == hold.locked_until

    @rule(session=a_session, state=st.sampled_from([None, b"", b"x"]))
    def set_state(self, session: str, state: bytes | None) -> None:
        if session not in self.holds:
            with pytest.raises(SessionLockLost):
                self.engine.set_session_state(QUEUE, session, state)
            return
        self.engine.set_session_state(QUEUE, session, state)
        self.states.pop(session, None)
        if state is not None:
            self.states[session] = state

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 10.0, 10.5, 30.0]))
    def wait(self, seconds: float) -> None:
        now = self.now + seconds
        lost = {session: hold for session, hold in self.holds.items() if hold.locked_until + GRACE_SECONDS <= now}
        for session in lost:
            for found in self.locked(session):
                self.fail(found)
        self.now = now
        self.ended.clear()
        self.engine.tick()
        assert [type(error) for error in self.ended] == [SessionLockLost] * len(lost)
        for session, hold in lost.items():
            assert not hold.consumer.attached
            if self.holds[session] is hold:
                del self.holds[session]

    @rule()
    def restart(self) -> None:
        self.engine = self.new_engine()
        assert self.engine.restore(self.journal.snapshot()) == []
        self.holds.clear()
        self.waits.clear()
        for found in self.locked():
            found.token = None

    # What must hold

    @invariant()
    def nobody_waits_for_a_session_that_is_free(self) -> None:
        if self.waits:
            assert not [session for session in SESSIONS if session not in self.holds and self.ready(session)]
        assert all(until > self.now for until in self.waits.values())

    @invariant()
    def every_message_is_in_exactly_one_place_and_in_order(self) -> None:
        if not self.messages:
            return
        for session in SESSIONS:
            present = [
                found.name
                for found in self.messages
                if found.session == session and found.state in ("ready", "deferred")
            ]
            assert [found.message.raw for found in self.engine.peek(QUEUE, 1, 10_000, session)] == present
        for path, state in ((self.graves or DEAD, "dead"), (STUCK, "stuck")):
            here = sorted(found.message.raw for found in self.engine.peek(path, 1, 10_000))
            assert here == sorted(found.name for found in self.messages if found.state == state)

    @invariant()
    def counts_add_up(self) -> None:
        if not self.messages:
            return
        by_state = {
            state: sum(1 for f in self.messages if f.state == state) for state in ("ready", "deferred", "dead", "stuck")
        }
        counts, entry = self.engine.counts(QUEUE), self.engine.counts(ENTRY)
        assert (counts.active, counts.deferred) == (by_state["ready"], by_state["deferred"])
        assert counts.dead_letter == (0 if self.graves else by_state["dead"])
        assert (entry.active, entry.transfer, entry.transfer_dead_letter) == (0, 0, by_state["stuck"])
        elsewhere = ("gone", "stuck", "dead") if self.graves else ("gone", "stuck")
        assert counts.size_bytes == sum(len(found.name) for found in self.messages if found.state not in elsewhere)
        assert self.engine.held_bytes == sum(len(found.name) for found in self.messages if found.state != "gone")

    @invariant()
    def sessions_are_listed(self) -> None:
        if not self.messages:
            return
        alive = {found.session for found in self.messages if found.state in ("ready", "deferred")} | set(self.states)
        assert sorted(self.engine.list_sessions(QUEUE)) == sorted(alive)
        for session in self.holds:
            assert self.engine.session_state(QUEUE, session) == self.states.get(session)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
