"""The dispatcher as a process: settings, real adapters, looks until SIGTERM."""

from __future__ import annotations

import sys

from fusebus.bus import Bus
from fusebus.dispatcher.adapters import BatchFleet, BlobLeader
from fusebus.dispatcher.loop import Dispatcher
from fusebus.dispatcher.settings import DispatcherSettings
from fusebus.host import Life, run_service
from fusebus.ledger import Ledger


async def serve(settings: DispatcherSettings, life: Life) -> None:
    """Run until told to stop; nodes and workers stay as they are, a restart takes them up again."""
    async with (
        Bus(settings.bus) as bus,
        Ledger(settings.ledger) as ledger,
        BatchFleet(settings) as fleet,
        BlobLeader(settings, settings.blobs) as leader,
    ):
        dispatcher = Dispatcher(settings, bus, bus.publisher(), ledger, fleet, leader)
        await dispatcher.begin()
        life.health.liveness("looking", dispatcher.is_alive)
        life.health.ready = True
        await dispatcher.run(life.stop)


def main() -> int:
    """The exit code."""
    return run_service("dispatcher", DispatcherSettings, serve, about="Sizes the Azure Batch pools from the work.")


if __name__ == "__main__":
    sys.exit(main())
