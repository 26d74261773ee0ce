"""One job kind as a decision sees it, and what is decided for it."""

from __future__ import annotations

import msgspec

from fusebus.planning.demand import KindDemand
from fusebus.planning.limits import Limits
from fusebus.planning.lines import SECONDS_PER_HOUR, Key, Line
from fusebus.planning.mixes import Choice, Wish
from fusebus.planning.prices import Prices
from fusebus.planning.room import Room
from fusebus.planning.work import Load, at_hand


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that matters for one kind."""

    kind: KindDemand
    lines: list[Line]
    due: list[Load]
    """The work with its deadlines."""
    work: list[Load]
    """The same with deadlines that can be reached (`work.reachable`)."""
    idle_since: float | None
    limits: Limits
    prices: Prices
    room: Room
    """Shared with the other kinds: what one takes the next does not find."""
    now: float

    @property
    def kept(self) -> dict[Key, int]:
        """Nodes of every line if nothing is changed."""
        return {line.key: line.kept for line in self.lines}

    @property
    def ready(self) -> int:
        """Nodes that work or could at once."""
        return sum(line.ready for line in self.lines)

    @property
    def coming(self) -> int:
        """Nodes that will."""
        return sum(line.coming for line in self.lines)

    @property
    def committed(self) -> float:
        """Money that the nodes ready or coming will still cost: the rest of their boots, and what they do of the work
        by its last deadline."""
        crew = [(line, line.ready + line.coming) for line in self.lines if line.ready or line.coming]
        if not crew or not self.work:
            return 0.0
        last = self.work[-1]
        images = min(float(last.images), at_hand(self.lines, last.deadline, self.now))
        rate = sum(nodes * line.rate for line, nodes in crew)
        per_image = sum(nodes * line.rate * line.cost_per_image for line, nodes in crew) / rate
        boots = sum(line.coming * line.coming_in * line.price for line in self.lines) / SECONDS_PER_HOUR
        return boots + images * per_image


class Bought(msgspec.Struct, frozen=True):
    """What deadlines need, before any insurance."""

    choice: Choice
    wish: Wish
    why: str
    """In words."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is decided for one kind."""

    targets: dict[Key, int]
    because: str
    said: tuple[str, ...] = ()
    """What keeps it from buying more."""
    wait_until: float | None = None
    waits: bool = False
    """Nodes are missing and will be bought later."""
    bought: Bought | None = None
    """What is bought because the nodes at hand do not suffice."""


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 600:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 36_000 else f"{value / 3600:.1f} h"


def said(line_counts: list[tuple[Line, int]]) -> str:
    """Nodes with their prices, for people."""
    return " and ".join(f"{n} {line.name} at {line.price:.3g} an hour" for line, n in line_counts)
