"""How long what waits in a queue has waited, told from its depth alone: for what the ledger does not say. Pure."""

from __future__ import annotations

import msgspec

ONE_ARRIVAL = 60.0  # seconds: what arrives nearer to each other than this is kept as one group, of the first's time


class Ages(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of one queue, as if the first to come were the first to be done. Times in monotonic seconds."""

    groups: tuple[tuple[float, float], ...] = ()
    """When first seen, and how many images; the oldest first."""
    at: float = 0.0

    def observe(self, now: float, depth: int | None, images_per_second: float) -> Ages:
        """After a look; an unknown depth says nothing.

        `images_per_second` is what the workers that run do: in a steady flow the depth alone would never show that
        the oldest are gone.
        """
        if depth is None:
            return self
        there = sum(images for _, images in self.groups)
        done = min(there, images_per_second * max(0.0, now - self.at))
        arrived = depth - (there - done)
        groups = _without_oldest(self.groups, done + max(0.0, -arrived))
        if arrived > 0:
            since, images = groups[-1] if groups else (now, 0.0)
            recent = now - since < ONE_ARRIVAL
            groups = (*groups[:-1], (since, images + arrived)) if recent else (*groups, (now, arrived))
        return Ages(groups=groups if depth else (), at=now)

    def oldest(self, images: int) -> float | None:
        """Seconds that the oldest of the newest so many have waited; None where nothing waits."""
        age, left = None, float(images)
        for since, count in reversed(self.groups):
            if left > 1e-6:
                age = max(0.0, self.at - since)
            left -= count
        return age


def _without_oldest(groups: tuple[tuple[float, float], ...], images: float) -> tuple[tuple[float, float], ...]:
    left = []
    for since, count in groups:
        gone = min(count, images)
        images -= gone
        if count - gone > 1e-6:
            left.append((since, count - gone))
    return tuple(left)
