"""The dispatcher as a process: settings, real adapters, looks until SIGTERM."""

from __future__ import annotations

import asyncio
import sys

from fusebus.bus import Bus
from fusebus.dispatcher.adapters import BlobLeader, Fleets
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.nightly import Nightly
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import Life, run_service
from fusebus.ledger import Ledger


async def serve(settings: DispatcherSettings, life: Life) -> None:
    """Run until told to stop; nodes and workers stay as they are, a restart takes them up again."""
    async with (
        Bus(settings.bus) as bus,
        Ledger(settings.ledger) as ledger,
        Fleets(settings) as fleet,
        BlobLeader(settings, settings.blobs) as leader,
    ):
        dispatcher = Dispatcher(settings, bus, bus.publisher(), ledger, fleet, leader)
        night = Nightly(settings.costs, ledger, dispatcher.accounts, leads=lambda: not settings.shadow)
        await dispatcher.begin()
        life.health.liveness("looking", dispatcher.is_alive)
        life.health.ready = True
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.run(life.stop))
            group.create_task(night.run(life.stop))
            group.create_task(bus.watch_queues(life.stop))


def main() -> int:
    """The exit code."""
    return run_service("dispatcher", DispatcherSettings, serve, about="Sizes the Azure Batch pools from the work.")


if __name__ == "__main__":
    sys.exit(main())
