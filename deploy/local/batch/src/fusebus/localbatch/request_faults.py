"""Which requests are throttled, fail, wait or lose their answer; pure, the clock is given."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum


class Plane(StrEnum):
    ARM = "arm"
    DATA = "data"


class Effect(StrEnum):
    THROTTLE = "throttle"  # 429 with Retry-After, nothing is done
    ERROR = "error"  # another refusal, nothing is done
    DELAY = "delay"  # it is done, late
    LOSE = "lose"  # it is done, and the connection breaks instead of the answer


@dataclass
class Rule:
    """Hits requests of a plane (None: both), method (None: any) and path (a regular expression, found anywhere)."""

    effect: Effect
    plane: Plane | None = None
    method: str | None = None
    path: str = ""
    left: int | None = None  # so many requests more
    until: float | None = None  # and not later
    retry_after: float = 1.0  # seconds, told with 429 and 503
    seconds: float = 0.0  # of a delay
    status: int = 500
    code: str = "InternalError"

    def hits(self, plane: Plane, method: str, path: str, now: float) -> bool:
        return (
            self.alive(now)
            and self.plane in (None, plane)
            and self.method in (None, method)
            and re.search(self.path, path) is not None
        )

    def alive(self, now: float) -> bool:
        return self.left != 0 and (self.until is None or now < self.until)


@dataclass
class _Bucket:
    tokens: float
    at: float


@dataclass
class RequestFaults:
    """The rules in force, and the steady rate that each plane admits (requests/s; None: any)."""

    requests_per_second: float | None = None
    rules: list[Rule] = field(default_factory=list)
    _buckets: dict[Plane, _Bucket] = field(default_factory=dict)

    def of(self, plane: Plane, method: str, path: str, now: float) -> Rule | None:
        """What happens to this request; the first rule that hits counts it."""
        self.rules = [rule for rule in self.rules if rule.alive(now)]
        for rule in self.rules:
            if rule.hits(plane, method, path, now):
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return self._over_rate(plane, now)

    def _over_rate(self, plane: Plane, now: float) -> Rule | None:
        rate = self.requests_per_second
        if rate is None:
            return None
        bucket = self._buckets.setdefault(plane, _Bucket(max(1.0, rate), now))
        bucket.tokens, bucket.at = min(max(1.0, rate), bucket.tokens + (now - bucket.at) * rate), now
        if bucket.tokens >= 1.0:
            bucket.tokens -= 1.0
            return None
        return Rule(Effect.THROTTLE, retry_after=(1.0 - bucket.tokens) / rate)
