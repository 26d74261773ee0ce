"""Images as a fluid through stages that share what is scarce: exact between events, so ten million take no time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TINY = 1e-6  # images: less is none


@dataclass(frozen=True)
class Stage:
    """Takes images out of the queue before it and puts them into the one behind it."""

    name: str
    uses: dict[str, float]
    """Of each shared resource, for one image."""
    most: float = math.inf
    """Images/s, however little is shared; times the nodes that are ready where it is the pool's."""
    why: str = "itself"
    """What sets `most`."""
    pooled: bool = False
    room: float = math.inf
    """Images that its own queue, the one before it, holds."""


@dataclass
class Outcome:
    """What became of a run."""

    seconds: float = 0.0
    per_second: dict[str, float] = field(default_factory=dict)
    """Images/s of each stage in the longest stretch of constant rates."""
    used: dict[str, float] = field(default_factory=dict)
    """Of each resource's room: the mean over the run."""
    bound: dict[str, float] = field(default_factory=dict)
    """Seconds for which this was what the last stage waited for in the end."""
    empty_at: dict[str, float] = field(default_factory=dict)
    """When the last image left the queue before a stage."""
    peak: dict[str, float] = field(default_factory=dict)
    """The longest queue before each stage."""
    node_seconds: float = 0.0
    """Of nodes that were ready."""
    steps: int = 0


def fill(
    stages: Sequence[Stage], most: Sequence[float], room: dict[str, float], empty: Sequence[bool], full: Sequence[bool]
) -> tuple[list[float], list[str]]:
    """Images/s of each stage and what holds it: all rise together, and who meets a limit stays where he is.

    That is what throttled clients that all try again come to: nobody gets more of a scarce thing than another who
    still wants some. A stage whose queue is `empty` passes on what comes; before a `full` queue nobody is quicker than
    the stage that empties it.
    """
    count = len(stages)
    rates, why = [0.0] * count, [""] * count
    left = dict(room)
    level = 0.0
    while not all(why):
        rising = [number for number in range(count) if not why[number]]
        limit, reason = min((most[number], stages[number].why) for number in rising)
        scarce = ""
        for name, amount in left.items():
            use = sum(stages[number].uses.get(name, 0.0) for number in rising)
            if use > 0 and level + amount / use < limit:
                limit, reason, scarce = level + amount / use, name, name
        for name in left:
            use = sum(stages[number].uses.get(name, 0.0) for number in rising)
            left[name] = max(0.0, left[name] - use * (limit - level))
        level = limit
        for number in rising:
            held = stages[number].uses.get(scarce, 0.0) > 0 if scarce else most[number] <= level
            if held:
                rates[number], why[number] = level, reason
        _follow(rates, why, level, empty, full)
    return rates, why


def _follow(rates: list[float], why: list[str], level: float, empty: Sequence[bool], full: Sequence[bool]) -> None:
    """Who depends on a stage that is held is held with it."""
    for _ in why:
        for number in range(len(why)):
            if why[number]:
                continue
            if number and empty[number] and why[number - 1]:
                rates[number], why[number] = level, why[number - 1]
            elif number + 1 < len(why) and full[number + 1] and why[number + 1]:
                rates[number], why[number] = level, why[number + 1]


def run(images: float, stages: Sequence[Stage], room: dict[str, float], ready: Sequence[float]) -> Outcome:
    """Until the last image has left the last stage; `ready` says when each node of the pool begins (s).

    Raises ValueError where nothing moves and nothing ever will.
    """
    queues = [images] + [0.0] * len(stages)
    out = Outcome(peak={stage.name: 0.0 for stage in stages}, used=dict.fromkeys(room, 0.0))
    out.peak[stages[0].name] = images
    boots = sorted(ready)
    longest = 0.0
    while images - queues[-1] > TINY * 2 * len(queues):
        nodes = sum(1 for boot in boots if boot <= out.seconds)
        most = [(stage.most * nodes if nodes else 0.0) if stage.pooled else stage.most for stage in stages]
        empty = [queue <= TINY for queue in queues[:-1]]
        full = [queue >= stage.room - TINY for queue, stage in zip(queues, stages, strict=False)]
        if empty[0]:
            most[0] = 0.0
        rates, why = fill(stages, most, room, empty, full)
        changes = [
            (rates[number - 1] if number else 0.0) - (rates[number] if number < len(stages) else 0.0)
            for number in range(len(queues))
        ]
        step = _next(queues, changes, stages, [boot - out.seconds for boot in boots if boot > out.seconds])
        if not math.isfinite(step):
            raise ValueError(f"nothing moves: {dict(zip([stage.name for stage in stages], why, strict=True))}")
        for number, change in enumerate(changes):
            queues[number] = max(0.0, queues[number] + change * step)
        for number, stage in enumerate(stages):
            out.peak[stage.name] = max(out.peak[stage.name], queues[number])
            if rates[number] > 0:
                out.empty_at[stage.name] = out.seconds + step
            for name, use in stage.uses.items():
                out.used[name] += use * rates[number] * step
        out.seconds += step
        out.node_seconds += nodes * step
        out.bound[why[-1]] = out.bound.get(why[-1], 0.0) + step
        out.steps += 1
        if step > longest:
            longest, out.per_second = step, {stage.name: rate for stage, rate in zip(stages, rates, strict=True)}
    out.used = {name: amount / room[name] / out.seconds for name, amount in out.used.items()}
    return out


def _next(queues: Sequence[float], changes: Sequence[float], stages: Sequence[Stage], boots: Sequence[float]) -> float:
    """Seconds until something changes: a queue is empty or full, or a node begins."""
    waits = list(boots)
    for number, (queue, change) in enumerate(zip(queues, changes, strict=True)):
        if change < -1e-9 and queue > TINY:
            waits.append(queue / -change)
        if change > 1e-9 and number < len(stages) and queue < stages[number].room - TINY:
            waits.append((stages[number].room - queue) / change)
    return min(waits, default=math.inf)
