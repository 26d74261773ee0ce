"""When nodes are missing: which to buy, and whether to wait with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fusebus.planning.lines import Line
from fusebus.planning.mixes import Choice, Wish, choose
from fusebus.planning.prices import Prices
from fusebus.planning.view import Bought, Verdict, View, said, seconds
from fusebus.planning.work import Load, is_covered, on_the_line, soonest

STILL_ARRIVING = 30.0  # seconds: two looks without an arrival end a delivery
GAPS_OF_HOPE = 10.0  # after so many usual gaps without an arrival nothing more is expected to share a node
CATCHING_UP = 0.1  # of the work's node-seconds: so much more boots may cost for the chance that Spot comes back
MOST_CATCHING_UP = 10  # dedicated nodes more, so that the wait does not lean on a big order
SPOT_TRY = 300.0  # seconds until Batch gives up a resize
WORTH_WAITING = 0.98  # a later price must save more than 2 % to be waited for


def buy(view: View) -> Verdict | None:
    """What is bought for the work at hand; None where the nodes at hand suffice."""
    if is_covered(view.lines, view.work, view.limits.margin / 2, view.now):
        return None
    wish = Wish(work=view.work, limits=view.limits, start=view.now, now=view.now)
    choice = choose(sure(view, view.lines), wish, view.room)
    words = _missing(view, choice)
    waits = _waits(view, choice, wish) if choice.nodes else None
    if waits:
        why, until = waits
        return Verdict(targets=view.kept, because=f"{words}; {why}", wait_until=until, waits=True)
    choice, wish, early = _before_rise(view, choice, wish)
    targets, done = take(view, choice)
    words = f"{words}; {early}"
    return Verdict(targets=targets, because=words + done, said=choice.said, bought=Bought(choice, wish, words))


def take(view: View, choice: Choice) -> tuple[dict[tuple[str, bool], int], str]:
    """The targets with what was chosen, taken from the room, in words too."""
    for line, nodes in choice.adds:
        used = view.work[-1].images * line.service.p50 / nodes if view.work else 0.0
        view.room.take(line, nodes, min(used, view.limits.least_use))
    return ordered(view, choice)


def ordered(view: View, choice: Choice) -> tuple[dict[tuple[str, bool], int], str]:
    """The targets with what was chosen, and in words; what a resize under way delays is left for later."""
    targets = view.kept
    now = [(line, nodes) for line, nodes in choice.adds if line.steady]
    later = [(line, nodes) for line, nodes in choice.adds if not line.steady]
    for line, nodes in now:
        targets[line.key] += nodes
    words = [f"buys {said(now)}"] if now else []
    words += [f"{said(later)} must wait for the resize under way"] if later else []
    words += [] if choice.adds else ["nothing can be bought"]
    return targets, "; ".join([*words, *dict.fromkeys(choice.said)])


def _missing(view: View, choice: Choice) -> str:
    """The sum in words."""
    last, first = view.due[-1], view.due[0]
    line = choice.adds[0][0] if choice.adds else view.lines[0] if view.lines else None
    each = f" at {line.service.p50:.3g} s each" if line else ""
    return (
        f"{last.images} {view.kind.kind} images{each}, {view.kind.in_flight} in flight, the first due in "
        f"{seconds(first.deadline - view.now)}, the last in {seconds(last.deadline - view.now)}: "
        f"{view.ready} nodes ready and {view.coming} coming do not suffice"
    )


def _waits(view: View, choice: Choice, wish: Wish) -> tuple[str, float | None] | None:
    """Why nothing is bought yet, and until when; None: it is time."""
    if view.due[0].deadline < view.work[0].deadline:
        return None
    return _for_spot(view, choice) or _to_settle(view) or _for_more(view, choice, wish) or _for_price(view, choice)


def _for_spot(view: View, choice: Choice) -> tuple[str, float | None] | None:
    """While Spot is in doubt: as long as the work is on the line of uniform progress."""
    doubtful = any(line.spot and line.doubt and line.why_not for line in view.lines)
    if not doubtful or any(line.spot for line, _ in choice.adds):
        return None
    crew = _in_time_for_dedicated(view, choice.adds[0][0], 0.0)
    if not crew:
        return None
    return f"Spot is lost, but {crew} dedicated nodes could make up for a wait: it may still come back", None


def _in_time_for_dedicated(view: View, line: Line, longer: float) -> int:
    """Dedicated nodes that could do the work even if they were ordered only when it falls behind uniform progress; 0
    once it has fallen behind. `longer`: seconds that something else is tried first.

    Their number comes from what is left and the whole time of the deliveries, so that it does not grow while one waits.
    """
    limits, dues = view.limits, view.kind.due
    since = [due.since for due in dues if due.since is not None]
    if not dues or len(since) < len(dues):
        return 0
    ends = line.boot.p95 + limits.margin + limits.fallback + longer
    whole = max(due.deadline for due in dues) - ends - min(since)
    each = limits.headroom * line.seconds_per_image(limits.least_use)
    left = sum(due.images for due in dues) * each
    if whole <= 0:
        return 0
    crew = math.ceil(left / whole) + min(int(CATCHING_UP * left / line.boot.p50), MOST_CATCHING_UP)
    return crew if on_the_line(view.kind, ends, each / crew, limits.least_use, view.now) else 0


def sure(view: View, lines: list[Line]) -> list[Line]:
    """The lines; without Spot where it is in doubt and trying it again would leave no time for dedicated nodes.

    A line that has machines is tried all the same: Azure gives some.
    """
    dedicated = next((line for line in lines if not line.spot and not line.why_not), None)
    if dedicated is None or not any(line.doubt for line in lines):
        return lines
    if _in_time_for_dedicated(view, dedicated, SPOT_TRY):
        return lines
    why = "Spot was refused or lost lately, and the deadline is near"
    return [
        msgspec.structs.replace(line, why_not=line.why_not or why) if line.spot and not line.allocated else line
        for line in lines
    ]


def _to_settle(view: View) -> tuple[str, float | None] | None:
    """A delivery under way is let end first, if there is time."""
    kind, limits = view.kind, view.limits
    slack = view.work[0].deadline - view.now - max((line.boot.p95 for line in view.lines), default=0.0)
    if kind.quiet >= STILL_ARRIVING or kind.delivery_age is None or kind.delivery_age >= limits.settle:
        return None
    if slack < 8 * limits.settle:
        return None
    until = view.now + min(STILL_ARRIVING - kind.quiet, limits.settle - kind.delivery_age)
    return f"images still arrive, for {kind.delivery_age:.0f} s now: waits for the whole delivery", until


def _for_more(view: View, choice: Choice, wish: Wish) -> tuple[str, float | None] | None:
    """One node can wait for more work to share its boot. Several can't: the work would need one more meanwhile."""
    kind = view.kind
    if choice.nodes != 1 or kind.gap is None or kind.quiet > GAPS_OF_HOPE * kind.gap:
        return None
    until = start_by(choice.adds[0][0], view.lines, wish)
    if until <= view.now or kind.gap > until - view.now:
        return None
    words = f"more comes every {seconds(kind.gap)}: one node has time until {seconds(until - view.now)} from now"
    return words, until


def start_by(line: Line, lines: Sequence[Line], wish: Wish) -> float:
    """The last moment to order one node; for Spot with time to fail and be replaced by a dedicated one."""
    limits = wish.limits
    reserve = line.boot.p95 + limits.fallback if line.spot else 0.0
    latest = math.inf
    for load in wish.work:
        missing = load.images * limits.headroom - wish.base(lines, load.deadline)
        if missing > 0:
            needed = missing * line.seconds_per_image(missing * line.service.p50)
            latest = min(latest, load.deadline - limits.margin - line.boot.p95 - reserve - needed)
    return latest


def _for_price(view: View, choice: Choice) -> tuple[str, float | None] | None:
    """A price that is known to fall in time is waited for."""
    for at in _changes_ahead(view):
        lines = [_repriced(line, view.prices, at) for line in view.lines]
        wish = Wish(work=view.work, limits=view.limits, start=at, now=view.now)
        later = choose(lines, wish, view.room)
        if later.nodes and round(later.lacking) <= 0 and later.cost < choice.cost * WORTH_WAITING:
            saved = f"{later.cost:.2f} instead of {choice.cost:.2f} {view.prices.currency}"
            return f"a lower price comes in {seconds(at - view.now)}: {saved}", at
    return None


def _before_rise(view: View, choice: Choice, wish: Wish) -> tuple[Choice, Wish, str]:
    """Where a price is known to rise before the work ends: more nodes at once, if that is cheaper; and why."""
    for at in _changes_ahead(view):
        extra = _dearer(view, choice, at)
        if extra <= 0:
            continue
        by = max(at + view.limits.margin, soonest(view.lines, view.limits, view.now))
        early = [Load(min(load.deadline, by), load.images) for load in view.work]
        hasty = msgspec.structs.replace(wish, work=early)
        sooner = choose(sure(view, view.lines), hasty, view.room)
        if round(sooner.lacking) <= 0 and sooner.cost < (choice.cost + extra) * WORTH_WAITING:
            costs = f"{sooner.cost:.2f} instead of {choice.cost + extra:.2f} {view.prices.currency}"
            return sooner, hasty, f"a higher price comes in {seconds(at - view.now)}: {costs} with more nodes before; "
    return choice, wish, ""


def _dearer(view: View, choice: Choice, at: float) -> float:
    """What the work that these nodes have not done by then costs more from then on."""
    crew = [*choice.adds, *((line, line.ready + line.coming) for line in view.lines)]
    rate = sum(nodes * line.rate for line, nodes in crew)
    boot = max((line.boot.p50 for line, _ in choice.adds), default=0.0)
    left = view.work[-1].images - rate * max(0.0, at - view.now - boot)
    if left <= 0 or rate <= 0:
        return 0.0
    then = [(_repriced(line, view.prices, at).cost_per_image - line.cost_per_image, line, n) for line, n in crew]
    return left * sum(more * nodes * line.rate for more, line, nodes in then) / rate


def _changes_ahead(view: View) -> list[float]:
    """When prices are known to change before all work is due."""
    return sorted({change.at for change in view.prices.changes if view.now < change.at < view.work[-1].deadline})


def _repriced(line: Line, prices: Prices, at: float) -> Line:
    """The line at the price that is known to hold then."""
    for change in sorted(prices.changes, key=lambda change: change.at):
        if change.pool == line.offer.pool and change.at <= at and (price := change.price(line.spot)):
            line = msgspec.structs.replace(line, price=price)
    return line
