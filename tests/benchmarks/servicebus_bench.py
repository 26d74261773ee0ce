"""The broker's cost beside its client's: CPU per message and rates, in memory and durable (both kinds), in one run.

    python tests/benchmarks/servicebus_bench.py [--quick | --scale SHARE] [--only speed|backlog|size|churn] [--starts N]
                                                [--spread] [--output FILE]

CPU times are those of the two processes (user and system); "per core" is what one fully used core of the broker does.
Figures of one run compare with each other; the absolute ones belong to the machine.

Speed is measured with broker and client on one core. On two, one of them mostly sleeps, and what it takes to wake a
core, and a virtual one above all, counts as the time of whoever wakes and is woken: an echo of 30 bytes then costs some
60 µs, and 5 µs on one core. `--spread` leaves it to the kernel where they run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins"))
from machine import one_core
from servicebus_broker import STORES, broker
from servicebus_growth import backlog, churn, grown, size
from servicebus_patterns import Figure, raw_patterns, rhea_patterns, sdk_patterns

STARTS = 6  # of the brokers: chance makes a process dearer or cheaper than its like by several percent, for life
ROUNDS = 2  # per start of each pattern, one store after the other: what else the machine does hits all of them
MARK_RATIO, MARK_DURABLE, MARK_RATE = 0.4, 1.3, 60_000
MARKED_STORES = ("memory", "durable")  # power is for information: there the disk decides
SHARES = {"memory": 1.0, "durable": 1.0, "power": 0.2}  # of the messages: waiting for the disk takes its time


def speed(scale: float, starts: int) -> list[Figure]:
    """Each pattern in turn on a broker for each store, ROUNDS times for each start; medians of all these rounds."""
    rounds: dict[tuple[str, str], list[Figure]] = {}
    for start in range(starts):
        print(f"start {start + 1} of {starts}", file=sys.stderr, flush=True)
        for figure in figures_of_a_start(scale / (starts * ROUNDS)):
            rounds.setdefault((figure.pattern, figure.store), []).append(figure)
    figures = [middle(each, rounds[each[0].pattern, "memory"]) for each in rounds.values()]
    print("\n".join(line(figure) for figure in figures), flush=True)
    return figures


def figures_of_a_start(scale: float) -> Iterator[Figure]:
    """Of brokers that were just started, after a round that only warms them up. Each client has brokers of its own:
    what tens of megabytes of one leave to do would count as the next one's, by chance as that of a few messages."""
    for patterns in (sdk_patterns, raw_patterns, rhea_patterns):
        with ExitStack() as stack:
            brokers = {store: stack.enter_context(broker(store)) for store in STORES}
            for measuring in (False, *[True] * ROUNDS):
                turns = [patterns(running, name, SHARES[name] * scale) for name, running in brokers.items()]
                figures = [each for turn in zip(*turns, strict=True) for each in turn]
                if measuring:
                    yield from figures


def middle(rounds: list[Figure], in_memory: list[Figure]) -> Figure:
    """The medians of what the rounds measured; ratios are taken within a round, which other load hits as a whole."""
    return Figure(
        rounds[0].pattern,
        rounds[0].store,
        messages=sum(each.messages for each in rounds),
        broker_us=median(each.broker_us for each in rounds),
        client_us=median(each.client_us for each in rounds),
        per_second=median(each.per_second for each in rounds),
        sdk=rounds[0].sdk,
        ratio=median(each.broker_us / each.client_us for each in rounds),
        of_memory=median(each.broker_us / base.broker_us for each, base in zip(rounds, in_memory, strict=True)),
    )


def marks(figure: Figure) -> list[bool]:
    """Whether the row reaches each mark that holds for it."""
    if figure.store not in MARKED_STORES:
        return []
    reached = [figure.ratio <= MARK_RATIO] if figure.sdk else [figure.per_core >= MARK_RATE]
    return reached if figure.store == "memory" else [*reached, figure.of_memory <= MARK_DURABLE]


def line(figure: Figure) -> str:
    ratio = f"{figure.ratio:6.2f}" if figure.sdk else "     –"
    of_memory = "     –" if figure.store == "memory" else f"{figure.of_memory:6.2f}"
    return (
        f"{figure.pattern:34} {figure.store:8} {figure.broker_us:8.1f} {figure.client_us:9.1f} {ratio} {of_memory}"
        f" {figure.per_second:10.0f} {figure.per_core:10.0f}"
        f"  {', '.join('reached' if each else 'SHORT' for each in marks(figure))}"
    )


HEAD = (
    f"{'pattern (1 KB bodies)':34} {'store':8} {'broker':>8} {'client':>9} {'ratio':>6} {'of mem':>6} {'msg/s':>10}"
    f" {'per core':>10}  marks: ratio or rate, of memory"
)


def verdicts(figures: list[Figure]) -> list[str]:
    """Each mark and whether it is reached, for each store."""
    return [said for store in MARKED_STORES for said in verdicts_of([each for each in figures if each.store == store])]


def verdicts_of(figures: list[Figure]) -> list[str]:
    store = figures[0].store
    worst = max((figure for figure in figures if figure.sdk), key=lambda figure: figure.ratio)
    dearest = max(figures, key=lambda figure: figure.of_memory)
    said = [(worst.ratio <= MARK_RATIO, f"broker/SDK CPU at most {MARK_RATIO}: {worst.ratio:.2f} ({worst.pattern})")]
    if store != "memory":
        dear = dearest.of_memory
        said.append((dear <= MARK_DURABLE, f"CPU at most {MARK_DURABLE} of memory: {dear:.2f} ({dearest.pattern})"))
    for client in ("rhea", "pipelined"):
        if fast := [each for each in figures if each.pattern.startswith(client)]:
            best = max(fast, key=lambda figure: figure.per_core)
            text = f"{MARK_RATE} pipelined or batched a second and core: {best.per_core:.0f} ({best.pattern})"
            said.append((best.per_core >= MARK_RATE, text))
    return [f"{'reached' if reached else 'MISSED '}  {store:8} {text}" for reached, text in said]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a tenth of the messages: shows that it runs")
    made.add_argument(
        "--scale", type=float, default=1.0, help="speed: this share of the messages (default: %(default)s)"
    )
    made.add_argument("--starts", type=int, default=STARTS, help="speed: of the brokers (default: %(default)s)")
    made.add_argument("--only", choices=("speed", "backlog", "size", "churn"))
    made.add_argument("--spread", action="store_true", help="speed: broker and client on whichever cores they get")
    made.add_argument("--churn-seconds", type=float, default=300.0, help="for each store (default: %(default)s)")
    made.add_argument("--output", type=Path, default=Path("benchmarks/servicebus.json"), help="default: %(default)s")
    return made


def main() -> None:
    given = parser().parse_args()
    kept = json.loads(given.output.read_text()) if given.only and given.output.exists() else {}
    result: dict[str, Any] = kept | {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    }
    if given.only in (None, "speed"):
        print(f"{HEAD}\n{' ' * 43}µs of CPU per message")
        with nullcontext() if given.spread else one_core():
            figures = speed(0.1 if given.quick else given.scale, given.starts)
        result["spread"] = given.spread
        result["speed"] = [asdict(figure) | {"per_core": figure.per_core} for figure in figures]
        result["verdicts"] = verdicts(figures)
        print("\n".join(result["verdicts"]))
    if given.only in (None, "backlog"):
        with one_core():
            result["backlog"] = [backlog(60_000 if given.quick else 600_000, store) for store in MARKED_STORES]
        print("\n".join(map(json.dumps, result["backlog"])))
    if given.only in (None, "size"):
        result["size"] = size(100_000, 500) if given.quick else size(1_000_000, 5_000)
        print(json.dumps(result["size"]))
    if given.only in (None, "churn"):
        result["churn"] = [churn(given.churn_seconds / (10 if given.quick else 1), store) for store in (False, True)]
        print("\n".join(f"{json.dumps(each)}\n{grown(each)}" for each in result["churn"]))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
