"""The part of the engine's journal that goes to tables of its own: topology, rules, session states, duplicates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fusebus.servicebus.engine.journal import IDS_PER_ENTITY, DuplicateImage, EntityImage
from fusebus.servicebus.engine.settings import Rule
from fusebus.servicebus.store import images

Statement = tuple[str, tuple[Any, ...]]


def _nothing() -> None:
    pass


class Front(Protocol):
    """Where the clients are."""

    @property
    def reading(self) -> object:
        """Whose bytes are being handled, None outside of that."""


class Nobody:
    """A front without clients."""

    reading: object = None


class TablesJournal:
    """Collects the statements of one commit."""

    def __init__(self) -> None:
        self._statements: list[Statement] = []
        self.pending = False
        """Whether something is not committed yet."""
        self.front: Front = Nobody()
        self.on_pending: Callable[[], None] = _nothing
        """Called when something is to be committed after a time when nothing was, and no client is being read: for a
        client that is, it is committed before the answer."""
        self._special = False
        """Whether what is pending takes more than a block in the journal file."""

    def entity_saved(self, image: EntityImage) -> None:
        self._state(
            "INSERT OR REPLACE INTO entities VALUES (?, ?, ?, ?, ?)",
            (image.id, image.path, images.dumps(image.settings), image.created_at, image.updated_at),
        )

    def entity_deleted(self, entity_id: int) -> None:
        last = entity_id + IDS_PER_ENTITY - 1
        self._state("DELETE FROM entities WHERE id = ?", (entity_id,))
        self._state("DELETE FROM rules WHERE entity = ?", (entity_id,))
        self._state("DELETE FROM duplicates WHERE entity = ?", (entity_id,))
        self._state("DELETE FROM sessions WHERE mailbox BETWEEN ? AND ?", (entity_id, last))
        self._state("DELETE FROM numbers WHERE mailbox BETWEEN ? AND ?", (entity_id, last))

    def rule_saved(self, entity_id: int, rule: Rule) -> None:
        self._state("INSERT OR REPLACE INTO rules VALUES (?, ?, ?)", (entity_id, rule.name, images.dumps(rule)))

    def rule_deleted(self, entity_id: int, name: str) -> None:
        self._state("DELETE FROM rules WHERE entity = ? AND name = ?", (entity_id, name))

    def session_saved(self, mailbox_id: int, session_id: str, state: bytes | None, updated_at: float) -> None:
        if state is None:
            self._state("DELETE FROM sessions WHERE mailbox = ? AND session = ?", (mailbox_id, session_id))
        else:
            self._state(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)", (mailbox_id, session_id, state, updated_at)
            )

    def duplicate_seen(self, image: DuplicateImage) -> None:
        self._state(
            "INSERT OR REPLACE INTO duplicates VALUES (?, ?, ?, ?)",
            (image.entity_id, image.seen_at, image.key, image.sequence_number),
        )

    def duplicates_forgotten(self, entity_id: int, seen_until: float) -> None:
        self._state("DELETE FROM duplicates WHERE entity = ? AND seen_at <= ?", (entity_id, seen_until))

    def _state(self, sql: str, parameters: tuple[Any, ...]) -> None:
        if not self.pending:
            self._note_pending()
        self._special = True
        self._statements.append((sql, parameters))

    def _note_pending(self) -> None:
        self.pending = True
        if self.front.reading is None:
            self.on_pending()
