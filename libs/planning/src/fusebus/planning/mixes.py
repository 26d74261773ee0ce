"""The cheapest nodes to buy so that work meets its deadlines: every line first once, then the others by price."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from fusebus.planning.limits import Limits
from fusebus.planning.lines import Line
from fusebus.planning.room import Room
from fusebus.planning.work import Load

MOST_SWAPS = 300  # are tried in one decision: of nodes of one line for those of another


class Choice(msgspec.Struct, frozen=True):
    """Nodes to buy."""

    adds: tuple[tuple[Line, int], ...]
    cost: float
    """Of the boots and of the work, this mix doing its share."""
    lacking: float
    """Images that are late even so."""
    said: tuple[str, ...] = ()
    """What kept it from more, in words."""
    short: float = 0.0
    """Images that would be late were there as many more as `Limits.headroom` says."""

    @property
    def nodes(self) -> int:
        """Bought in all."""
        return sum(count for _, count in self.adds)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What nodes are wanted for. Times in seconds since 1970."""

    work: Sequence[Load]
    limits: Limits
    start: float
    """When they would be ordered."""
    now: float
    not_before: float = 0.0
    """The work is not there earlier (a scheduled window)."""

    def time(self, line: Line, deadline: float) -> float:
        """Seconds that a node of this line has for the work."""
        ready = max(self.start + line.boot.p95, self.not_before)
        return deadline - self.limits.margin - ready

    def base(self, lines: Sequence[Line], deadline: float) -> float:
        """Images that the nodes at hand do."""
        return sum(line.at_hand(deadline - self.limits.margin - max(self.now, self.not_before)) for line in lines)


def choose(lines: Sequence[Line], wish: Wish, room: Room) -> Choice:
    """The cheapest mix of those that are late with the fewest images. Nothing is taken from `room`."""
    usable = [line for line in lines if not line.why_not]
    crew = [line for line in lines if line.ready or line.coming]
    barred = tuple(f"{line.name}: {line.why_not}" for line in lines if line.why_not)
    if not usable:
        return Choice((), 0.0, _lacking([], crew, wish), barred)
    orders = [[first, *(line for line in usable if line is not first)] for first in usable]
    found = [_fill(order, crew, wish, room.copy()) for order in orders]
    best = min(found, key=_rank)
    if any(choice.said for choice in found):
        best = _swapped(best, usable, crew, wish, room)
    return msgspec.structs.replace(best, said=best.said + barred)


def _rank(choice: Choice) -> tuple[int, int, float]:
    return round(choice.lacking), round(choice.short), choice.cost


def _swapped(best: Choice, usable: Sequence[Line], crew: Sequence[Line], wish: Wish, room: Room) -> Choice:
    """Where a ceiling or quota left some of an order to dearer lines: nodes of one line are given up for another's as
    long as that is better."""
    tries = iter(range(MOST_SWAPS))
    while found := _better(best, usable, crew, wish, room, tries):
        best = msgspec.structs.replace(found, said=tuple(dict.fromkeys(best.said + found.said)))
    return best


def _better(
    best: Choice, usable: Sequence[Line], crew: Sequence[Line], wish: Wish, room: Room, tries: Iterator[int]
) -> Choice | None:
    """The first swap that is better than the choice; None: there is none, or no try is left."""
    for line, count in reversed(best.adds):
        for less in sorted({1, count}):
            for other in usable:
                if other is line:
                    continue
                if next(tries, None) is None:
                    return None
                found = _instead(best, line, less, other, usable, crew, wish, room.copy())
                if found is not None and _rank(found) < _rank(best):
                    return found
    return None


def _instead(
    choice: Choice,
    line: Line,
    less: int,
    other: Line,
    usable: Sequence[Line],
    crew: Sequence[Line],
    wish: Wish,
    room: Room,
) -> Choice | None:
    """The choice with so many nodes of `line` fewer, and what is missing then of `other`, then by price; None: it does
    not fit."""
    kept = [(one, count - less * (one is line)) for one, count in choice.adds]
    kept = [(one, count) for one, count in kept if count]
    work = wish.work[-1].images
    for one, count in kept:
        if room.take(one, count, min(work * one.service.p50 / count, wish.limits.least_use)) < count:
            return None
    order = [other, *(one for one in usable if one is not other and one is not line)]
    return _fill(order, crew, wish, room, kept)


def _fill(
    order: Sequence[Line],
    crew: Sequence[Line],
    wish: Wish,
    room: Room,
    kept: Sequence[tuple[Line, int]] = (),
) -> Choice:
    """`kept`, which are taken from the room already, and what is missing in this order."""
    adds = list(kept)
    for line in order:
        wanted, seconds = nodes_for(line, adds, crew, wish)
        taken = room.take(line, wanted, seconds) if wanted else 0
        if taken:
            adds.append((line, taken))
        if taken == wanted:
            break
    merged = {line.key: (line, sum(n for one, n in adds if one is line)) for line, _ in adds}
    adds = list(merged.values())
    short = _lacking(adds, crew, wish, wish.limits.headroom)
    return Choice(tuple(adds), _cost(adds, crew, wish), _lacking(adds, crew, wish), tuple(room.said), short)


def nodes_for(line: Line, adds: Sequence[tuple[Line, int]], crew: Sequence[Line], wish: Wish) -> tuple[int, float]:
    """Nodes of this line that are still needed beside `adds`, and the seconds that each would be used."""
    nodes, longest = 0, wish.limits.least_use
    for load in wish.work:
        seconds = max(wish.time(line, load.deadline), wish.limits.least_use)
        missing = load.images * wish.limits.headroom - wish.base(crew, load.deadline) - _added(adds, load, wish)
        if missing > 0:
            # At least one image a node: what takes longer than there is time for is late, and done even so.
            each = max(1, line.whole_images(seconds))
            nodes, longest = max(nodes, math.ceil(missing / each - 1e-9)), max(longest, seconds)
    used = wish.work[-1].images * line.service.p50 / nodes if nodes else 0.0
    return nodes, min(longest, used)


def _added(adds: Sequence[tuple[Line, int]], load: Load, wish: Wish) -> float:
    """Images that the nodes chosen so far do, used for at least `least_use`."""
    least = wish.limits.least_use
    return sum(n * line.whole_images(max(wish.time(line, load.deadline), least)) for line, n in adds)


def _lacking(adds: Sequence[tuple[Line, int]], crew: Sequence[Line], wish: Wish, headroom: float = 1.0) -> float:
    """Images that are late with these nodes: the most that is missing at any deadline, were there so many more."""
    most = 0.0
    for load in wish.work:
        done = sum(n * line.whole_images(wish.time(line, load.deadline)) for line, n in adds)
        most = max(most, load.images * headroom - wish.base(crew, load.deadline) - done)
    return most


def _cost(adds: Sequence[tuple[Line, int]], crew: Sequence[Line], wish: Wish) -> float:
    """Boots, and all work shared by rate among the nodes at hand and the new ones."""
    if not adds:
        return 0.0
    shares = [(line, float(n)) for line, n in adds] + [(line, float(line.ready + line.coming)) for line in crew]
    rate = sum(line.rate * n for line, n in shares)
    per_image = sum(line.rate * n * line.cost_per_image for line, n in shares) / rate
    return sum(line.boot_cost * n for line, n in adds) + wish.work[-1].images * per_image
