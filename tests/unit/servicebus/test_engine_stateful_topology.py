"""Any sequence of sends, settlements, changes of forwarding, deletions and restarts: each copy is in one place only."""

from itertools import count
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fusebus.servicebus.engine import Engine, Message, QueueSettings, Rule, SqlFilter, SubscriptionSettings
from fusebus.servicebus.engine.memory_journal import MemoryJournal

CHOSEN, EVERY, TARGET, GRAVES = "t/Subscriptions/chosen", "t/Subscriptions/every", "q", "graves"
DEAD, LOST = f"{CHOSEN}/$DeadLetterQueue", f"{EVERY}/$Transfer/$DeadLetterQueue"
PLACES = (CHOSEN, DEAD, EVERY, LOST, TARGET, GRAVES)


class TopologyMachine(RuleBasedStateMachine):
    """A topic with two subscriptions, one of which forwards to a queue that comes and goes; its dead go to another."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.tokens = count(1), count(1)
        self.journal = MemoryJournal()
        self.engine = self.new_engine()
        self.places: dict[str, list[bytes]] = {place: [] for place in PLACES}
        self.target_is_there = self.forwards = True

    def new_engine(self) -> Engine:
        return Engine(lambda: 0.0, new_token=lambda: UUID(int=next(self.tokens)), journal=self.journal)

    @initialize()
    def create(self) -> None:
        space = self.engine.namespace
        space.create_queue(GRAVES)
        self.make_target()
        space.create_topic("t")
        space.create_subscription("t", "chosen", rules=[Rule("kind", SqlFilter("kind = 'chosen'"))])
        space.create_subscription("t", "every", SubscriptionSettings(forward_to=TARGET))

    def make_target(self) -> None:
        self.engine.namespace.create_queue(TARGET, QueueSettings(forward_dead_lettered_to=GRAVES))

    @rule(chosen=st.booleans())
    def send(self, chosen: bool) -> None:
        name = b"m%d" % next(self.names)
        self.engine.send("t", [Message(name, application_properties={"kind": "chosen" if chosen else "other"})])
        if chosen:
            self.places[CHOSEN].append(name)
        self.places[self.end_of_every()].append(name)

    def end_of_every(self) -> str:
        if not self.forwards:
            return EVERY
        return TARGET if self.target_is_there else LOST

    @rule(place=st.sampled_from([CHOSEN, DEAD, LOST, TARGET, GRAVES]), buries=st.booleans())
    def receive(self, place: str, buries: bool) -> None:
        if place == TARGET and not self.target_is_there:
            return
        for delivery in self.engine.receive(place, 1):
            name = self.places[place].pop(0)
            assert delivery.message.raw == name
            assert delivery.lock_token is not None
            if buries and place in (CHOSEN, TARGET):
                self.engine.dead_letter(place, delivery.lock_token, "why")
                self.places[DEAD if place == CHOSEN else GRAVES].append(name)
            else:
                self.engine.complete(place, delivery.lock_token)

    @precondition(lambda self: self.target_is_there)
    @rule()
    def delete_the_target(self) -> None:
        self.engine.namespace.delete_queue(TARGET)
        self.target_is_there = False
        self.places[TARGET].clear()

    @precondition(lambda self: not self.target_is_there)
    @rule()
    def create_the_target_again(self) -> None:
        self.make_target()
        self.target_is_there = True

    @precondition(lambda self: self.target_is_there)
    @rule()
    def turn_forwarding_on_or_off(self) -> None:
        self.forwards = not self.forwards
        wanted = SubscriptionSettings(forward_to=TARGET if self.forwards else None)
        self.engine.namespace.update_subscription("t", "every", wanted)
        if self.forwards:
            self.places[TARGET] += self.places[EVERY]
            self.places[EVERY].clear()

    @rule()
    def restart(self) -> None:
        self.engine = self.new_engine()
        assert self.engine.restore(self.journal.snapshot()) == []

    @invariant()
    def every_copy_is_where_it_should_be(self) -> None:
        for place in PLACES:
            if place != TARGET or self.target_is_there:
                found = [delivery.message.raw for delivery in self.engine.peek(place, 0, 1000)]
                assert found == self.places[place], place

    @invariant()
    def numbers_grow(self) -> None:
        for place in PLACES:
            if place != TARGET or self.target_is_there:
                numbers = [delivery.sequence_number for delivery in self.engine.peek(place, 0, 1000)]
                assert numbers == sorted(set(numbers))


TestTopology = TopologyMachine.TestCase
TestTopology.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
