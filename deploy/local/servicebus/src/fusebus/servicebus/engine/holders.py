"""What can be received from: a mailbox with its dead letters, kept by queues and subscriptions."""

from collections.abc import Iterator

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.entities import (
    DEAD_LETTER_SUFFIX,
    TRANSFER_DEAD_LETTER_SUFFIX,
    Entity,
    EntityKind,
    RuntimeCounts,
)
from fusebus.servicebus.engine.forwarding import Forwarder
from fusebus.servicebus.engine.journal import DEAD_LETTER_OFFSET, TRANSFER_DEAD_LETTER_OFFSET
from fusebus.servicebus.engine.mailbox import Mailbox
from fusebus.servicebus.engine.messages import MessageState
from fusebus.servicebus.engine.meters import Meter
from fusebus.servicebus.engine.records import Record, dead_letter_reason
from fusebus.servicebus.engine.session_mailbox import SessionMailbox
from fusebus.servicebus.engine.settings import QueueSettings, SubscriptionSettings


class SubQueue(Entity):
    """A dead-letter queue; open as long as its owner is."""

    def __init__(self, core: Core, owner: "Holder", kind: EntityKind) -> None:
        transfer = kind is EntityKind.TRANSFER_DEAD_LETTER
        number = owner.id + (TRANSFER_DEAD_LETTER_OFFSET if transfer else DEAD_LETTER_OFFSET)
        path = owner.path + (TRANSFER_DEAD_LETTER_SUFFIX if transfer else DEAD_LETTER_SUFFIX)
        super().__init__(core, number, path)
        self.kind = kind
        self.mailbox = Mailbox(core, number, path, owner.settings, Meter(owner.meter))
        self._owner = owner

    @property
    def can_receive(self) -> bool:  # type: ignore[override]
        return self._owner.can_receive


class Holder(Entity):
    """What queues and subscriptions share: a mailbox to receive from, and its sub-queues."""

    settings: QueueSettings | SubscriptionSettings

    def __init__(
        self, core: Core, number: int, path: str, settings: QueueSettings | SubscriptionSettings, meter: Meter
    ) -> None:
        super().__init__(core, number, path)
        self.settings = settings
        self.meter = meter
        self.mailbox = (SessionMailbox if settings.requires_session else Mailbox)(core, number, path, settings, meter)
        self.dead_letters = SubQueue(core, self, EntityKind.DEAD_LETTER)
        self.transfer_dead_letters = SubQueue(core, self, EntityKind.TRANSFER_DEAD_LETTER)
        self.mailbox.dead_letters = self.dead_letters.mailbox

    @property
    def can_receive(self) -> bool:  # type: ignore[override]
        return self.settings.status.can_receive

    def parts(self) -> tuple[Entity, ...]:
        return (self, self.dead_letters, self.transfer_dead_letters)

    def forward_targets(self) -> Iterator[str]:
        if self.settings.forward_to is not None:
            yield self.settings.forward_to

    def counts(self) -> RuntimeCounts:
        box = self.mailbox
        return RuntimeCounts(
            active=box.count_by_state[MessageState.ACTIVE],
            deferred=box.count_by_state[MessageState.DEFERRED],
            scheduled=box.count_by_state[MessageState.SCHEDULED],
            dead_letter=sum(self.dead_letters.mailbox.count_by_state),
            size_bytes=self.meter.bytes,
            transfer_dead_letter=sum(self.transfer_dead_letters.mailbox.count_by_state),
        )

    def _apply(self, settings: QueueSettings | SubscriptionSettings) -> None:
        for part in self.parts():
            part.mailbox.settings = settings
        self.mailbox.forward = self._forwarder(settings.forward_to)
        self.dead_letters.mailbox.forward = self._forwarder(settings.forward_dead_lettered_to)

    def _forwarder(self, target: str | None) -> Forwarder | None:
        if target is None:
            return None
        return Forwarder(self._core, self.path, target, self.transfer_dead_letters.mailbox)

    def forward_backlog(self) -> None:
        """What is here already follows new settings."""
        self.mailbox.forward_backlog()
        self.dead_letters.mailbox.forward_backlog()

    def take(self, record: Record) -> int:
        """Enqueue; without a session id where one is needed, into the dead letters."""
        if self.settings.requires_session and record.message.session_id is None:
            said = "Session enabled entity doesn't allow a message whose session identifier is null."
            self.mailbox.bury_new(record, dead_letter_reason("Session ID is null.", said))
            return record.sequence_number
        return self.mailbox.append(record)
