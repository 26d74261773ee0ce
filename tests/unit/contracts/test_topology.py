import pytest

from fusebus.contracts.topology import (
    TOPICS,
    Rule,
    Subscription,
    Topic,
    broker_configuration,
    retry_reaches_only_its_own,
    subscription,
)


@pytest.mark.parametrize("topic", TOPICS, ids=lambda topic: topic.name)
def test_a_delayed_retry_reaches_only_the_subscription_it_is_for(topic: Topic) -> None:
    assert retry_reaches_only_its_own(topic)


def test_overlapping_subscriptions_are_found() -> None:
    both = (Subscription(name="one"), Subscription(name="two", rules=(Rule(name="r", properties={"a": "b"}),)))
    assert not retry_reaches_only_its_own(Topic(name="t", carries=(), subscriptions=both))


def test_each_job_kind_goes_to_its_own_subscription() -> None:
    images = next(topic for topic in TOPICS if topic.name == "images")
    admitted = [
        found.name for found in images.subscriptions if any(rule.admits({"job_kind": "detect"}) for rule in found.rules)
    ]
    assert admitted == ["detect"]


def test_the_brokers_configuration_names_every_subscription_once() -> None:
    described = [
        (topic["name"], found["name"]) for topic in broker_configuration()["topics"] for found in topic["subscriptions"]
    ]
    assert described == [(topic.name, found.name) for topic in TOPICS for found in topic.subscriptions]


def test_a_subscription_that_does_not_exist_is_named() -> None:
    with pytest.raises(KeyError, match="topic images has no subscription nobody"):
        subscription("images", "nobody")
