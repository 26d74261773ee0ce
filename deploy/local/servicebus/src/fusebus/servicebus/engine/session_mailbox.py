"""A mailbox whose messages go out session by session, each to whoever holds it."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from typing import Final
from uuid import UUID

from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.errors import (
    EngineError,
    MessageNotFound,
    NotAllowed,
    OperationTimeout,
    SessionCannotBeLocked,
    SessionLockLost,
)
from fusebus.servicebus.engine.mailbox import Mailbox
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.sessions import LOCK_GRACE_SECONDS, Session, SessionConsumer, SessionWait
from fusebus.servicebus.engine.settings import QueueSettings, SubscriptionSettings
from fusebus.servicebus.engine.shelf import MAX_STALE

_NOT_WITHOUT: Final = "the entity requires sessions: accept one to receive its messages"


class SessionMailbox(Mailbox):
    """At most one holder per session; its messages in order; free sessions go to who waits, oldest first."""

    has_sessions = True

    def __init__(
        self, core: Core, number: int, path: str, settings: QueueSettings | SubscriptionSettings, meter: Meter
    ) -> None:
        super().__init__(core, number, path, settings, meter)
        self._sessions: dict[str, Session] = {}
        self._free: OrderedDict[str, Session] = OrderedDict()  # nobody holds them and they have a ready message
        self._waits: OrderedDict[SessionWait, None] = OrderedDict()
        self._plan: deque[Session] = deque()  # held ones that may have something for their holder

    @property
    def is_used(self) -> bool:
        return bool(self.consumers or self._waits)

    # Accepting

    def accept(
        self,
        session_id: str,
        on_delivery: Callable[[Delivery], None],
        mode: ReceiveMode,
        on_closed: Callable[[EngineError], None] | None,
    ) -> SessionConsumer:
        session = self._session(session_id)
        if session.holder is not None:
            raise SessionCannotBeLocked(f"{self.path}: the session '{session_id}' is held by another receiver.")
        return self._give(session, SessionConsumer(self._core, self, session, mode, on_delivery, on_closed))

    def wait_for_any(self, wait: SessionWait, timeout_seconds: float) -> None:
        self._waits[wait] = None
        wait.timer = self._core.timers.add(self._core.now + max(0.0, timeout_seconds), self._timed_out, wait)
        self._core.touch(self)

    def stop_waiting(self, wait: SessionWait) -> bool:
        """False if it was over."""
        self._core.timers.cancel(wait.timer)
        waited = wait in self._waits
        self._waits.pop(wait, None)
        self.left_at = self._core.now
        return waited

    def _timed_out(self, wait: SessionWait) -> None:
        if self.stop_waiting(wait):
            wait.on_refused(OperationTimeout(f"{self.path}: no session became available in time."))

    def _give(self, session: Session, consumer: SessionConsumer) -> SessionConsumer:
        session.holder = consumer
        self.consumers[consumer] = None
        self._free.pop(session.id, None)
        self._extend(consumer)
        consumer.lock_timer = self._core.timers.add(_end(consumer), self._lock_ends_for, consumer)
        return consumer

    # Holding

    def renew_session(self, session_id: str, holder: SessionConsumer | None) -> float:
        return self._extend(self._holder(session_id, holder))

    def state_of(self, session_id: str, holder: SessionConsumer | None) -> bytes | None:
        return self._holder(session_id, holder).session.state

    def set_state(self, session_id: str, state: bytes | None, holder: SessionConsumer | None) -> None:
        self.restore_state(self._holder(session_id, holder).session.id, state, self._core.now)
        if self._core.journal is not None:
            self._core.journal.session_saved(self.id, session_id, state, self._core.now)

    def restore_state(self, session_id: str, state: bytes | None, updated_at: float) -> None:
        session = self._session(session_id)
        session.state = state
        session.updated_at = updated_at
        self._forget_if_idle(session)

    def list_sessions(self, updated_since: float | None) -> Iterator[str]:
        for session in self._sessions.values():
            if updated_since is None:
                if session.count or session.state is not None:
                    yield session.id
            elif session.state is not None and session.updated_at >= updated_since:
                yield session.id

    def _holder(self, session_id: str, holder: SessionConsumer | None) -> SessionConsumer:
        session = self._sessions.get(session_id)
        if session is None or session.holder is None or (holder is not None and session.holder is not holder):
            raise SessionLockLost(f"{self.path}: the lock of the session '{session_id}' is not held: it expired.")
        return session.holder

    def _extend(self, consumer: SessionConsumer) -> float:
        consumer.locked_until = self._core.now + self.settings.lock_seconds
        return consumer.locked_until

    def _lock_ends_for(self, consumer: SessionConsumer) -> None:
        if _end(consumer) > self._core.now:  # it was renewed
            consumer.lock_timer = self._core.timers.add(_end(consumer), self._lock_ends_for, consumer)
            return
        self.lose(consumer)

    def lose_session(self, session_id: str) -> None:
        """Take the session from whoever holds it."""
        self.lose(self._holder(session_id, None))

    def lose(self, consumer: SessionConsumer) -> None:
        """End its lock as if it had expired."""
        locked = list(consumer.locked.values())
        for record in locked:
            self._forget_lock(record)
            self._failed(record)
        consumer.detach()
        if consumer.on_closed:
            consumer.on_closed(
                SessionLockLost(f"{self.path}: the lock of the session '{consumer.session_id}' expired.")
            )

    def leave(self, consumer: Consumer) -> None:
        super().leave(consumer)
        assert isinstance(consumer, SessionConsumer)
        session = consumer.session
        if session.holder is not consumer:
            return
        self._core.timers.cancel(consumer.lock_timer)
        session.holder = None
        locked = list(consumer.locked.values())
        consumer.locked.clear()
        for record in locked:
            self._forget_lock(record)
            self._put_back(record)
        self._offer(session)
        self._forget_if_idle(session)

    # Delivering

    def wait(self, consumer: Consumer) -> None:
        assert isinstance(consumer, SessionConsumer)
        if consumer.attached and consumer.credit > 0:
            self._look_at(consumer.session)

    def dispatch(self) -> None:
        while self._plan:
            session = self._plan.popleft()
            session.planned = False
            self._serve(session)
        while self._waits and self._free:
            wait = next(iter(self._waits))
            self.stop_waiting(wait)
            _, session = self._free.popitem(last=False)
            consumer = SessionConsumer(self._core, self, session, wait.mode, wait.on_delivery, wait.on_closed)
            wait.on_accepted(self._give(session, consumer))

    def _serve(self, session: Session) -> None:
        while (holder := session.holder) is not None and holder.credit > 0:
            if not self._has_ready(session):
                return
            record = self._records[heappop(session.ready)]
            holder.credit -= 1
            holder.on_delivery(self._hand_over(record, holder.mode))

    def receive(self, count: int, mode: ReceiveMode) -> list[Delivery]:
        raise NotAllowed(f"{self.path}: {_NOT_WITHOUT}")

    def receive_deferred(self, numbers: Sequence[int], mode: ReceiveMode, session_id: str | None) -> list[Delivery]:
        if session_id is None:
            raise NotAllowed(f"{self.path}: {_NOT_WITHOUT}")
        self._holder(session_id, None)
        found = (self._records.get(number) for number in numbers)
        if other := [record.sequence_number for record in found if record and record.session_id != session_id]:
            raise MessageNotFound(f"{self.path}: the messages {other} are not of the session '{session_id}'")
        return super().receive_deferred(numbers, mode, session_id)

    def renew(self, token: UUID) -> float:
        raise NotAllowed(f"{self.path}: messages of a session live under its lock: renew that")

    def _hold(self, record: Record) -> float:
        holder = self._sessions[record.session_id].holder
        assert holder is not None
        holder.locked[record.sequence_number] = record
        record.locked_until = holder.locked_until
        return holder.locked_until

    def _forget_lock(self, record: Record) -> None:
        if record.lock_token is not None:
            super()._forget_lock(record)
            session = self._sessions[record.session_id]
            if session.holder is not None:
                session.holder.locked.pop(record.sequence_number, None)

    def _lock_lost(self, token: UUID) -> EngineError:
        return SessionLockLost(
            f"{self.path}: the lock {token} is not held: its session's lock ended, or the message was settled already"
        )

    # Messages come and go

    def _session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = Session(session_id)
        return session

    def _add(self, record: Record, number: int) -> None:
        super()._add(record, number)
        session = self._session(record.session_id)
        session.count += 1
        session.numbers.append(number)

    def _make_ready(self, record: Record) -> None:
        session = self._sessions[record.session_id]
        heappush(session.ready, record.sequence_number)
        if session.holder is None:
            self._offer(session)
        else:
            self._look_at(session)

    def _remove(self, record: Record) -> None:
        super()._remove(record)
        session = self._sessions[record.session_id]
        session.count -= 1
        if len(session.numbers) > 2 * session.count + MAX_STALE:
            session.numbers = [number for number in session.numbers if number in self._records]
        if session.id in self._free and not self._has_ready(session):
            del self._free[session.id]
        self._forget_if_idle(session)

    def _from(self, number: int, session_id: str | None) -> Iterator[Record]:
        if session_id is None:
            return super()._from(number, None)
        session = self._sessions.get(session_id)
        return self._walk([] if session is None else session.numbers, number)

    def _has_ready(self, session: Session) -> bool:
        ready = session.ready
        while ready and ready[0] not in self._records:
            heappop(ready)
        return bool(ready)

    def _look_at(self, session: Session) -> None:
        if not session.planned:
            session.planned = True
            self._plan.append(session)
        self._core.touch(self)

    def _offer(self, session: Session) -> None:
        if session.holder is None and session.id not in self._free and self._has_ready(session):
            self._free[session.id] = session
            self._core.touch(self)

    def _forget_if_idle(self, session: Session) -> None:
        if not session.is_needed:
            self._sessions.pop(session.id, None)

    def purge(self) -> int:
        count = super().purge()
        self._free.clear()
        for session in list(self._sessions.values()):
            session.count = 0
            session.ready.clear()
            session.numbers.clear()
            if session.holder is not None:
                session.holder.locked.clear()
            self._forget_if_idle(session)
        return count

    def close(self, error: EngineError) -> None:
        for wait in list(self._waits):
            if self.stop_waiting(wait):
                wait.on_refused(error)
        super().close(error)


def _end(consumer: SessionConsumer) -> float:
    return consumer.locked_until + LOCK_GRACE_SECONDS
