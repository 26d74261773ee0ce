"""What pools and queues teach from look to look: boot times, evictions, refusals, work without result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from fusebus.dispatcher.seen import IDLE, RUNNING, PoolSeen
from fusebus.planning import Quantiles, Refusal

KEPT_SAMPLES = 20
P95_OVER_P50 = 1.6  # of an assumed boot time


def quantiles(samples: Sequence[float], assumed: Quantiles) -> Quantiles:
    """Median and 95 % of what was measured; what is assumed where nothing was."""
    if not samples:
        return assumed
    ordered = sorted(samples)
    return Quantiles(ordered[(len(ordered) - 1) // 2], ordered[round(0.95 * (len(ordered) - 1))], measured=True)


class Boots(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from asking for a node until it works, of one pool."""

    samples: tuple[float, ...] = ()
    known: frozenset[str] = frozenset()
    """Nodes that were usable at the last look."""
    looked: bool = False

    def observe(self, seen: PoolSeen) -> Boots:
        """After a look: nodes that came up since the one before, as far as the last resize brought them."""
        usable = {node.id: node for node in seen.nodes if node.state in (IDLE, RUNNING)}
        fresh = [
            (node.since - seen.resized_at).total_seconds()
            for name, node in usable.items()
            if self.looked
            and name not in self.known
            and node.since
            and seen.resized_at
            # Allocated before that resize: Batch gave back a preempted node, or it rebooted.
            and node.allocated_at
            and node.allocated_at >= seen.resized_at
        ]
        samples = (*self.samples, *(seconds for seconds in fresh if seconds > 0))[-KEPT_SAMPLES:]
        return Boots(samples=samples, known=frozenset(usable), looked=True)


class Evictions(msgspec.Struct, frozen=True, kw_only=True):
    """Spot nodes that one pool lost."""

    gone: frozenset[str] | None = frozenset()
    """Without a machine at the last look; None: not known, so none of them was lost just now."""
    times: tuple[datetime, ...] = ()

    def observe(self, seen: PoolSeen, now: datetime, storm_seconds: float) -> Evictions:
        """After a look; what is older than a storm lasts is forgotten."""
        gone = frozenset(node.id for node in seen.nodes if node.state == "preempted")
        kept = tuple(at for at in self.times if now - at < timedelta(seconds=storm_seconds))
        lost = frozenset() if self.gone is None else gone - self.gone
        return Evictions(gone=gone, times=kept + (now,) * len(lost))


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds in which workers of one job kind ran since its queue moved: they grow for ever while only poison is left.

    However many run: a job that takes ten minutes takes them on forty nodes too."""

    depth: int | None = None
    at: float = 0.0
    """Monotonic seconds."""
    fruitless: float = 0.0

    def observe(self, now: float, depth: int | None, at_it: bool) -> Progress:
        """After a look; an unknown depth says nothing."""
        if depth is None:
            return msgspec.structs.replace(self, at=now)
        moved = depth != self.depth or depth == 0
        passed = 0.0 if self.depth is None else max(0.0, now - self.at)
        return Progress(depth=depth, at=now, fruitless=0.0 if moved else self.fruitless + (passed if at_it else 0.0))


def at_it(pools: Iterable[PoolSeen]) -> bool:
    """Whether workers run, or don't start although a node is idle (their job may be disabled): both cost."""
    return any(seen.running or (seen.waiting and any(node.state == IDLE for node in seen.nodes)) for seen in pools)


def refusals(before: Mapping[bool, Refusal], seen: PoolSeen, now: datetime) -> dict[bool, Refusal]:
    """The newest refusal of each price class (by Spot), and how many it was in a row.

    Batch forgets its errors with the next resize, which may be our own taking back of the target: so they are kept,
    until a node of that class has come since.
    """
    found = {spot: one for spot, one in before.items() if not _came_since(one, seen)}
    if seen.shortfall:
        at = (seen.resized_at or now).timestamp()
        for spot, target in ((True, seen.target_spot), (False, seen.target_dedicated)):
            if target > len(seen.staying(not spot)):
                last = before.get(spot)
                times = 1 if last is None else last.times + (at > last.at)
                found[spot] = Refusal(spot=spot, at=at, reason=seen.shortfall, times=times)
    return found


def _came_since(refusal: Refusal, seen: PoolSeen) -> bool:
    """Whether a later resize has brought a node; what the refused one brought says nothing."""
    if seen.resized_at is None or seen.resized_at.timestamp() <= refusal.at:
        return False
    came = [node.allocated_at for node in seen.nodes if node.dedicated is not refusal.spot and node.allocated_at]
    return any(at >= seen.resized_at for at in came)
