"""Whether anybody gets anything from a subscription: a state that people set, not a depth."""

from typing import Any

import pytest
from azure.servicebus.aio.management import ServiceBusAdministrationClient

from fusebus.bus import Bus, BusSettings
from fusebus.host import Secret


@pytest.mark.parametrize(
    ("status", "receiving"),
    [("Active", True), ("Disabled", False), ("ReceiveDisabled", False), ("SendDisabled", True)],
)
async def test_a_disabled_subscription_gives_nothing(broker: Any, bus: Bus, status: str, receiving: bool) -> None:
    administration = ServiceBusAdministrationClient.from_connection_string(
        broker.connection_string, connection_verify=str(broker.ca_path)
    )
    async with administration:
        found = await administration.get_subscription("images", "detect")
        found.status = status
        await administration.update_subscription("images", found)
    assert await bus.receiving("images", "detect") is receiving
    assert await bus.receiving("images", "convert") is True


async def test_a_state_that_cannot_be_read_is_unknown() -> None:
    settings = BusSettings(
        connection=Secret("Endpoint=sb://localhost:9;SharedAccessKeyName=x;SharedAccessKey=eA==;"), depth_seconds=1.0
    )
    async with Bus(settings) as bus:
        assert await bus.receiving("images", "detect") is None
