"""Counts how much came of each supplier lately, and says by it in which lane the next upload waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from fusebus.bus.settlement import Parcel
from fusebus.contracts.messages import SUPPLIER_CONTAINER_PREFIX, BlobCreated
from fusebus.contracts.topology import upload_lane

HALF_LIFE = 30.0  # seconds, after which an upload counts half
NOTHING = 0.5  # of an upload, below which a supplier is forgotten
MANY_SUPPLIERS = 1000  # remembered before those of long ago are forgotten


@dataclass(kw_only=True)
class Lately:
    """How many uploads of each supplier were seen lately; older ones count less and less."""

    clock: Callable[[], float] = time.monotonic
    _counts: dict[str, tuple[float, float]] = field(default_factory=dict)

    def of(self, supplier: str) -> float:
        """About as many as in the last minute, where they come evenly (the sum of a decay of HALF_LIFE is 43 s)."""
        count, at = self._counts.get(supplier, (0.0, 0.0))
        return count * 0.5 ** ((self.clock() - at) / HALF_LIFE) if count else 0.0

    def add(self, supplier: str) -> float:
        """One more; how many that makes."""
        count = self.of(supplier) + 1.0
        self._counts[supplier] = (count, self.clock())
        if len(self._counts) > MANY_SUPPLIERS:
            self._counts = {name: one for name, one in self._counts.items() if self.of(name) >= NOTHING}
        return count


def placed(parcels: Sequence[Parcel], sent: Lately) -> list[Parcel]:
    """The parcels; those that are a supplier's uploads without a lane count, and get that of all that was sent so far.

    So what a flood sends together goes where a flood's uploads wait, from the first of them.
    """
    suppliers = [_supplier_of(parcel) for parcel in parcels]
    for supplier in filter(None, suppliers):
        sent.add(supplier)
    return [
        _in_lane_of(sent.of(one), parcel) if one else parcel for one, parcel in zip(suppliers, parcels, strict=True)
    ]


def _supplier_of(parcel: Parcel) -> str:
    """Empty where the parcel needs no lane; what is sent again goes on where it was."""
    envelope, message = parcel.envelope, parcel.envelope.message
    if envelope.upload_lane is not None or envelope.only is not None or not isinstance(message, BlobCreated):
        return ""
    return message.container.removeprefix(SUPPLIER_CONTAINER_PREFIX)


def _in_lane_of(sent: float, parcel: Parcel) -> Parcel:
    envelope = msgspec.structs.replace(parcel.envelope, upload_lane=upload_lane(sent))
    return Parcel(envelope=envelope, topic=parcel.topic, enqueue_at=parcel.enqueue_at)
