"""Outcomes as a table, as JSON, and against the marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fusebus.planning.simulation.run import Outcome

HIT_MARK = 0.999
MEAN_MARK, WORST_MARK = 1.15, 1.5  # times the bound
RESIZE_MARK = 2  # a burst
SAME_HITS = 1e-9
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
    return msgspec.json.encode({"outcomes": found, "missed": missed(outcomes)})


def missed(outcomes: Sequence[Outcome]) -> list[str]:
    """Every mark that our policy misses, in words; nothing where it did not run."""
    ours = [outcome for outcome in outcomes if outcome.policy == "ours"]
    found: list[str] = []
    for outcome in ours:
        found += missed_in(outcome, [other for other in outcomes if other.scenario == outcome.scenario])
    ratios = [outcome.ratio for outcome in ours if not outcome.foresight]
    mean = sum(ratios) / len(ratios) if ratios else 1.0
    if mean > MEAN_MARK:
        found.append(f"{mean:.2f} times the bound on average, mark {MEAN_MARK}")
    return found


def missed_in(ours: Outcome, all_of_it: Sequence[Outcome]) -> list[str]:
    """The marks that hold in each scenario. `all_of_it`: all policies in the same scenario."""
    found = []
    if ours.hit_share < HIT_MARK:
        found.append(f"{ours.scenario}: {100 * ours.hit_share:.2f} % in time, mark {100 * HIT_MARK:.1f} %")
    if ours.ratio > WORST_MARK and not ours.foresight:
        found.append(f"{ours.scenario}: {ours.ratio:.2f} times the bound, mark {WORST_MARK}")
    if ours.busy_removed:
        found.append(f"{ours.scenario}: {ours.busy_removed} busy nodes were removed, mark 0")
    if ours.bursts and ours.resizes > RESIZE_MARK * ours.bursts:
        found.append(f"{ours.scenario}: {ours.resizes} resizes for {ours.bursts} bursts, mark {RESIZE_MARK} each")
    for other in all_of_it:
        if other.hits >= ours.hits - SAME_HITS and other.cost < ours.cost and other is not ours:
            found.append(
                f"{ours.scenario}: {other.policy} costs {other.cost:.3f}, ours {ours.cost:.3f}, with no fewer in time"
            )
    return found
