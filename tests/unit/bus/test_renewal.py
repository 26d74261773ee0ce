"""When a lock is renewed, and what a failed renewal does: on virtual time, against a broker of three lines."""

import asyncio
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusebus.bus.backoff import backoff
from fusebus.bus.counts import Counts
from fusebus.bus.errors import LinkBroken, LockLost
from fusebus.bus.renewal import Lock, keep_lock, next_try
from fusebus.bus.settings import ConsumerSettings
from fusebus.bus.settlement import Source

LOCK = 60.0
SETTINGS = ConsumerSettings()


class Time:
    """Passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Renewals:
    """Answers each renewal with the next order; at the end the keeper is cancelled."""

    def __init__(self, time: Time, *orders: str) -> None:
        self.time = time
        self.orders = list(orders)
        self.at: list[float] = []

    async def __call__(self) -> datetime:
        self.at.append(self.time.now)
        order = self.orders.pop(0) if self.orders else "end"
        if order == "lost":
            raise LockLost("410")
        if order == "broken":
            raise LinkBroken("detached")
        if order == "end":
            raise asyncio.CancelledError
        return datetime.fromtimestamp(self.time.now + LOCK, UTC)


async def keep(*orders: str) -> tuple[Lock, Renewals, Counts]:
    """Runs the keeper until its orders are used up or the lock is lost."""
    time = Time()
    lock = Lock(time.now + LOCK)
    renewals = Renewals(time, *orders)
    counts = Counts(Source(topic="images", subscription="detect"))
    try:
        await keep_lock(lock, renewals, SETTINGS, counts, clock=time, sleep=time.sleep)
    except asyncio.CancelledError:
        assert not renewals.orders
    return lock, renewals, counts


async def test_a_lock_is_renewed_at_half_life_again_and_again():
    lock, renewals, _ = await keep("ok", "ok", "ok")
    assert renewals.at == [1030.0, 1060.0, 1090.0, 1120.0]
    assert not lock.lost.is_set()


async def test_a_failed_renewal_is_repeated_soon_and_then_all_is_as_before():
    lock, renewals, counts = await keep("broken", "broken", "ok")
    first, second, third, fourth = renewals.at
    assert first == 1030.0
    assert 0 < second - first <= SETTINGS.renew_backoff_seconds
    assert 0 < third - second <= SETTINGS.renew_backoff_seconds * 2
    assert fourth == pytest.approx(third + LOCK / 2)
    assert (counts["renewal_failed"], counts["renewed"]) == (2, 1)
    assert not lock.lost.is_set()


async def test_renewal_is_tried_until_the_lock_has_really_ended():
    lock, renewals, _ = await keep(*["broken"] * 500)
    assert lock.lost.is_set()
    assert 1000 + LOCK - 1 < renewals.at[-1] < 1000 + LOCK  # not given up early
    assert len(renewals.at) < 40  # and not in a busy loop


async def test_a_lock_that_the_broker_says_is_lost_is_lost_at_once():
    lock, renewals, _ = await keep("ok", "lost")
    assert lock.lost.is_set()
    assert renewals.at == [1030.0, 1060.0]
    assert lock.left(1061.0) == 0.0


@given(
    left=st.floats(min_value=0.001, max_value=300),
    failures=st.integers(0, 60),
    jitter=st.floats(min_value=0, max_value=0.999),
)
def test_no_wait_is_longer_than_the_lock_has_left(left, failures, jitter):
    wait = next_try(left, failures, SETTINGS, jitter)
    assert 0 < wait <= left
    if left > 1:
        assert wait <= left / 2  # there is always time for another try


@given(failures=st.integers(1, 5000), jitter=st.floats(min_value=0, max_value=0.999))
def test_backoff_grows_to_its_limit_and_is_never_nothing(failures, jitter):
    wait = backoff(failures, 0.5, 15.0, jitter)
    assert 0.25 <= wait <= 15.0
    if failures > 5:
        assert wait >= 7.5
