"""Topics, subscriptions and rules as data: the one source for brokers, services, docs and Bicep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from fusebus.contracts.messages import (
    BlobCreated,
    BudgetCrossed,
    CancelRun,
    CloseRun,
    DuplicateFound,
    FleetChanged,
    ImageAccepted,
    ImageAnalysed,
    ImageFailed,
    ImageRejected,
    JobKind,
    Lane,
    Message,
    ModelChanged,
    ModelRefused,
    ReleaseRun,
    RunCheck,
    StorageEvents,
    UploadsHeld,
    WorkLate,
)

DAY = 86_400.0  # seconds


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A filter: admits messages that have all of these application properties; empty admits all."""

    name: str
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)
    absent: str = ""
    """A property that admitted messages don't have, for what others send without it; it takes an SQL filter to say."""
    session: bool | None = None
    """Whether admitted messages are of a session, likewise; None: either."""

    def admits(self, properties: Mapping[str, object], session: str | None = None) -> bool:
        """What Service Bus decides for a message with these application properties, of this session or of none."""
        has_all = all(properties.get(key) == value for key, value in self.properties.items())
        is_absent = not self.absent or properties.get(self.absent) is None
        return has_all and is_absent and self.session in (None, session is not None)

    @property
    def filter(self) -> dict[str, Any]:
        """As the broker's configuration says it."""
        without = [f"{self.absent} IS NULL"] if self.absent else []
        if self.session is not None:
            without.append(f"sys.SessionId IS {'NOT ' if self.session else ''}NULL")
        if without:
            return {"sql": " AND ".join([*(f"{key} = '{value}'" for key, value in self.properties.items()), *without])}
        return {"correlation": dict(self.properties)} if self.properties else {"true": True}


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One service's queue behind a topic."""

    name: str
    rules: tuple[Rule, ...] = (Rule(name="all"),)
    lock_seconds: float = 60.0
    """Peek-lock; the worker loop renews at half of it."""
    max_delivery_count: int = 50
    """High: a Spot node that vanishes is not the image's fault. Handler failures are counted in the message."""
    ttl_seconds: float = 14 * DAY
    dead_letter_on_expiry: bool = True
    requires_session: bool = False
    """Its messages are received session by session."""


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic with what travels on it and who reads it."""

    name: str
    carries: tuple[type[Message], ...]
    subscriptions: tuple[Subscription, ...]
    duplicate_detection_seconds: float = 600.0
    """Longer than any retry of the same send; a retry, replay or re-arming has another message id."""
    ttl_seconds: float = 14 * DAY


UPLOAD_LANE = "upload_lane"
"""The application property of `uploads` by which those who send few are kept apart from those who send many."""
UPLOAD_LANES = (10, 60, 180, 540)
"""Of what a supplier sends in about a minute, how many wait in the lanes up to this one. Each lane is one more
subscription, one more link of each ingest, and one more filter, which is a credit, that each event is compared with."""
FEW_UPLOADS = UPLOAD_LANES[0]
ASIDE = "aside"
"""The lane of all that a supplier sends beyond: it goes where the others are not."""


def upload_lane(sent: float) -> str:
    """The lane of an upload by how many its supplier sent in about the last minute, this one counted."""
    return next((str(lane) for lane, most in enumerate(UPLOAD_LANES) if sent <= most), ASIDE)


def upload_subscription(lane: str) -> str:
    """Where a lane's events wait; what comes without a lane waits in `ingest`."""
    return f"ingest-{lane}"


UPLOAD_SUBSCRIPTIONS = ("ingest", *(upload_subscription(str(lane)) for lane in range(len(UPLOAD_LANES))))
"""Without those of ASIDE and of sessions."""
UPLOAD_SESSIONS = upload_subscription("sessions")
"""Where events wait that come with a session, which is their supplier: the broker keeps suppliers apart there."""


def _upload_subscriptions() -> tuple[Subscription, ...]:
    lanes = [*map(str, range(len(UPLOAD_LANES))), ASIDE]
    return (
        Subscription(name="ingest", rules=(Rule(name="unmarked", absent=UPLOAD_LANE, session=False),)),
        Subscription(
            name=UPLOAD_SESSIONS,
            rules=(Rule(name="session", absent=UPLOAD_LANE, session=True),),
            requires_session=True,
        ),
        *(
            Subscription(name=upload_subscription(lane), rules=(Rule(name="lane", properties={UPLOAD_LANE: lane}),))
            for lane in lanes
        ),
    )


def image_subscription(kind: JobKind, lane: Lane) -> str:
    """Where accepted images of a job kind and lane wait; each lane has its own, so that none waits behind another."""
    return kind.value if lane is Lane.NORMAL else f"{kind.value}-{lane.value}"


def image_subscriptions(kind: JobKind) -> tuple[str, ...]:
    """All of a job kind, the most urgent first."""
    return tuple(image_subscription(kind, lane) for lane in Lane)


def _images_of(kind: JobKind, lane: Lane) -> Subscription:
    rules = [Rule(name=lane.value, properties={"job_kind": kind.value, "lane": lane.value})]
    if lane is Lane.NORMAL:  # nothing is lost that names no lane
        rules.append(Rule(name="unmarked", properties={"job_kind": kind.value}, absent="lane"))
    return Subscription(name=image_subscription(kind, lane), rules=tuple(rules))


TOPICS: tuple[Topic, ...] = (
    Topic(name="uploads", carries=(BlobCreated, StorageEvents, ReleaseRun), subscriptions=_upload_subscriptions()),
    Topic(
        name="images",
        carries=(ImageAccepted,),
        subscriptions=tuple(_images_of(kind, lane) for kind in JobKind for lane in Lane),
    ),
    Topic(
        name="results",
        carries=(ImageAnalysed, ImageFailed, ImageRejected, DuplicateFound, RunCheck, CloseRun, CancelRun),
        subscriptions=(Subscription(name="notifier"),),
    ),
    Topic(
        name="fleet",
        carries=(FleetChanged, BudgetCrossed, WorkLate, ModelChanged, ModelRefused, UploadsHeld),
        subscriptions=(Subscription(name="notifier"),),
    ),
)

_BY_TYPE: dict[type[Message], Topic] = {message: topic for topic in TOPICS for message in topic.carries}
_BY_NAME: dict[str, Topic] = {topic.name: topic for topic in TOPICS}


def topic_of(message: Message) -> Topic:
    """Where a message is published. Raises KeyError for a type that no topic carries."""
    return _BY_TYPE[type(message)]


def subscription(topic: str, name: str) -> Subscription:
    """A subscription by its topic's and its own name. Raises KeyError where there is none."""
    return next((found for found in _BY_NAME[topic].subscriptions if found.name == name), None) or _missing(topic, name)


def _missing(topic: str, name: str) -> Subscription:
    raise KeyError(f"topic {topic} has no subscription {name}")


def retry_reaches_only_its_own(topic: Topic) -> bool:
    """Whether no two subscriptions of a topic admit the same message.

    A delayed retry is a copy sent to the topic again; where subscriptions were to overlap, each of their rules would
    have to test `only` as well. Rules that differ in the value of a common property can't overlap, nor can one that
    wants a property, or a session, with one that wants it absent.
    """

    def disjoint(first: Rule, second: Rule) -> bool:
        common = first.properties.keys() & second.properties.keys()
        absent = first.absent in second.properties or second.absent in first.properties
        sessions = {first.session, second.session} == {True, False}
        return absent or sessions or any(first.properties[key] != second.properties[key] for key in common)

    return all(
        disjoint(rule, other)
        for index, one in enumerate(topic.subscriptions)
        for two in topic.subscriptions[index + 1 :]
        for rule in one.rules
        for other in two.rules
    )


def broker_configuration(lock_seconds: float | None = None) -> dict[str, Any]:
    """The topology as `fusebus-servicebus --config` reads it; `lock_seconds` replaces every lock duration."""

    def described(found: Subscription) -> dict[str, Any]:
        return {
            "name": found.name,
            "lock_seconds": lock_seconds or found.lock_seconds,
            "max_delivery_count": found.max_delivery_count,
            "ttl_seconds": found.ttl_seconds,
            "dead_letter_on_expiry": found.dead_letter_on_expiry,
            **({"requires_session": True} if found.requires_session else {}),
            "rules": [{"name": rule.name, **rule.filter} for rule in found.rules],
        }

    return {
        "topics": [
            {
                "name": topic.name,
                "duplicate_detection_seconds": topic.duplicate_detection_seconds,
                "ttl_seconds": topic.ttl_seconds,
                "subscriptions": [described(found) for found in topic.subscriptions],
            }
            for topic in TOPICS
        ]
    }
