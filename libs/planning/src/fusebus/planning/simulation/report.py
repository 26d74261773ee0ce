"""Outcomes as a table, as JSON, and against the marks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from fusebus.planning.simulation.run import Outcome

HIT_MARK = 0.999
MEAN_MARK, WORST_MARK = 1.15, 1.5  # times the bound
MEAN_OF = 10  # scenarios at least: the average of a few chosen ones says nothing
RESIZE_MARK = 2  # a burst, and as many for each time without Spot, when other nodes take over
REFUSED_MARK = 6  # resizes in vain a burst
SAME_HITS = 1e-9
# Marks that our policy misses, and how far at most: known, named wherever outcomes are shown, and not to become worse.
KNOWN_MISSES: dict[tuple[str, str], float] = {}
OURS = "ours"
HEADS = (
    "scenario",
    "policy",
    "in time",
    "cost",
    "× bound",
    "node-hours",
    "boots",
    "nodes",
    "resizes",
    "refused",
    "busy removed",
    "p95 age",
)


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown. Cost in the currency of the prices; ages in minutes."""
    rows = [_row(outcome) for outcome in outcomes]
    widths = [max(len(cell) for cell in column) for column in zip(HEADS, *rows, strict=True)]
    lines = [HEADS, tuple("-" * width for width in widths), *rows]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _row(outcome: Outcome) -> tuple[str, ...]:
    resizes = str(outcome.resizes)
    return (
        outcome.scenario,
        outcome.policy,
        f"{100 * outcome.hit_share:.2f} %",
        f"{outcome.cost:.3f}",
        f"{outcome.ratio:.2f}",
        f"{outcome.node_hours:.2f}",
        str(outcome.boots),
        str(outcome.most_nodes),
        f"{resizes} for {outcome.bursts}" if outcome.bursts else resizes,
        str(outcome.refused),
        str(outcome.busy_removed),
        f"{outcome.p95 / 60:.0f} min",
    )


def as_json(outcomes: Sequence[Outcome], timelines: bool = False) -> bytes:
    """One object; amounts in the currency of the prices, times in seconds."""
    found = []
    for outcome in outcomes:
        fields = msgspec.structs.asdict(outcome)
        if not timelines:
            del fields["timeline"], fields["reasons"]
        found.append({**fields, "hit_share": outcome.hit_share, "ratio": outcome.ratio})
    return msgspec.json.encode(
        {"outcomes": found, "missed": missed(outcomes), "known_misses": known(outcomes), "verdict": verdict(outcomes)}
    )


class Miss(msgspec.Struct, frozen=True):
    """A mark that one scenario misses."""

    scenario: str
    mark: str
    value: float
    words: str

    @property
    def known(self) -> bool:
        """Whether it is listed and no worse than that."""
        return self.value <= KNOWN_MISSES.get((self.scenario, self.mark), -math.inf)


def missed(outcomes: Sequence[Outcome]) -> list[str]:
    """Every mark that our policy misses beyond `KNOWN_MISSES`, in words; nothing where it did not run."""
    found = [miss.words for miss in _misses(outcomes) if not miss.known]
    ratios = [outcome.ratio for outcome in outcomes if outcome.policy == OURS]
    if len(ratios) >= MEAN_OF and sum(ratios) / len(ratios) > MEAN_MARK:
        found.append(f"{sum(ratios) / len(ratios):.3f} times the bound on average, mark {MEAN_MARK}")
    return found


def verdict(outcomes: Sequence[Outcome]) -> list[str]:
    """What of the marks was checked and what came of it, in words; never more than was looked at."""
    ours = [outcome for outcome in outcomes if outcome.policy == OURS]
    if not ours:
        return ["no mark was checked: they are our policy's, and it did not run"]
    short, listed = missed(outcomes), known(outcomes)
    words = [f"missed, as is known: {one}" for one in listed] + [f"missed: {one}" for one in short]
    rivals = sorted({outcome.policy for outcome in outcomes} - {OURS})
    if not short:
        rest = "all other marks are" if listed else "every mark that was checked is"
        words.append(f"{rest} met ({_checked(len(ours), rivals)})")
    return words


def _checked(scenarios: int, rivals: Sequence[str]) -> str:
    against = f"against {' and '.join(rivals)}" if rivals else "no baseline ran to be compared with"
    mean = "" if scenarios >= MEAN_OF else "; the average is checked of 10 scenarios or more"
    return f"{scenarios} scenario{'s' * (scenarios > 1)}, {against}{mean}"


def known(outcomes: Sequence[Outcome]) -> list[str]:
    """The listed ones of the marks that are missed, in words."""
    return [miss.words for miss in _misses(outcomes) if miss.known]


def _misses(outcomes: Sequence[Outcome]) -> list[Miss]:
    return [
        miss
        for ours in outcomes
        if ours.policy == OURS
        for miss in missed_in(ours, [other for other in outcomes if other.scenario == ours.scenario])
    ]


def missed_in(ours: Outcome, all_of_it: Sequence[Outcome]) -> list[Miss]:
    """The marks that hold in each scenario. `all_of_it`: all policies in the same scenario."""
    found = list[tuple[str, float, str]]()
    if ours.hit_share < HIT_MARK:
        late = 1 - ours.hit_share
        found.append(("in time", late, f"{100 * ours.hit_share:.2f} % in time, mark {100 * HIT_MARK:.1f} %"))
    if ours.ratio > WORST_MARK:
        found.append(("bound", ours.ratio, f"{ours.ratio:.2f} times the bound, mark {WORST_MARK}"))
    if ours.busy_removed:
        found.append(("busy", ours.busy_removed, f"{ours.busy_removed} busy nodes were removed, mark 0"))
    found += _restless(ours)
    for other in all_of_it:
        if other.hits >= ours.hits - SAME_HITS and other.cost < ours.cost and other is not ours:
            words = f"{other.policy} costs {other.cost:.3f}, ours {ours.cost:.3f}, with no fewer in time"
            found.append(("baseline", ours.cost / other.cost, words))
    return [Miss(ours.scenario, mark, value, f"{ours.scenario}: {words}") for mark, value, words in found]


def _restless(ours: Outcome) -> list[tuple[str, float, str]]:
    """Marks of how often pools are resized, where images come in bursts."""
    if not ours.bursts:
        return []
    found = list[tuple[str, float, str]]()
    occasions = ours.bursts + len(ours.storms)
    if ours.resizes > RESIZE_MARK * occasions:
        storms = f" and storms: {len(ours.storms)}" if ours.storms else ""
        words = f"{ours.resizes} resizes for bursts: {ours.bursts}{storms}, mark {RESIZE_MARK} each"
        found.append(("resizes", ours.resizes, words))
    if ours.refused > REFUSED_MARK * ours.bursts:
        words = f"{ours.refused} resizes in vain for bursts: {ours.bursts}, mark {REFUSED_MARK} each"
        found.append(("refused", ours.refused, words))
    return found
