"""How many images to hold at a time, from what the stages took: enough to keep the model busy, and no more than can be
finished in half a lock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LOCK_SHARE = 0.5
"""Of a lock's duration, in which all that is held must be done: the other half is for what goes wrong."""
SPARE = 1.25
"""Stages take a little more or less each time: a quarter more images than just enough."""
WEIGHT = 0.1
"""Of the latest image in the mean: after ten images two thirds of what is known is about them."""
BEFORE_MEASURED = 2
"""Images held of each lane until the first one has gone through: six of a new worker's, of up to five seconds each."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Means of what one image takes, in seconds."""

    path: float
    """From the receive to the settlement, without waiting for a place."""
    step: float
    """The slowest stage's time for one image: nothing goes faster than that."""


@dataclass(frozen=True)
class Slots:
    """How many images of each lane may be in hand, and why."""

    number: int
    because: str


def slots(times: Times | None, lock_seconds: float, most: int, batch: int, lanes: int = 1) -> Slots:
    """`lock_seconds`: the longest lock seen, 0 for none yet; `most`: the setting; `batch`: pictures of a model call.

    Each of the lanes may fill its slots while the others have theirs, so that half a lock is for all of them together;
    one image each is the least.
    """
    if times is None:
        return Slots(min(most, BEFORE_MEASURED), "nothing is measured yet")
    wanted = math.ceil(SPARE * times.path / times.step) + 2 * batch  # on their way, in the call and in the next one
    safe = most if not lock_seconds else (int((lock_seconds * LOCK_SHARE - times.path) / times.step) + 1) // lanes
    if safe < min(wanted, most):
        return Slots(max(1, safe), f"half a lock of {lock_seconds:g} s")
    if most < wanted:
        return Slots(most, "the setting")
    return Slots(wanted, "what keeps the model busy")


@dataclass(kw_only=True)
class Pace:
    """Learns from each image what one takes: `pace.learn(...)`, then `pace.limit(lock_seconds)`."""

    most: int = 32
    batch: int = 4
    lanes: int = 1
    """Subscriptions that the images come from, each with a consumer that asks for its limit."""
    threads: int = 2
    """That decode and draw."""
    downloads: int = 8
    uploads: int = 8
    """At a time, the settings: where storage is slow, these set the pace and not the model."""
    turn_seconds: float = 0.2
    """What a message waits for the loop of the consumer before and after its handling."""
    chosen: Slots = field(default=Slots(0, "nobody has asked yet"))
    _means: dict[str, float] = field(default_factory=dict)

    def learn(self, seconds: Mapping[str, float], model_share: float) -> None:
        """One image's stages (`Passage.seconds`), and the model call's seconds divided by its pictures."""
        for name, value in (*seconds.items(), ("share", model_share)):
            before = self._means.get(name)
            self._means[name] = value if before is None else before + WEIGHT * (value - before)

    @property
    def times(self) -> Times | None:
        """What is known; None before the first image."""
        if not self._means:
            return None
        path = sum(seconds for name, seconds in self._means.items() if name != "share") + self.turn_seconds
        known = self._means.get
        pixels = (known("decode", 0.0) + known("annotate", 0.0)) / self.threads
        storage = max(known("download", 0.0) / self.downloads, known("upload", 0.0) / self.uploads)
        return Times(path=path, step=max(known("share", 0.0), pixels, storage, 1e-4))

    def limit(self, lock_seconds: float) -> int:
        """How many images of a lane may be in hand now; `lock_seconds` as for `slots`. `chosen` has the reason."""
        self.chosen = slots(self.times, lock_seconds, self.most, self.batch, self.lanes)
        return self.chosen.number
