"""The notifier's process: settings, real adapters, two subscriptions until SIGTERM."""

from __future__ import annotations

import asyncio
import sys

from fusebus.blobs import Blobs
from fusebus.bus import Bus
from fusebus.host import Life, run_service
from fusebus.ledger import Ledger
from fusebus.notifier import adapters
from fusebus.notifier.handler import Handler
from fusebus.notifier.ports import Ports
from fusebus.notifier.settings import NotifierSettings
from fusebus.notifier.thumbnails import shrink_jpeg


async def main(settings: NotifierSettings, life: Life) -> None:
    """Consume results and fleet, watch the dead letters, until `life.stop`."""
    async with Bus(settings.bus) as bus, Blobs(settings.blobs) as blobs, Ledger(settings.ledger) as ledger:
        mailer = adapters.mailer_of(settings)
        runs_channel, alerts_channel = adapters.channels_of(settings)
        handler = Handler(
            Ports(
                settings=settings,
                ledger=ledger,
                results=blobs,
                dead_letters=bus,
                publish=bus.publisher().publish,
                mailer=mailer,
                shrink=shrink_jpeg,
                clock=adapters.now,
                life=adapters.life(),
                runs_channel=runs_channel,
                alerts_channel=alerts_channel,
            )
        )
        life.health.liveness("bus", bus.is_alive)
        life.health.ready = True
        async with asyncio.TaskGroup() as group:
            for topic in ("results", "fleet"):
                group.create_task(bus.consume(topic, "notifier", handler, stop=life.stop, settings=settings.consumer))
            group.create_task(adapters.watch_dead_letters(handler, settings.dead_letter_interval_seconds, life.stop))


if __name__ == "__main__":
    sys.exit(
        run_service("notifier", NotifierSettings, main, "Folds finals, closes runs, writes reports, tells people.")
    )
