"""Any sequence of sends, receipts, settlements, waits and restarts, against a model that a reader can check by eye.

At most one holder of a lock, nothing lost, nothing twice, order kept, counts that add up.
"""

import math
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
    Message,
    MessageLockLost,
    QueueSettings,
    ReceiveMode,
)
from fusebus.servicebus.engine.memory_journal import MemoryJournal

LOCK_SECONDS = 10.0
MAX_DELIVERY_COUNT = 3
QUEUE, DEAD = "q", "q/$DeadLetterQueue"


@dataclass
class Modelled:
    """One message as the model knows it; `rank` is its place in the order of arrival."""

    name: bytes
    ttl: float
    rank: int
    state: str = "ready"  # ready, deferred, scheduled, dead, gone
    expires: float = math.inf
    due: float = 0.0
    token: UUID | None = None
    locked_until: float = 0.0
    failures: int = 0
    number: int = 0


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ranks = count(1)
        self.tokens = count(1)
        self.journal = MemoryJournal()
        self.engine = self.new_engine()
        self.messages: list[Modelled] = []

    def new_engine(self) -> Engine:
        return Engine(lambda: self.now, new_token=lambda: UUID(int=next(self.tokens)), journal=self.journal)

    @initialize()
    def create(self) -> None:
        self.engine.namespace.create_queue(
            QUEUE,
            QueueSettings(lock_seconds=LOCK_SECONDS, max_delivery_count=MAX_DELIVERY_COUNT, dead_letter_on_expiry=True),
        )

    # The model

    def ready(self) -> list[Modelled]:
        return sorted(
            (found for found in self.messages if found.state == "ready" and found.token is None),
            key=lambda found: found.rank,
        )

    def locked(self) -> list[Modelled]:
        return [found for found in self.messages if found.token is not None]

    def put_back(self, found: Modelled) -> None:
        found.token = None
        if found.expires <= self.now:
            found.state = "dead"

    def fail(self, found: Modelled) -> None:
        found.failures += 1
        self.put_back(found)
        if found.failures >= MAX_DELIVERY_COUNT:
            found.state = "dead"

    def matches(self, found: Modelled, delivery: Delivery) -> None:
        assert (delivery.message.raw, delivery.delivery_count) == (found.name, found.failures)
        assert delivery.lock_token not in {other.token for other in self.messages}
        found.token, found.number = delivery.lock_token, delivery.sequence_number
        found.locked_until = self.now + LOCK_SECONDS

    # What may happen

    @rule(size=st.integers(1, 4), ttl=st.sampled_from([math.inf, 8.0, 25.0]))
    def send(self, size: int, ttl: float) -> None:
        batch = [self.new(ttl) for _ in range(size)]
        self.engine.send(QUEUE, [Message(found.name, ttl_seconds=found.ttl) for found in batch])
        for found in batch:
            found.expires = self.now + ttl

    @rule(delay=st.sampled_from([3.0, 10.0, 40.0]), ttl=st.sampled_from([math.inf, 15.0]))
    def schedule(self, delay: float, ttl: float) -> None:
        found = self.new(ttl)
        found.state, found.due = "scheduled", self.now + delay
        message = Message(found.name, ttl_seconds=ttl, scheduled_enqueue_time=found.due)
        (found.number,) = self.engine.send(QUEUE, [message])

    def new(self, ttl: float) -> Modelled:
        found = Modelled(str(len(self.messages)).encode(), ttl, next(self.ranks))
        self.messages.append(found)
        return found

    @rule(data=st.data())
    @precondition(lambda self: any(found.state == "scheduled" for found in self.messages))
    def cancel(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from([found for found in self.messages if found.state == "scheduled"]))
        self.engine.cancel_scheduled(QUEUE, [found.number])
        found.state = "gone"

    @rule(size=st.integers(1, 4))
    def receive(self, size: int) -> None:
        expected = self.ready()[:size]
        deliveries = self.engine.receive(QUEUE, size)
        assert len(deliveries) == len(expected)
        for found, delivery in zip(expected, deliveries, strict=True):
            self.matches(found, delivery)

    @rule(size=st.integers(1, 2))
    def receive_and_delete(self, size: int) -> None:
        expected = self.ready()[:size]
        deliveries = self.engine.receive(QUEUE, size, ReceiveMode.RECEIVE_AND_DELETE)
        assert [delivery.message.raw for delivery in deliveries] == [found.name for found in expected]
        for found in expected:
            found.state = "gone"

    @rule(first=st.integers(0, 3), second=st.integers(0, 3))
    def deliver_to_two_consumers(self, first: int, second: int) -> None:
        deliveries: list[Delivery] = []
        consumers = [self.engine.attach_consumer(QUEUE, deliveries.append) for _ in range(2)]
        expected = self.ready()[: first + second]
        for consumer, credit in zip(consumers, (first, second), strict=True):
            consumer.set_credit(credit)
        for consumer in consumers:
            consumer.detach()
        assert len(deliveries) == len(expected)
        for found, delivery in zip(expected, deliveries, strict=True):
            self.matches(found, delivery)

    @rule(data=st.data(), how=st.sampled_from(["complete", "abandon", "release", "defer", "dead_letter", "renew_lock"]))
    @precondition(lambda self: self.locked())
    def settle(self, data: st.DataObject, how: str) -> None:
        found = data.draw(st.sampled_from(self.locked()))
        token = found.token
        getattr(self.engine, how)(QUEUE, token)
        if how == "renew_lock":
            found.locked_until = self.now + LOCK_SECONDS
            return
        with pytest.raises(MessageLockLost):
            self.engine.complete(QUEUE, token)
        if how == "abandon":
            self.fail(found)
            return
        if how == "defer":
            found.state = "deferred"
            found.failures += 1
        self.put_back(found)
        if how in ("complete", "dead_letter"):
            found.state = {"complete": "gone", "dead_letter": "dead"}[how]

    @rule(data=st.data())
    @precondition(lambda self: any(found.state == "deferred" and not found.token for found in self.messages))
    def receive_deferred(self, data: st.DataObject) -> None:
        waiting = [found for found in self.messages if found.state == "deferred" and not found.token]
        found = data.draw(st.sampled_from(waiting))
        (delivery,) = self.engine.receive_deferred(QUEUE, [found.number])
        self.matches(found, delivery)

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 10.0, 30.0]), tick=st.booleans())
    def wait(self, seconds: float, tick: bool) -> None:
        self.now += seconds
        if tick:
            self.engine.tick()
        due = [found for found in self.messages if found.state == "scheduled" and found.due <= self.now]
        for found in sorted(due, key=lambda found: (found.due, found.rank)):
            found.state, found.rank, found.expires = "ready", next(self.ranks), self.now + found.ttl
        for found in self.locked():
            if found.locked_until <= self.now:
                self.fail(found)
        for found in self.messages:
            if found.state in ("ready", "deferred") and found.token is None and found.expires <= self.now:
                found.state = "dead"
        if not tick:
            self.engine.counts(QUEUE)  # any call is enough

    @rule()
    def restart(self) -> None:
        self.engine = self.new_engine()
        assert self.engine.restore(self.journal.snapshot()) == []
        for found in self.locked():
            self.put_back(found)

    # What must hold

    @invariant()
    def every_message_is_in_exactly_one_place(self) -> None:
        here = [delivery.message.raw for delivery in self.peeked(QUEUE)]
        dead = [delivery.message.raw for delivery in self.peeked(DEAD)]
        present = [found for found in self.messages if found.state in ("ready", "deferred", "scheduled")]
        assert sorted(here) == sorted(found.name for found in present)
        assert sorted(dead) == sorted(found.name for found in self.messages if found.state == "dead")

    @invariant()
    def counts_add_up(self) -> None:
        counts = self.engine.counts(QUEUE) if self.messages else None
        if counts is None:
            return
        by_state = {
            state: [f for f in self.messages if f.state == state] for state in ("deferred", "scheduled", "dead")
        }
        assert counts.active == sum(1 for found in self.messages if found.state == "ready")
        assert counts.deferred == len(by_state["deferred"])
        assert counts.scheduled == len(by_state["scheduled"])
        assert counts.dead_letter == len(by_state["dead"])
        assert counts.size_bytes == sum(len(found.name) for found in self.messages if found.state != "gone")

    @invariant()
    def the_next_timer_lies_ahead(self) -> None:
        due = self.engine.next_timer()
        assert due is None or due > self.now or not self.messages

    def peeked(self, path: str) -> list[Delivery]:
        return self.engine.peek(path, 1, 10_000) if self.messages else []


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
