"""The least that a journal does: it remembers. For tests, and to show what the calls mean."""

from copy import copy

from fusebus.servicebus.engine.journal import (
    IDS_PER_ENTITY,
    DuplicateImage,
    EntityImage,
    SessionImage,
    Snapshot,
)
from fusebus.servicebus.engine.records import Record
from fusebus.servicebus.engine.settings import Rule


class MemoryJournal:
    """A Journal of which `snapshot` gives what it was told."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self._entities: dict[int, EntityImage] = {}
        self._rules: dict[tuple[int, str], Rule] = {}
        self._last_numbers: dict[int, int] = {}
        self._records: dict[int, dict[int, Record]] = {}
        self._sessions: dict[tuple[int, str], SessionImage] = {}
        self._duplicates: dict[tuple[int, str], DuplicateImage] = {}

    def entity_saved(self, image: EntityImage) -> None:
        self._entities[image.id] = image

    def entity_deleted(self, entity_id: int) -> None:
        del self._entities[entity_id]
        mine = range(entity_id, entity_id + IDS_PER_ENTITY)
        assert not any(self._records.pop(number, None) for number in mine)
        self._last_numbers = {key: last for key, last in self._last_numbers.items() if key not in mine}
        self._rules = {key: rule for key, rule in self._rules.items() if key[0] not in mine}
        self._sessions = {key: image for key, image in self._sessions.items() if key[0] not in mine}
        self._duplicates = {key: image for key, image in self._duplicates.items() if key[0] not in mine}

    def rule_saved(self, entity_id: int, rule: Rule) -> None:
        self._rules[entity_id, rule.name.lower()] = rule

    def rule_deleted(self, entity_id: int, name: str) -> None:
        del self._rules[entity_id, name.lower()]

    def message_stored(self, mailbox_id: int, record: Record) -> None:
        records = self._records.setdefault(mailbox_id, {})
        assert record.sequence_number not in records
        assert record.sequence_number > self._last_numbers.get(mailbox_id, 0)
        records[record.sequence_number] = _unlocked(record)
        self._last_numbers[mailbox_id] = record.sequence_number

    def message_changed(self, mailbox_id: int, record: Record) -> None:
        assert record.sequence_number in self._records[mailbox_id]
        self._records[mailbox_id][record.sequence_number] = _unlocked(record)

    def message_removed(self, mailbox_id: int, record: Record) -> None:
        del self._records[mailbox_id][record.sequence_number]

    def numbers_taken(self, mailbox_id: int, last: int) -> None:
        assert last > self._last_numbers.get(mailbox_id, 0)
        self._last_numbers[mailbox_id] = last

    def session_saved(self, mailbox_id: int, session_id: str, state: bytes | None, updated_at: float) -> None:
        if state is None:
            self._sessions.pop((mailbox_id, session_id), None)
        else:
            self._sessions[mailbox_id, session_id] = SessionImage(mailbox_id, session_id, state, updated_at)

    def duplicate_seen(self, image: DuplicateImage) -> None:
        self._duplicates[image.entity_id, image.key] = image

    def duplicates_forgotten(self, entity_id: int, seen_until: float) -> None:
        self._duplicates = {
            key: image for key, image in self._duplicates.items() if key[0] != entity_id or image.seen_at > seen_until
        }

    def snapshot(self) -> Snapshot:
        """As a store would give it after a restart."""
        return Snapshot(
            entities=sorted(self._entities.values(), key=lambda image: image.id),
            rules=[(key[0], rule) for key, rule in self._rules.items()],
            last_numbers=dict(self._last_numbers),
            sessions=list(self._sessions.values()),
            records=[
                (number, _unlocked(record)) for number, found in self._records.items() for record in _in_order(found)
            ],
            duplicates=sorted(self._duplicates.values(), key=lambda image: image.seen_at),
        )


def _in_order(records: dict[int, Record]) -> list[Record]:
    return [record for _, record in sorted(records.items())]


def _unlocked(record: Record) -> Record:
    """What would be written down of it now."""
    kept = copy(record)
    kept.lock_token = kept.locked_until = None
    return kept
