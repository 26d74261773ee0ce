"""Puts a decision of the dispatcher, and the numbers behind it, into words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from fusebus.console.moments import said, span_said
from fusebus.ledger import Controls, Decision, PoolStatus

Value = str | int | float | bool

STALE_SECONDS = 120.0  # a status is written each minute, changed or not


def explain(decision: Decision, now: datetime) -> list[str]:
    """The decision, its reason, and what it rests on: one line each."""
    kinds = f"{decision.dedicated} dedicated, {decision.nodes - decision.dedicated} Spot"
    mode = {
        "shadow": " (shadow: nothing was done)",
        "paused": " (paused: nothing was done)",
        "emptied": " (kill switch)",
    }
    head = (
        f"{said(decision.decided_at, now)}: pool {decision.pool} should have {_many(decision.nodes, 'node')} "
        f"({kinds}) and {_many(decision.workers, 'worker')}{mode.get(decision.mode, '')}"
    )
    return [head, f"because {decision.because}", *(f"it knew: {words}" for words in known(decision.facts))]


def known(facts: Mapping[str, Value]) -> list[str]:
    """What the dispatcher saw, in words; a number of a name that is not known here is shown as it is."""
    left = dict(facts)
    lines = [_queue(left), _speed(left), _pool(left), _limits(left)]
    lines += [f"{name.replace('_', ' ')}: {value}" for name, value in left.items()]
    return [line for line in lines if line]


def in_force(status: PoolStatus | None, controls: Controls, pool: str, now: datetime) -> list[str]:
    """What holds now: pins, pauses, trouble, and whether anybody looks at all."""
    lines = []
    pin, pause = controls.pins.get(pool), controls.pause_of(pool)
    if pause is not None:
        until = f"until {said(pause.until, now)}" if pause.until else "until it is lifted (fusebus resume)"
        what = "emptied by the kill switch" if pause.to_zero else "paused"
        lines.append(f"now: {what} by {pause.set_by}, {until}{_reason(pause.reason)}")
    if pin is not None:
        nodes = _many(pin.nodes, "node")
        lines.append(f"now: pinned to {nodes} by {pin.set_by} until {said(pin.until, now)}{_reason(pin.reason)}")
    if status is None:
        return [*lines, "no dispatcher has looked at this pool yet"]
    if status.because:
        nodes = _many(status.wanted_dedicated + status.wanted_spot, "node")
        lines.append(f"at {said(status.looked_at, now)}: {nodes} wanted, because {status.because}")
    if status.breaker:
        lines.append(f"now: nothing new is bought: {status.breaker}")
    if status.problem:
        lines.append(f"now: Batch: {status.problem}")
    if stale := stale_words(status, now):
        lines.append(stale)
    return lines


def stale_words(status: PoolStatus, now: datetime) -> str:
    """That nobody acts, where nobody does; else empty."""
    age = (now - status.looked_at).total_seconds()
    return f"the last look was {span_said(age)} ago: no dispatcher is at work" if age > STALE_SECONDS else ""


def _queue(facts: dict[str, Value]) -> str:
    kind = facts.pop("job_kind", "")
    depth = facts.pop("depth", None)
    words = [f"{_many(depth, 'message')} of {kind or 'its kind'}, those in work included" if depth is not None else ""]
    if depth is None:
        words = ["how much waits could not be read"]
    oldest, runs = facts.pop("oldest_seconds", None), facts.pop("open_runs", None)
    if oldest is not None:
        words.append(f"the oldest image without a result came {span_said(float(oldest))} before")
    if runs:
        words.append(f"{_many(runs, 'delivery', 'deliveries')} open")
    opens, images = facts.pop("next_window_seconds", None), facts.pop("next_window_images", None)
    if opens is not None:
        words.append(f"{images} more are announced in {span_said(float(opens))}")
    return "; ".join(words)


def _speed(facts: dict[str, Value]) -> str:
    service, measured = facts.pop("seconds_per_image", None), facts.pop("measured", False)
    boot, boot_measured = facts.pop("boot_seconds", None), facts.pop("boot_measured", False)
    words = []
    if service is not None:
        words.append(f"one worker takes {float(service):.3g} s an image ({_how(measured)})")
    if boot is not None:
        words.append(f"a node takes {span_said(float(boot))} to come ({_how(boot_measured)})")
    return "; ".join(words)


def _pool(facts: dict[str, Value]) -> str:
    nodes = [f"{facts.pop(name)} {name}" for name in ("busy", "idle", "coming", "broken") if name in facts]
    workers = [f"{facts.pop(name)} {name}" for name in ("running", "waiting") if name in facts]
    words = [f"nodes: {', '.join(nodes)}" if nodes else "", f"workers: {', '.join(workers)}" if workers else ""]
    return "; ".join(word for word in words if word)


def _limits(facts: dict[str, Value]) -> str:
    words = []
    if (most := facts.pop("max_nodes", None)) is not None:
        words.append(f"at most {_many(most, 'node')}")
    for kind in ("spot", "dedicated"):
        if (cores := facts.pop(f"quota_cores_{kind}", None)) is not None:
            words.append(f"quota of {cores} {kind} cores")
        if (price := facts.pop(f"price_{kind}", None)) is not None:
            words.append(f"{float(price):.4g} {facts.get('currency', '')} an hour for a {kind} node")
    facts.pop("currency", None)
    if (budget := facts.pop("budget", None)) is not None:
        words.append(f"budget: {budget}")
    return "; ".join(words)


def _many(count: Value, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def _how(measured: Value) -> str:
    return "measured" if measured else "assumed"


def _reason(reason: str) -> str:
    return f": {reason}" if reason else ""
