"""What a look at the depth says, the lag watchdog, and how settings are read."""

import asyncio
import logging
import time

import msgspec
import pytest

from fusebus.bus import Bus, BusSettings, ConsumerSettings, Context
from fusebus.bus.liveness import Finding, judge, watch_lag
from fusebus.contracts.envelope import Envelope
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import done
from fusebus.host import load_settings


@pytest.mark.parametrize(
    ("waiting", "rebuilt", "finding"),
    [
        (None, False, Finding.UNKNOWN),
        (None, True, Finding.UNKNOWN),
        (0, False, Finding.EMPTY),
        (0, True, Finding.EMPTY),
        (-1, False, Finding.EMPTY),
        (3, False, Finding.REBUILD),
        (3, True, Finding.DEAD),
    ],
)
def test_a_silent_consumer_is_judged_by_what_waits(waiting, rebuilt, finding):
    assert judge(waiting, rebuilt) is finding


async def test_a_blocked_event_loop_is_reported(caplog):
    watchdog = asyncio.create_task(watch_lag(0.2))
    await asyncio.sleep(0.1)
    with caplog.at_level(logging.WARNING):
        time.sleep(1.0)
        await asyncio.sleep(0.1)
    watchdog.cancel()
    assert "blocked" in caplog.text


def test_settings_are_read_from_the_environment():
    class Settings(msgspec.Struct, frozen=True, kw_only=True):
        bus: BusSettings
        consumer: ConsumerSettings

    secret = "Endpoint=sb://x;SharedAccessKeyName=a;SharedAccessKey=b"
    settings = load_settings(
        Settings, "ingest", {"FUSEBUS_BUS_CONNECTION": secret, "FUSEBUS_CONSUMER_DRAIN_SECONDS": "3"}
    )
    assert settings.bus.connection.reveal() == secret
    assert secret not in repr(settings)
    assert settings.consumer.drain_seconds == 3.0


@pytest.mark.parametrize("settings_type", [BusSettings, ConsumerSettings])
def test_every_setting_says_what_it_does(settings_type):
    for field in msgspec.structs.fields(settings_type):
        metas = [meta for meta in getattr(field.type, "__metadata__", ()) if meta.description]
        assert metas, f"{field.name} has no description"


def test_a_bus_without_an_address_is_an_error():
    with pytest.raises(ValueError, match="FUSEBUS_BUS_CONNECTION"):
        Bus(BusSettings())


def test_a_subscription_that_is_not_in_the_topology_is_an_error():
    bus = Bus(BusSettings(namespace="example.servicebus.windows.net"))
    with pytest.raises(KeyError, match="nobody"):
        bus.consumer("images", "nobody", lambda message, context: done(), stop=asyncio.Event())


def test_a_handler_is_tested_with_plain_values():
    message = CloseRun(run_id="r1", supplier="acme", requested_by="ops")
    context = Context(envelope=Envelope(message=message, attempt=2))
    assert (context.attempt, context.delivery_count, context.message_id) == (2, 0, "CloseRun/r1/2/0")
    assert not context.lock_lost.is_set()
