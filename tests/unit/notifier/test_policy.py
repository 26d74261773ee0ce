from datetime import UTC, datetime, timedelta

import pytest

from fusebus.notifier.policy import (
    Look,
    Mark,
    Phase,
    Send,
    is_complete,
    mail_step,
    next_step,
    pending,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("phase", "last_upload_at", "look", "again_at"),
    [
        (Phase.OPEN, ago(0), Look.WAIT, NOW + timedelta(seconds=600)),
        (Phase.OPEN, ago(599), Look.WAIT, NOW + timedelta(seconds=1)),
        (Phase.OPEN, ago(600), Look.CLOSE, NOW + timedelta(seconds=30)),
        (Phase.OPEN, ago(-5), Look.WAIT, NOW + timedelta(seconds=605)),  # another machine's clock is ahead
        (Phase.CLOSED, ago(0), Look.FINISH, NOW + timedelta(seconds=30)),
        (Phase.CLOSED, ago(9_999), Look.FINISH, NOW + timedelta(seconds=30)),
        (Phase.COMPLETE, ago(9_999), Look.NOTHING, None),
    ],
)
def test_a_run_is_closed_when_quiet_and_finished_when_closed(phase, last_upload_at, look, again_at):
    step = next_step(phase, last_upload_at, NOW, run_quiet=600, recheck=30)
    assert (step.look, step.again_at) == (look, again_at)
    assert step.because


@pytest.mark.parametrize(
    ("phase", "finals", "complete"),
    [
        (Phase.OPEN, ["a", "b"], False),
        (Phase.CLOSED, ["a", None], False),
        (Phase.CLOSED, ["a", "b"], True),
        (Phase.CLOSED, [], True),
        (Phase.COMPLETE, ["a"], True),
    ],
)
def test_a_run_is_complete_when_closed_with_every_upload_final(phase, finals, complete):
    assert is_complete(phase, pending(finals)) is complete


def mark(tried: float = 40, unsure: float | None = None, *, not_sent: bool = False, settled: bool = False) -> Mark:
    return Mark(
        tried_at=ago(tried), unsure_since=ago(tried if unsure is None else unsure), not_sent=not_sent, settled=settled
    )


@pytest.mark.parametrize(
    ("marker", "send"),
    [
        (None, Send.FIRST),
        (mark(settled=True), Send.SETTLED),
        (mark(9_999, settled=True), Send.SETTLED),
        (mark(1), Send.WAIT),  # its sender may be at it
        (mark(29), Send.WAIT),
        (mark(30), Send.REPEAT),
        (mark(299), Send.REPEAT),
        (mark(300), Send.UNKNOWN),
        (mark(40, unsure=299), Send.REPEAT),
        (mark(40, unsure=300), Send.UNKNOWN),  # repeats don't extend the five minutes
        (mark(1, not_sent=True), Send.REPEAT),
        (mark(9_999, not_sent=True), Send.REPEAT),
        (mark(-60), Send.WAIT),  # another machine's clock is ahead
    ],
)
def test_a_mail_is_repeated_only_while_its_outcome_is_open_and_fresh(marker, send):
    step = mail_step(marker, NOW, mail_timeout=30)
    assert step.send is send
    assert step.because
