"""Work by deadline, and whether the nodes at hand do it in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fusebus.planning.demand import Due, KindDemand
from fusebus.planning.limits import Limits
from fusebus.planning.lines import Line

SEARCH_STEPS = 40  # of a bisection: more than a second's precision over any horizon
HORIZON = 30 * 86_400.0  # seconds: what is later than this counts as never


class Load(msgspec.Struct, frozen=True):
    """So many images are to be done by `deadline`, all earlier deadlines' images included."""

    deadline: float
    images: int
    """Cumulative."""


def work_of(kind: KindDemand, limits: Limits, now: float) -> list[Load]:
    """The queue by deadline, earliest first; the queue's depth is the truth, the ledger only says how it splits."""
    assert kind.depth is not None
    left, total, found = kind.depth, sum(due.images for due in kind.due), list[Due](kind.due)
    if total < left:
        # Never unknown for longer than one look: a deadline that moves along with `now` would never be bought for.
        deadline = now - (kind.oldest_age or 0.0) + limits.deadline
        found.append(Due(images=left - total, deadline=deadline))
    found.sort(key=lambda due: due.deadline)
    surplus, loads, cumulative = max(0, total - left), list[Load](), 0
    for due in found:
        # The ledger lags: what it still counts and the queue no longer has was done, most urgent first.
        gone = min(surplus, due.images)
        surplus -= gone
        if due.images > gone:
            cumulative += due.images - gone
            loads.append(Load(due.deadline, cumulative))
    return loads


def reachable(work: Sequence[Load], lines: Sequence[Line], limits: Limits, now: float) -> list[Load]:
    """The work with no deadline earlier than a node that is ordered now could be of use for (`Limits.least_use`).

    What is due earlier is planned for that moment instead: no fleet is bought for the seconds before a deadline, and
    what is late already is done soon, by nodes that are not ordered again at each look.
    """
    first = soonest(lines, limits, now)
    return [Load(max(load.deadline, first), load.images) for load in work]


def soonest(lines: Sequence[Line], limits: Limits, now: float) -> float:
    """The earliest deadline that a node which is ordered now could be of use for."""
    return now + min((line.boot.p95 for line in lines), default=0.0) + limits.margin + limits.least_use


def at_hand(lines: Sequence[Line], until: float, now: float) -> float:
    """Images that all nodes there and coming do by `until`."""
    return sum(line.at_hand(until - now) for line in lines)


def is_covered(lines: Sequence[Line], work: Sequence[Load], margin: float, now: float, headroom: float = 1.0) -> bool:
    """Whether the nodes at hand meet every deadline."""
    return all(at_hand(lines, load.deadline - margin, now) >= load.images * headroom - 1e-6 for load in work)


def finished_at(lines: Sequence[Line], images: float, now: float) -> float:
    """When the nodes at hand have done so many images; infinite: never."""
    low, high = now, now + HORIZON
    if at_hand(lines, high, now) < images:
        return math.inf
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if at_hand(lines, middle, now) >= images else (middle, high)
    return high


def on_the_line(kind: KindDemand, ends: float, each: float, least: float, now: float) -> bool:
    """Uniform progress: whether there is still time for what is left at `each` seconds an image, all of them at least
    `least`, with `ends` seconds kept free before each deadline.

    After Wu et al., "Can't Be Late" (NSDI 2024): as long as this holds, one may wait for Spot. There, one machine does
    all the work, and its line begins with the work. Here several dedicated nodes can make up for a wait, so the line is
    as steep as they are fast together, and begins later.
    """
    left = 0
    for due in sorted(kind.due, key=lambda due: due.deadline):
        left += due.images
        if now > due.deadline - ends - max(left * each, least):
            return False
    return bool(kind.due)
