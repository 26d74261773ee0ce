"""More Spot nodes at once than deadlines need, for less is left then should all Spot vanish; and fewer once it has."""

from __future__ import annotations

import msgspec

from fusebus.planning.buying import ordered
from fusebus.planning.lines import SECONDS_PER_HOUR, Line
from fusebus.planning.mixes import Wish, nodes_for
from fusebus.planning.view import Bought, Verdict, View

LEAST_ROUNDS = 5.0  # images a node: with fewer many idle while the last are done, and more is lost that is half done
WORTH_GIVING_UP = 1800.0  # seconds of boots that must be saved: less is not worth a resize


def insured(view: View, verdict: Verdict) -> Verdict:
    """The verdict with more Spot nodes where these are worth their boots, as far as there is room."""
    if verdict.bought is None:
        return verdict
    choice = verdict.bought.choice
    line = next((line for line, _ in choice.adds if line.spot and line.steady), None)
    if line is None:
        return verdict
    crew = [*choice.adds, *((other, other.ready + other.coming) for other in view.lines)]
    needed = sum(other.rate * nodes for other, nodes in crew) / line.rate
    loss = _loss(line, view)
    more = int(_worth(line, view, verdict.bought, loss, needed) - needed + 1e-9)
    more = view.room.take(line, more, view.limits.least_use) if more > 0 else 0
    if more <= 0:
        return verdict
    adds = tuple((one, nodes + more * (one is line)) for one, nodes in choice.adds)
    targets, words = ordered(view, msgspec.structs.replace(choice, adds=adds))
    words += (
        f"; {more} of them are insurance, for {more * line.boot_cost:.2f} {view.prices.currency}: the work costs "
        f"{choice.cost:.2f} without it, and {loss:.2f} more should all Spot vanish"
    )
    return msgspec.structs.replace(verdict, targets=targets, because=verdict.bought.why + words)


def _loss(line: Line, view: View) -> float:
    """What all work costs more elsewhere, in money: on dedicated nodes or on Spot of another region."""
    elsewhere = [one.cost_per_image for one in view.lines if not (one.spot and one.offer.region == line.offer.region)]
    return view.work[-1].images * max(0.0, min(elsewhere, default=0.0) - line.cost_per_image)


def _worth(line: Line, view: View, bought: Bought, loss: float, needed: float) -> float:
    """How many nodes of this line are worth their boots.

    Work of W node-seconds takes W/N with N nodes, and T with the fewest that meet its deadline. If Spot vanishes in
    that time, half of the work on average is done elsewhere. More nodes cost as much in boots as they save on average
    with N = storms x T x loss / 2 boots. Beyond it, beyond the share `most_premium`, and for less than `least_use` or
    `LEAST_ROUNDS` images each, no node is bought.
    """
    limits, wish, boot = view.limits, bought.wish, line.boot_cost
    if boot <= 0:
        return needed
    work = wish.work[-1].images * line.service.p50
    lasts = max(0.0, min(work, wish.time(line, wish.work[-1].deadline)))
    fair = limits.storms_per_hour * lasts / SECONDS_PER_HOUR * loss / (2 * boot)
    most = needed + limits.most_premium * bought.choice.cost / boot
    return min(fair, most, work / max(limits.least_use, LEAST_ROUNDS * line.service.p50))


def given_up(view: View, verdict: Verdict) -> Verdict:
    """The verdict without those of the Spot nodes that Azure took which would be too many for what is left: it gives
    them back all at once, and each boots again."""
    targets, words = dict(verdict.targets), [verdict.because]
    wish = Wish(work=view.work, limits=view.limits, start=view.now, now=view.now)
    for line in view.lines:
        surplus = line.lost - max(1, nodes_for(line, [], [], wish)[0]) if line.lost and line.steady else 0
        surplus = min(surplus, targets[line.key])
        if surplus * line.boot.p50 >= WORTH_GIVING_UP:
            targets[line.key] -= surplus
            rest = f"{line.lost - surplus} could do the rest"
            words.append(f"of {line.lost} {line.name} that Azure took {surplus} can go: {rest}")
    return msgspec.structs.replace(verdict, targets=targets, because="; ".join(words))
