"""Taking messages on to another entity, and what becomes of those that cannot go there."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from fusebus.servicebus.engine.errors import EngineError, InvalidArgument
from fusebus.servicebus.engine.messages import MessageState
from fusebus.servicebus.engine.records import Record, dead_letter_reason

if TYPE_CHECKING:
    from fusebus.servicebus.engine.core import Core
    from fusebus.servicebus.engine.entities import Entity
    from fusebus.servicebus.engine.mailbox import Mailbox

MAX_HOPS: Final = 4  # the service's limit of entities chained by forwarding


class Forwarder:
    """From one mailbox to the entity at `target`; what that refuses goes to the transfer dead letters."""

    __slots__ = ("_core", "_path", "_target", "_transfer_dead_letters")

    def __init__(self, core: "Core", path: str, target: str, transfer_dead_letters: "Mailbox") -> None:
        self._core = core
        self._path = path
        self._target = target
        self._transfer_dead_letters = transfer_dead_letters

    def __call__(self, record: Record) -> None:
        """`record` is in no mailbox any more."""
        record.state = MessageState.ACTIVE
        if record.hops >= MAX_HOPS:
            said = f"The maximum number of allowed hops when forwarding between entities is {MAX_HOPS}."
            self._bury(record, "MaxTransferHopCountExceeded", said)
            return
        try:
            target = self._core.find(self._target)
            target.check_sendable(len(record.message.raw))
        except EngineError as error:
            self._bury(record, type(error).__name__, str(error))
            return
        record.hops += 1
        record.delivery_count = 0
        target.accept_forwarded(record)

    def _bury(self, record: Record, reason: str, description: str) -> None:
        record.modify(dead_letter_reason(reason, description))
        record.expires_at = math.inf
        record.dead_letter_source = self._path
        self._transfer_dead_letters.append(record)


def check_target(
    source: str, target: str | None, find: Callable[[str], "Entity"], setting: str, *, through_chain: bool
) -> None:
    """Raises InvalidArgument for what cannot be forwarded to: nothing, a subscription, itself.

    `through_chain`: or an entity that in the end forwards to `source` again.
    """
    if target is None:
        return
    try:
        entity = find(target)
    except EngineError as error:
        raise InvalidArgument(f"{setting}: the entity '{target}' does not exist.") from error
    if not entity.accepts_messages:
        raise InvalidArgument(f"{setting}: '{target}' is not a queue or topic.")
    seen = set(_reachable(entity, find)) if through_chain else {entity.path.lower()}
    if source.lower() in seen:
        raise InvalidArgument(f"{setting}: '{target}' would forward back to '{source}'.")


def _reachable(first: "Entity", find: Callable[[str], "Entity"]) -> Iterator[str]:
    """The paths, in lower case, of everything that messages sent to `first` are forwarded to, and of itself."""
    left, seen = [first], {first.path.lower()}
    while left:
        entity = left.pop()
        yield entity.path.lower()
        for path in entity.forward_targets():
            try:
                following = find(path)
            except EngineError:
                continue  # deleted since
            if following.path.lower() not in seen:
                seen.add(following.path.lower())
                left.append(following)
