"""Counts how much came of each supplier lately, and says by it in which lane the next upload waits."""

from __future__ import annotations

import time
from collections.abc import Callable
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


def placed(parcel: Parcel, sent: Lately) -> Parcel:
    """The parcel with its lane if it is a supplier's upload that has none yet; then it counts."""
    envelope = parcel.envelope
    message = envelope.message
    if envelope.upload_lane is not None or envelope.only is not None or not isinstance(message, BlobCreated):
        return parcel  # what is sent again goes on where it was
    supplier = message.container.removeprefix(SUPPLIER_CONTAINER_PREFIX)
    envelope = msgspec.structs.replace(envelope, upload_lane=upload_lane(sent.add(supplier)))
    return Parcel(envelope=envelope, topic=parcel.topic, enqueue_at=parcel.enqueue_at)
