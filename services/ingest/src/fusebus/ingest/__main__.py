"""Ingest's process: settings, real adapters, the lanes of its topic and the sweep until SIGTERM."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime

from fusebus.blobs import Blobs
from fusebus.bus import Bus, Lately, apart
from fusebus.contracts.topology import ASIDE, UPLOAD_SESSIONS, UPLOAD_SUBSCRIPTIONS, upload_subscription
from fusebus.host import Life, run_service
from fusebus.ingest.admission import Admission
from fusebus.ingest.coming import Coming
from fusebus.ingest.fairness import Turns
from fusebus.ingest.handler import Ingest
from fusebus.ingest.inhand import InHand
from fusebus.ingest.overtaking import Overtaking
from fusebus.ingest.schedule import Schedule
from fusebus.ingest.settings import IngestSettings
from fusebus.ingest.sweep import Sweep
from fusebus.ledger import Ledger
from fusebus.validation import Validator


def now() -> datetime:
    """UTC, as every time in messages and rows."""
    return datetime.now(UTC)


async def main(settings: IngestSettings, life: Life) -> None:
    """Consume uploads and sweep, until `life.stop`."""
    settings.check_timings()
    async with Validator(settings.validators, heif=settings.heif) as validator:
        await validator.start()
        async with Bus(settings.bus) as bus, Blobs(settings.blobs) as blobs, Ledger(settings.ledger) as ledger:
            admission = Admission(
                ledger=ledger, blobs=blobs, clock=now, refresh_seconds=settings.supplier_refresh_seconds
            )
            coming = Coming(ledger=ledger, settings=settings)
            arrived, turns, in_hand = Lately(), Turns(settings.consumer.slots), InHand()
            sweep = Sweep(
                blobs=blobs,
                ledger=ledger,
                publisher=bus.publisher(),
                settings=settings,
                held=admission.still_holds,
                in_hand=in_hand,
            )
            overtaking = Overtaking(
                search=lambda floods: sweep.beside(floods, settings.pile_search_most_seconds),
                arrived=arrived,
                turns=turns,
                settings=settings,
                clock=now,
            )
            ingest = Ingest(
                blobs=blobs,
                ledger=ledger,
                check=validator.check,
                clock=now,
                settings=settings,
                admission=admission,
                schedule=Schedule(ledger=ledger, clock=now, settings=settings, coming=coming),
                turns=turns,
                judging=Turns(settings.validators),
                in_hand=in_hand,
                arrived=arrived,
                announced=sweep.announced,
                overtaking=overtaking,
            )
            life.health.liveness("bus", bus.is_alive)
            life.health.ready = True
            async with asyncio.TaskGroup() as group:
                group.create_task(bus.publisher().connect("uploads"))  # opening takes 0.3 s, in a first flood's way
                group.create_task(
                    bus.consume_lanes(
                        "uploads",
                        (*UPLOAD_SUBSCRIPTIONS, upload_subscription(ASIDE)),
                        ingest,
                        share=apart,
                        stop=life.stop,
                        settings=settings.consumer,
                    )
                )
                group.create_task(
                    bus.consume_sessions(
                        "uploads",
                        UPLOAD_SESSIONS,
                        ingest,
                        stop=life.stop,
                        settings=settings.consumer,
                        sessions=settings.sessions,
                    )
                )
                group.create_task(sweep.run(life.stop))
                group.create_task(overtaking.run(life.stop))
                group.create_task(coming.run(life.stop))


if __name__ == "__main__":
    sys.exit(run_service("ingest", IngestSettings, main, "Validates uploads, enters them into runs, announces them."))
