"""`fusebus dead-letters` on a broker: what was given up is shown, goes back or goes away, and nothing else does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from click.testing import CliRunner, Result

from fusebus.bus import Bus, BusSettings, ConsumerSettings
from fusebus.console.__main__ import fusebus
from fusebus.contracts.messages import CloseRun
from fusebus.contracts.outcomes import Outgoing, Reject
from fusebus.contracts.topology import broker_configuration
from fusebus.host import Secret

RUNS = ("20260504T080000Z-acme-u1", "20260504T080000Z-acme-u2")


@pytest.fixture
def bus_settings(start_broker: Any) -> BusSettings:
    """A broker whose results/notifier has two sound dead letters and one that nobody can decode."""
    broker = start_broker(broker_configuration())
    settings = BusSettings(connection=Secret(broker.connection_string), ca_file=str(broker.ca_path), close_seconds=0.1)
    with (
        ServiceBusClient.from_connection_string(broker.connection_string) as client,
        client.get_topic_sender("results") as sender,
    ):
        sender.send_messages(ServiceBusMessage(b"\x1b[31mnot json", message_id="strange"))
    asyncio.run(_give_up(settings))
    return settings


async def _give_up(settings: BusSettings) -> None:
    async def refuse(message: CloseRun, context: Any) -> Reject:
        return Reject(reason="unknown_run", description=f"there is no run {message.run_id}\n\u202eno")

    async with Bus(settings) as bus:
        closes = [CloseRun(run_id=run, supplier="acme", requested_by="test") for run in RUNS]
        await bus.publisher().publish([Outgoing(message=close) for close in closes])
        quick = ConsumerSettings(idle_exit_seconds=0.5, idle_wait_seconds=0.1)
        await bus.consume("results", "notifier", refuse, stop=asyncio.Event(), settings=quick)


@pytest.fixture
def run(bus_settings: BusSettings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("FUSEBUS_BUS_CONNECTION", bus_settings.connection.reveal())
    monkeypatch.setenv("FUSEBUS_BUS_CA_FILE", bus_settings.ca_file)
    monkeypatch.delenv("FUSEBUS_SETTINGS", raising=False)
    return lambda *arguments: CliRunner().invoke(fusebus, ["dead-letters", *arguments])


async def _waiting(settings: BusSettings) -> tuple[int, int]:
    async with Bus(settings) as bus:
        depth = await bus.depth("results", "notifier")
    assert depth is not None
    return depth.active, depth.dead_letter


def test_every_dead_letter_is_shown_with_its_reason_in_one_plain_line(run: Callable[..., Result]) -> None:
    shown = run()
    assert shown.exit_code == 0, shown.output
    assert "results/notifier" in shown.output
    assert f"unknown_run: there is no run {RUNS[0]} no  [run {RUNS[0]}]" in shown.output
    assert "undecodable" in shown.output
    assert "\u202e" not in shown.output and "\x1b" not in shown.output
    assert shown.output.endswith("3 dead letters\n")


def test_what_is_put_back_waits_again_and_what_nobody_can_decode_stays(
    run: Callable[..., Result], bus_settings: BusSettings
) -> None:
    done = run("--put-back", "--json")
    assert done.exit_code == 3, done.output
    told = json.loads(done.stdout)
    assert (told["put_back"], told["removed"], told["left"]) == (2, 0, 1)
    assert asyncio.run(_waiting(bus_settings)) == (2, 1)


def test_one_message_is_removed_by_its_id_and_the_others_stay(
    run: Callable[..., Result], bus_settings: BusSettings
) -> None:
    done = run("--queue", "results/notifier", "--id", f"CloseRun/{RUNS[1]}/1/0", "--remove")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("0 put back, 1 removed, 0 left: nobody can decode them\n")
    assert asyncio.run(_waiting(bus_settings)) == (0, 2)
    assert run("--put-back", "--remove").exit_code == 2
