"""Measures how long one worker takes for one image, from the decline of the queue's depth; the time is given."""

from __future__ import annotations

import msgspec

SAMPLE_IMAGES = 5  # fewer say little: a worker takes several messages at a time and settles them together
NEW_SAMPLE_SHARE = 0.3  # weight of a new sample in the running average
KEPT_SAMPLES = 20


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What is known so far. Arrivals during a sample make the rate look worse, which errs towards more workers."""

    seconds_per_image: float
    measured: bool = False
    samples: tuple[float, ...] = ()
    """The last ones, seconds per image each."""
    since: float = 0.0
    depth: int | None = None
    """At `since`; None: no sample is under way."""
    last_depth: int = 0
    workers: int = 0

    def observe(self, now: float, depth: int | None, workers: int) -> Rate:
        """The rate after seeing `depth` messages and `workers` running workers at `now` (seconds)."""
        if depth is None:
            return self  # a gap in seeing is not a gap in working
        fresh = {"since": now, "depth": depth if workers else None, "last_depth": depth, "workers": workers}
        if self.depth is None or workers != self.workers or depth > self.last_depth:
            return msgspec.structs.replace(self, **fresh)
        done = self.depth - depth
        if done < SAMPLE_IMAGES or now <= self.since:
            # An empty queue ends the sample: from here on workers wait, and waiting is not work.
            return msgspec.structs.replace(self, last_depth=depth, depth=self.depth if depth else None)
        sample = (now - self.since) * workers / done
        share = NEW_SAMPLE_SHARE if self.measured else 1.0
        average = (1 - share) * self.seconds_per_image + share * sample
        fresh["depth"] = depth or None
        samples = (*self.samples, sample)[-KEPT_SAMPLES:]
        return msgspec.structs.replace(self, seconds_per_image=average, measured=True, samples=samples, **fresh)

    def interrupted(self) -> Rate:
        """While others work on the same queue nothing can be told of this one's workers."""
        return msgspec.structs.replace(self, depth=None)
