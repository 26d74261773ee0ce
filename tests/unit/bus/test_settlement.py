"""What follows from each outcome."""

from datetime import UTC, datetime, timedelta

import pytest

from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import Complete, DeadLetter, GiveBack, Source, plan, plan_failure
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import CloseRun, FleetChanged, Message
from fusebus.contracts.outcomes import Abandon, Done, Outgoing, Reject, Retry, done

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SOURCE = Source(topic="results", subscription="notifier")
SETTINGS = ConsumerSettings(max_attempts=3, max_passing_attempts=4, retry_seconds=10, retry_most_seconds=15)
CLOSE = CloseRun(run_id="r1", supplier="acme", requested_by="ops")
FLEET = FleetChanged(pool="gpu", nodes=1, workers=1, because="work waits", decided_at=NOW)


def envelope(attempt: int = 1, failures: int = 0) -> Envelope:
    return Envelope(message=CLOSE, attempt=attempt, failures=failures, replay=2, traceparent="00-aa-bb-01")


def decide(outcome, attempt=1):
    return plan(outcome, envelope(attempt), SOURCE, SETTINGS, NOW)


def test_done_publishes_each_message_to_its_topic_then_completes():
    later = NOW + timedelta(hours=1)
    decided = decide(Done([Outgoing(message=CLOSE), Outgoing(message=FLEET, enqueue_at=later)]))
    assert decided.settlement == Complete()
    assert [(parcel.topic, parcel.enqueue_at) for parcel in decided.parcels] == [("results", None), ("fleet", later)]
    assert decide(done()).parcels == ()


def test_reject_publishes_then_dead_letters():
    decided = decide(Reject(reason="blob_changed", description="etag", publish=[Outgoing(message=CLOSE)]))
    assert decided.settlement == DeadLetter("blob_changed", "etag")
    assert len(decided.parcels) == 1


def test_abandon_gives_back_and_publishes_nothing():
    assert decide(Abandon(reason="spot notice")).settlement == GiveBack("spot notice")


def test_a_retry_is_a_scheduled_copy_for_this_subscription_alone():
    decided = decide(Retry(delay=90, reason="busy"))
    (parcel,) = decided.parcels
    assert decided.settlement == Complete()
    assert decided.retried
    assert parcel.topic == "results"
    assert parcel.enqueue_at == NOW + timedelta(seconds=90)
    assert (parcel.envelope.attempt, parcel.envelope.only, parcel.envelope.replay) == (2, "notifier", 2)
    assert parcel.envelope.message_id != envelope().message_id  # or duplicate detection would swallow it
    assert parcel.envelope.traceparent == "00-aa-bb-01"


def test_a_retry_goes_back_to_its_own_topic_whatever_the_message():
    (parcel,) = plan(
        Retry(delay=1, reason="busy"), envelope(), Source(topic="x", subscription="y"), SETTINGS, NOW
    ).parcels
    assert (parcel.topic, parcel.envelope.only) == ("x", "y")


@pytest.mark.parametrize(("attempt", "gives_up"), [(1, False), (3, False), (4, True), (5, True)])
def test_the_last_attempt_is_given_up_with_the_reason(attempt, gives_up):
    decided = decide(Retry(delay=1, reason="storage_unavailable", description="503"), attempt)
    given_up = DeadLetter("storage_unavailable", f"gave up after {attempt} attempts; last: 503")
    assert (decided.settlement == given_up) == gives_up
    assert bool(decided.parcels) != gives_up


def test_an_exception_is_a_retry_that_waits_longer_each_time():
    waits = [
        plan_failure(OSError("no route"), envelope(1 + n, n), SOURCE, SETTINGS, NOW, jitter=1.0).parcels[0].enqueue_at
        for n in (0, 1)
    ]
    assert waits == [NOW + timedelta(seconds=10), NOW + timedelta(seconds=15)]
    given_up = plan_failure(OSError("no route"), envelope(3, 2), SOURCE, SETTINGS, NOW)
    assert given_up.settlement == DeadLetter("handler_failed", "gave up after 3 attempts; last: OSError: no route")


def test_an_outage_that_was_waited_out_does_not_spend_the_attempts_of_a_fault():
    after_the_outage = envelope(attempt=40)
    (parcel,) = plan_failure(OSError("no route"), after_the_outage, SOURCE, SETTINGS, NOW).parcels
    assert (parcel.envelope.attempt, parcel.envelope.failures) == (41, 1)
    (parcel,) = decide(Retry(delay=1, reason="storage_unavailable"), 1).parcels
    assert (parcel.envelope.attempt, parcel.envelope.failures) == (2, 0)


def test_a_dead_letters_text_is_cut_to_what_service_bus_takes():
    letter = DeadLetter("r" * 9000, "d" * 9000)
    assert (len(letter.reason), len(letter.description)) == (4096, 4096)


def test_a_message_that_no_topic_carries_is_an_error():
    class Stray(Message, frozen=True, kw_only=True, tag="Stray"):
        pass

    with pytest.raises(KeyError):
        decide(done(Stray()))


def test_anything_but_an_outcome_is_an_error():
    with pytest.raises(TypeError, match="NoneType"):
        decide(None)
