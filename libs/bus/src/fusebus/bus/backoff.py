"""How long to wait before the next try."""

from __future__ import annotations

from random import random


def backoff(failures: int, first: float, most: float, jitter: float | None = None) -> float:
    """Seconds to wait after `failures` failures in a row (1 = the first).

    Doubles from `first` up to `most`; between half and all of that, so that many processes that failed together don't
    come back together. `jitter` in [0, 1) is drawn where not given.
    """
    # The exponent is capped: 2**1100 is no float any more, and no wait doubles 32 times.
    whole = min(most, first * 2.0 ** min(failures - 1, 32))
    return whole * (0.5 + (random() if jitter is None else jitter) / 2)  # noqa: S311 - no secret depends on it
