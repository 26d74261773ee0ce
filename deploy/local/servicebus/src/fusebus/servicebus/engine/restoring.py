"""Rebuilding the entities of an empty namespace from what the journal kept."""

from fusebus.servicebus.engine.core import Core
from fusebus.servicebus.engine.destinations import Destination
from fusebus.servicebus.engine.entities import SUBSCRIPTIONS
from fusebus.servicebus.engine.errors import EngineError
from fusebus.servicebus.engine.journal import EntityImage, Snapshot
from fusebus.servicebus.engine.namespace import Namespace, Owner
from fusebus.servicebus.engine.session_mailbox import SessionMailbox
from fusebus.servicebus.engine.settings import QueueSettings, TopicSettings
from fusebus.servicebus.engine.subscription import Subscription


class Restoration:
    """One use: `run`, then `problems` has a sentence for each thing that could not be used."""

    def __init__(self, core: Core, namespace: Namespace) -> None:
        self.problems: list[str] = []
        self._core = core
        self._namespace = namespace
        self._owners: dict[int, Owner] = {}

    def run(self, snapshot: Snapshot) -> None:
        for image in snapshot.entities:
            self._entity(image)
        for entity_id, rule in snapshot.rules:
            owner = self._owners.get(entity_id)
            if isinstance(owner, Subscription):
                owner.rules[rule.name.lower()] = rule
            else:
                self.problems.append(f"The rule '{rule.name}' belongs to no subscription ({entity_id}).")
        self._mailbox_contents(snapshot)
        for seen in snapshot.duplicates:
            owner = self._owners.get(seen.entity_id)
            if isinstance(owner, Destination) and owner.duplicates is not None:
                owner.duplicates.restore(seen.key, seen.sequence_number, seen.seen_at)

    def _entity(self, image: EntityImage) -> None:
        try:
            owner = self._added(image)
        except EngineError as error:
            self.problems.append(f"The entity '{image.path}' ({image.id}) was left out: {error}")
            return
        owner.created_at, owner.updated_at = image.created_at, image.updated_at
        self._owners[image.id] = owner

    def _added(self, image: EntityImage) -> Owner:
        namespace, settings = self._namespace, image.settings
        if isinstance(settings, QueueSettings):
            return namespace.add_queue(image.id, image.path, settings)
        if isinstance(settings, TopicSettings):
            return namespace.add_topic(image.id, image.path, settings)
        topic, _, name = image.path.rpartition(SUBSCRIPTIONS)
        return namespace.add_subscription(image.id, namespace.topic(topic), name, settings, ())

    def _mailbox_contents(self, snapshot: Snapshot) -> None:
        for mailbox_id, last in snapshot.last_numbers.items():
            if (mailbox := self._namespace.mailbox(mailbox_id)) is not None:
                mailbox.last_number = last
        for session in snapshot.sessions:
            mailbox = self._namespace.mailbox(session.mailbox_id)
            if isinstance(mailbox, SessionMailbox):
                mailbox.restore_state(session.session_id, session.state, session.updated_at)
            else:
                self.problems.append(f"The session '{session.session_id}' has no entity ({session.mailbox_id}).")
        for mailbox_id, record in snapshot.records:
            mailbox = self._namespace.mailbox(mailbox_id)
            if mailbox is None:
                self.problems.append(f"The message {record.sequence_number} has no mailbox ({mailbox_id}).")
            elif not mailbox.restore(record):
                self.problems.append(f"{mailbox.path}: the message {record.sequence_number} is out of order.")
