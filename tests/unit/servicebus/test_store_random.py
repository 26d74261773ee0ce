"""The durable store under random clients, crashes and failures of the disk: what was committed is there, no more.

A failing test's name ends with the seed of all that it did: run that one again. Sizes are small, so that in a hundred
commits the journal file is moved, rewound and tidied many times.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from random_store import Trouble, make_shaky, make_small
from stored_engines import Clock, Running, message, token

from fusebus.servicebus.engine import Delivery, Engine, EngineError, MessageState, QueueSettings

QUICK_SEEDS, ALL_SEEDS = 4, 40
SEEDS: Final = [pytest.param(n, marks=[pytest.mark.long] if n >= QUICK_SEEDS else []) for n in range(ALL_SEEDS)]
QUEUES: Final = ("q", "p", "d")
DEAD_LETTERS: Final = "/$DeadLetterQueue"
PATHS: Final = QUEUES + tuple(queue + DEAD_LETTERS for queue in QUEUES)
EVERYTHING: Final = 1_000_000
ATTEMPTS: Final = 30
"""To commit; a failure is likely, and so many are not, but where the store wants to be opened anew."""
Queues = dict[str, dict[int, tuple[object, int, MessageState]]]


@dataclass
class View:
    """What an engine shows."""

    queues: Queues
    """By path and sequence number."""
    last_numbers: dict[int, int]
    time: float

    @classmethod
    def of(cls, running: Running) -> View:
        engine = running.engine
        queues = {path: {each.sequence_number: _seen(each) for each in _all(engine, path)} for path in PATHS}
        return cls(queues, dict(engine.last_numbers()), running.clock.time)

    def difference(self, other: View) -> dict[str, list[Any]]:
        pairs = {path: self.queues[path].items() ^ other.queues[path].items() for path in PATHS}
        return {path: sorted(pair, key=str) for path, pair in pairs.items() if pair}


def _all(engine: Engine, path: str) -> list[Delivery]:
    return engine.peek(path, 0, EVERYTHING)


def _seen(delivery: Delivery) -> tuple[object, int, MessageState]:
    return delivery.message.message_id, delivery.delivery_count, delivery.state


class Broker:
    """An engine and its store, and what may be found of them after a crash."""

    def __init__(self, directory: Path, trouble: Trouble) -> None:
        self.trouble = trouble
        self.running = Running(directory, Clock())
        for name in QUEUES:
            seconds = 600.0 if name == "d" else 0.0
            settings = QueueSettings(lock_seconds=300, max_delivery_count=1000, duplicate_detection_seconds=seconds)
            self.running.engine.namespace.create_queue(name, settings)
        self.running.store.commit()
        self.committed = View.of(self.running)
        self.perhaps: list[View] = []
        """What commits that failed may have left."""
        self._copies: list[Path] = []
        trouble.look = self._copy

    @property
    def engine(self) -> Engine:
        return self.running.engine

    @property
    def pending(self) -> bool:
        return self.running.store.pending

    def commit(self, attempts: int) -> None:
        now, store = View.of(self.running), self.running.store
        store.commit()
        while store.pending and attempts:
            store.retry()
            attempts -= 1
        self.perhaps.append(now)
        self._look_at_copies()
        if not store.pending:
            self.committed, self.perhaps = now, []

    def checkpoint(self) -> None:
        self.running.store.checkpoint()
        self._look_at_copies()

    def crash(self) -> None:
        """Go on with what a new process finds. It is not later then: scheduled messages would come."""
        self.running.clock.time = self.committed.time
        with self.trouble.none():
            self._go_on_with(self.running.crash())

    def restart(self) -> None:
        with self.trouble.none():
            self.running.store.close()
            self._go_on_with(Running(self.running.directory, self.running.clock))

    def _go_on_with(self, found: Running) -> None:
        assert found.complaints == []
        self._check(found)
        if found.directory != self.running.directory:
            self.running.store.abandon()
            shutil.rmtree(self.running.directory)
        self.running, self.committed, self.perhaps = found, View.of(found), []

    def _copy(self) -> None:
        """As the files are now, in the middle of a commit; the store must not see what comes of looking at them."""
        aside = self.running.directory.with_name(uuid.uuid4().hex)
        shutil.copytree(self.running.directory, aside)
        self._copies.append(aside)

    def _look_at_copies(self) -> None:
        for aside in self._copies:
            clock = Clock()
            clock.time = self.committed.time
            with self.trouble.none():
                found = Running(aside, clock)
            assert [complaint for complaint in found.complaints if "was cut off" not in complaint] == []
            self._check(found)
            found.store.abandon()
            shutil.rmtree(aside)
        self._copies = []

    def _check(self, found: Running) -> None:
        view, allowed = View.of(found), [self.committed, *self.perhaps]
        assert any(view.queues == each.queues for each in allowed), [view.difference(each) for each in allowed]
        known = self.committed.last_numbers.items()
        assert [item for item in known if view.last_numbers.get(item[0], 0) < item[1]] == [], "numbers would repeat"


class Clients:
    """They do what they like, in phases: most of what may go wrong needs a queue that fills, or one that empties."""

    def __init__(self, broker: Broker, random: Random) -> None:
        self.broker, self.random = broker, random
        self.locked: list[tuple[str, uuid.UUID]] = []
        self.sent = 0
        self.phases = [self.fill, self.drain, self.drain, self.empty, self.alternate, self.outlive]
        self.phases += [self.burst, self.mix, self.outlive]

    def do_something(self) -> None:
        for _ in range(self.random.randrange(4, 12)):
            self.phase(self.random.choice(self.phases))
            if self._happens(0.6):
                self.crash()
        self.commit(ATTEMPTS)
        self.crash()
        self.broker.restart()

    def phase(self, step: Callable[[], None]) -> None:
        random = self.random
        self.most_bytes, self.order = random.choice([2, 100, 1500]), random.choice(["fifo", "fifo", "lifo", "random"])
        self.queues = random.choice([QUEUES, ("q", "p"), ("q", "p")])  # duplicates' commits go past the journal file
        often = random.choice([1, 1, 0.3])
        for _ in range(random.randrange(1, 4) if step == self.empty else random.randrange(3, 150)):
            step()
            if self._happens(often):
                self.commit(ATTEMPTS if self._happens(0.7) else 0)
            if self._happens(0.004):
                self.crash()

    # --- steps

    def fill(self) -> None:
        if self._happens(0.85):
            self.send(self.random.choice(self.queues), self.random.choice([1, 1, 1, 5]))
        elif self._happens(0.3):
            self.receive(self._any_path(), self.random.randrange(1, 20))
        else:
            self.settle(1, self.random.choice(["complete", "abandon", "defer", "dead_letter"]))

    def drain(self) -> None:
        self.receive(self._any_path(), self.random.choice([1, 5, 1000]))
        how = "complete" if self._happens(0.95) else self.random.choice(["abandon", "defer", "dead_letter"])
        self.settle(self.random.choice([1, 1, 3, 30]), how)

    def empty(self) -> None:
        for path in PATHS:
            self.receive(path, EVERYTHING)
        self.settle(EVERYTHING)
        if self._happens(0.5):
            self.take_deferred(EVERYTHING)

    def alternate(self) -> None:
        self.send("q", 1)
        if self._happens(0.5):
            self.commit(0)
        self.receive("q", 1)
        self.settle(EVERYTHING if self._happens(0.8) else 1)

    def outlive(self) -> None:
        """Messages of one queue stay, and change, while another's come and go beside them, past the journal file."""
        self.send(self.random.choice(["q", "q", "d"]), 1)
        self.commit(0)
        self.receive("d", EVERYTHING)
        if self._happens(0.3):
            self.receive("q", 2)
        self.settle(self.random.choice([1, 2, 5]), self.random.choice(["complete", "complete", "complete", "abandon"]))

    def burst(self) -> None:
        if self._happens(0.03):
            self.send("q", 50)
        self.receive("q", 3)
        self.settle(self.random.choice([1, 2]))

    def mix(self) -> None:
        random = self.random
        steps: list[tuple[int, Callable[[], None]]] = [
            (40, lambda: self.send(random.choice(self.queues), random.choice([1, 2, 10]))),
            (5, lambda: self.send("q", 1, delay=random.choice([0.01, 1, 1e6]))),
            (5, self.let_time_pass),
            (10, lambda: self.receive(self._any_path(), random.randrange(1, 30))),
            (25, lambda: self.settle(random.choice([1, 2, 10]))),
            (10, lambda: self.settle(1, random.choice(["abandon", "defer", "dead_letter"]))),
            (3, lambda: self.take_deferred(random.choice([1, 10]))),
            (1, lambda: self.broker.engine.namespace.create_queue(uuid.UUID(int=random.getrandbits(128)).hex)),
            (1, self.checkpoint),
        ]
        weights, does = zip(*steps, strict=True)
        random.choices(does, weights)[0]()

    # --- what steps are made of

    def send(self, queue: str, count: int, delay: float | None = None) -> None:
        messages = [self._message(delay) for _ in range(count)]
        try:
            self.broker.engine.send(queue, messages)
        except EngineError:
            assert self.broker.running.store.refusal is not None

    def _message(self, delay: float | None) -> Any:
        self.sent += 1
        due = None if delay is None else self.broker.running.clock.time + delay
        text = "x" * self.random.randrange(self.most_bytes)
        return message(text, message_id=f"m{self.sent}", scheduled_enqueue_time=due)

    def receive(self, path: str, count: int) -> None:
        self.locked += [(path, token(delivery)) for delivery in self.broker.engine.receive(path, count)]

    def settle(self, count: int, how: str = "complete") -> None:
        for _ in range(min(count, len(self.locked))):
            last = len(self.locked) - 1
            place = {"fifo": 0, "lifo": last, "random": self.random.randint(0, last)}[self.order]
            path, lock = self.locked.pop(place)
            is_dead = path.endswith(DEAD_LETTERS)
            getattr(self.broker.engine, "complete" if is_dead and how == "dead_letter" else how)(path, lock)

    def take_deferred(self, count: int) -> None:
        engine = self.broker.engine
        for path in PATHS:
            deferred = [each for each in _all(engine, path) if each.state is MessageState.DEFERRED]
            for each in deferred[:count]:
                (delivery,) = engine.receive_deferred(path, [each.sequence_number])
                engine.complete(path, token(delivery))

    def let_time_pass(self) -> None:
        self.broker.running.clock.time += 0.02
        self.broker.engine.tick()

    def commit(self, attempts: int) -> None:
        self.broker.commit(attempts)
        if attempts and self.broker.pending:
            self.crash()

    def checkpoint(self) -> None:
        self.commit(ATTEMPTS)
        self.broker.checkpoint()

    def crash(self) -> None:
        self.broker.crash()
        self.locked.clear()

    def _any_path(self) -> str:
        return self.random.choice(PATHS)

    def _happens(self, likely: float) -> bool:
        return self.random.random() < likely


Play = Callable[[Trouble], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    def played(trouble: Trouble) -> None:
        make_small(monkeypatch, trouble.random)
        make_shaky(monkeypatch, trouble)
        broker = Broker(tmp_path / "data", trouble)
        Clients(broker, trouble.random).do_something()
        broker.running.store.abandon()
        shutil.rmtree(broker.running.directory)  # that of a test that failed stays

    return played


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_clients_do_a_crash_leaves_what_was_committed(play: Play, seed: int) -> None:
    play(Trouble(Random(seed)))


@pytest.mark.parametrize("seed", SEEDS)
def test_where_commits_fail_a_crash_leaves_what_was_committed(play: Play, seed: int) -> None:
    random = Random(seed)
    play(Trouble(random, failing=random.choice([0.05, 0.3]), failing_append=random.choice([0, 0.02])))


@pytest.mark.parametrize("seed", SEEDS)
def test_where_commits_that_were_written_seem_to_fail_nothing_is_lost_or_repeated(play: Play, seed: int) -> None:
    random = Random(seed)
    lying, question = random.choice([0.05, 0.3]), random.choice([0, 0.1])
    play(Trouble(random, failing=0.05, failing_append=0.01, lying=lying, failing_question=question))
