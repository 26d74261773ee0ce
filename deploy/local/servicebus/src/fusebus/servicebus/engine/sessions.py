"""What a message session is, who holds it and who waits for one."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fusebus.servicebus.engine.consumer import Consumer
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.messages import Delivery, ReceiveMode
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.timers import Timer

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core
    from fusebus.servicebus.engine.session_mailbox import SessionMailbox

DEFAULT_ACCEPT_SECONDS: Final = 65.0  # the service's patience with an accept that names no session
LOCK_GRACE_SECONDS: Final = 0.5  # a holder whose clock is a little slow still gets its last word in


class Session:
    """The messages of one session id; it exists while it has messages, a state or a holder."""

    __slots__ = ("count", "holder", "id", "numbers", "planned", "ready", "state", "updated_at")

    def __init__(self, session_id: str) -> None:
        self.id = session_id
        self.holder: SessionConsumer | None = None
        self.ready: list[int] = []
        """A heap; stale numbers among them."""
        self.numbers: list[int] = []
        """Of all messages, ascending; stale ones among them."""
        self.count = 0
        """Of all messages."""
        self.planned = False
        """Whether the mailbox will look for something to deliver."""
        self.state: bytes | None = None
        self.updated_at = 0.0
        """When the state was set, seconds since the epoch, UTC."""

    @property
    def is_needed(self) -> bool:
        return bool(self.count) or self.state is not None or self.holder is not None


class SessionConsumer(Consumer):
    """Holds the lock of one session; made by `Engine.accept_session` and `accept_next_session`."""

    __slots__ = ("lock_timer", "locked", "locked_until", "session")

    def __init__(
        self,
        core: "Core",
        mailbox: "SessionMailbox",
        session: Session,
        mode: ReceiveMode,
        on_delivery: Callable[[Delivery], None],
        on_closed: Callable[[EngineError], None] | None,
    ) -> None:
        super().__init__(core, mailbox, mode, on_delivery, on_closed)
        self.session = session
        self.locked: dict[int, Record] = {}
        """Messages that it got and has not settled, by number."""
        self.locked_until = 0.0
        self.lock_timer: Timer | None = None

    @property
    def session_id(self) -> str:
        return self.session.id

    def detach(self) -> None:
        """Release the session and its messages, with the delivery counts they had, at once."""
        super().detach()
        self._core.pump()


class SessionWait:
    """An accept that waits for a session to become free."""

    __slots__ = ("_mailbox", "mode", "on_accepted", "on_closed", "on_delivery", "on_refused", "timer")

    def __init__(
        self,
        mailbox: "SessionMailbox",
        on_accepted: Callable[[SessionConsumer], None],
        on_refused: Callable[[EngineError], None],
        on_delivery: Callable[[Delivery], None],
        mode: ReceiveMode,
        on_closed: Callable[[EngineError], None] | None,
    ) -> None:
        self._mailbox = mailbox
        self.on_accepted = on_accepted
        self.on_refused = on_refused
        self.on_delivery = on_delivery
        self.mode = mode
        self.on_closed = on_closed
        self.timer: Timer | None = None

    def cancel(self) -> None:
        """Stop waiting; harmless when it is over."""
        self._mailbox.stop_waiting(self)
