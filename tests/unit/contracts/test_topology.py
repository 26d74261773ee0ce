import pytest

from fusebus.contracts.messages import JobKind, Lane
from fusebus.contracts.topology import (
    ASIDE,
    TOPICS,
    UPLOAD_LANES,
    UPLOAD_SESSIONS,
    Rule,
    Subscription,
    Topic,
    broker_configuration,
    image_subscription,
    image_subscriptions,
    retry_reaches_only_its_own,
    subscription,
    upload_lane,
    upload_subscription,
)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_delayed_retry_reaches_only_the_subscription_it_is_for(topic: Topic) -> None:
    assert retry_reaches_only_its_own(topic)


def test_overlapping_subscriptions_are_found() -> None:
    both = (Subscription(name="one"), Subscription(name="two", rules=(Rule(name="r", properties={"a": "b"}),)))
    assert not retry_reaches_only_its_own(Topic(name="t", carries=(), subscriptions=both))


def admitting(topic: str, properties: dict[str, object], session: str | None = None) -> list[str]:
    found = next(one for one in TOPICS if one.name == topic)
    return [one.name for one in found.subscriptions if any(rule.admits(properties, session) for rule in one.rules)]


@pytest.mark.parametrize("kind", JobKind)
def test_each_job_kind_and_lane_goes_to_its_own_subscription(kind: JobKind) -> None:
    for lane in Lane:
        properties: dict[str, object] = {"job_kind": kind.value, "lane": lane.value}
        assert admitting("images", properties) == [image_subscription(kind, lane)]
    assert admitting("images", {"job_kind": kind.value}) == [kind.value], "nothing is lost that names no lane"
    assert image_subscriptions(kind) == (f"{kind}-urgent", kind.value, f"{kind}-bulk")


def test_an_event_goes_to_its_own_lane_and_one_without_a_lane_to_ingest_itself() -> None:
    assert admitting("uploads", {}) == ["ingest"]
    assert admitting("uploads", {"upload_lane": ASIDE}) == ["ingest-aside"]
    lanes = [upload_lane(sent) for sent in (0.5, 1, 10, 10.1, 60, 180, 540, 541, 1e9)]
    assert lanes == [*"0001123", ASIDE, ASIDE]
    assert admitting("uploads", {}, "acme") == [UPLOAD_SESSIONS]
    for lane in range(len(UPLOAD_LANES)):
        assert admitting("uploads", {"upload_lane": str(lane)}) == [upload_subscription(str(lane))]


def test_only_what_waits_in_sessions_is_received_by_them() -> None:
    with_sessions = [
        (found["name"], [rule["sql"] for rule in found["rules"]])
        for topic in broker_configuration()["topics"]
        for found in topic["subscriptions"]
        if found.get("requires_session")
    ]
    assert with_sessions == [(UPLOAD_SESSIONS, ["upload_lane IS NULL AND sys.SessionId IS NOT NULL"])]
    assert subscription("uploads", "ingest").rules[0].filter["sql"] == "upload_lane IS NULL AND sys.SessionId IS NULL"


def test_the_brokers_configuration_names_every_subscription_once() -> None:
    described = [
        (topic["name"], found["name"]) for topic in broker_configuration()["topics"] for found in topic["subscriptions"]
    ]
    assert described == [(topic.name, found.name) for topic in TOPICS for found in topic.subscriptions]


def test_a_subscription_that_does_not_exist_is_named() -> None:
    with pytest.raises(KeyError, match="topic images has no subscription nobody"):
        subscription("images", "nobody")
