"""Decisions and the numbers behind them, in words."""

from datetime import UTC, datetime, timedelta

import msgspec

from fusebus.console.explaining import explain, in_force, known
from fusebus.ledger import Controls, Decision, Pause, Pin, PoolStatus

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
DECISION = Decision(
    pool="gpu",
    decided_at=NOW,
    nodes=3,
    dedicated=1,
    workers=2,
    because="900 images are due",
    facts={
        "job_kind": "detect",
        "depth": 900,
        "oldest_seconds": 42,
        "open_runs": 1,
        "seconds_per_image": 1.25,
        "measured": True,
        "boot_seconds": 300.0,
        "busy": 1,
        "idle": 0,
        "coming": 2,
        "running": 1,
        "waiting": 2,
        "max_nodes": 4,
        "quota_cores_spot": 12,
        "price_spot": 0.142,
        "currency": "GBP",
        "budget": "there is no budget",
        "something_new": 7,
    },
)
STATUS = PoolStatus(pool="gpu", looked_at=NOW, job_kind="detect", vm_size="x")


def test_a_decision_is_told_with_its_reason_and_every_number_behind_it() -> None:
    assert explain(DECISION, NOW) == [
        "12:30:00 UTC: pool gpu should have 3 nodes (1 dedicated, 2 Spot) and 2 workers",
        "because 900 images are due",
        "it knew: 900 messages of detect, those in work included; the oldest image without a result came 42 s before; "
        "1 delivery open",
        "it knew: one worker takes 1.25 s an image (measured); a node takes 5 min to come (assumed)",
        "it knew: nodes: 1 busy, 0 idle, 2 coming; workers: 1 running, 2 waiting",
        "it knew: at most 4 nodes; quota of 12 spot cores; 0.142 GBP an hour for a spot node; "
        "budget: there is no budget",
        "it knew: something new: 7",
    ]


def test_what_was_not_known_is_not_a_zero() -> None:
    assert known({}) == ["how much waits could not be read"]


def test_what_was_not_done_says_so() -> None:
    words = explain(msgspec.structs.replace(DECISION, mode="shadow"), NOW)[0]
    assert words.endswith("(shadow: nothing was done)")


def test_pins_pauses_and_trouble_are_told_as_long_as_they_hold() -> None:
    controls = Controls(
        pins={"gpu": Pin(pool="gpu", nodes=1, until=NOW + timedelta(hours=1), set_by="a@b", set_at=NOW, reason="demo")},
        pauses={"": Pause(set_by="c@d", set_at=NOW, to_zero=True)},
    )
    status = msgspec.structs.replace(STATUS, problem="429", breaker="3 nodes in a row turned out unusable")
    assert in_force(status, controls, "gpu", NOW) == [
        "now: emptied by the kill switch by c@d, until it is lifted (fusebus resume)",
        "now: pinned to 1 node by a@b until 13:30:00 UTC: demo",
        "now: nothing new is bought: 3 nodes in a row turned out unusable",
        "now: Batch: 429",
    ]
    assert in_force(STATUS, Controls(), "gpu", NOW) == []


def test_a_dispatcher_that_does_not_look_is_told() -> None:
    later = NOW + timedelta(minutes=12)
    assert in_force(STATUS, Controls(), "gpu", later) == ["the last look was 12 min ago: no dispatcher is at work"]
    assert in_force(None, Controls(), "gpu", NOW) == ["no dispatcher has looked at this pool yet"]
