"""A run of 10 million images on 100 nodes, simulated: where it saturates, how long it takes, and what to change.

Photographs lie in storage; an event, a message and a final about each go through the broker, as they do today, and
ingest, workers and notifier take from it and from storage what the code takes. Every number has a name, a unit and a
source (`--figures` lists them) and can be set. Nothing here is a measurement of Azure.

    .venv/bin/python tests/benchmarks/scale_simulation.py
    .venv/bin/python tests/benchmarks/scale_simulation.py --job convert --set nodes=200 --set suppliers=1 --json
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scale_figures import figures, filters_of, values
from scale_fluid import Outcome, Stage, run

HOUR = 3600.0
UNITS = (1, 2, 4, 8, 16)  # messaging units that one can buy
EVENT_GRID_HOURS = 24.0  # then an event that could not be delivered is dropped, and the sweep has to find its blob
MOST_STEPS = 40  # of a ladder

CREDITS, UNIT_IN, UNIT_OUT = "broker: credits", "broker: bytes in", "broker: bytes out"
REQUESTS, INGRESS, EGRESS = "storage: requests", "storage: bytes in", "storage: bytes out"
PARTITIONS = "table: a run's partition"
NODES, TURNS = "nodes", "ledger: one supplier's uploads take turns"
INGEST, NOTIFIER = "ingest's replicas", "the notifier's replicas"


@dataclass(frozen=True)
class Report:
    """What a run came to."""

    job: str
    changed: dict[str, float]
    hours: float
    images_per_second: float
    """Over the whole run."""
    saturates: str
    """What the finals waited for the longest."""
    used: dict[str, float]
    """Of what is shared: the mean over the run, 1 is all."""
    node_hours: float
    nodes_busy: float
    nodes_enough: int
    """That many, ready all the time, would have taken as long."""
    done_twice: float
    """Images begun by an evicted node and done again by another: the effect stays one, the GPU time is spent."""
    events_delivered_hours: float
    longest_queue_gb: float
    connections: float
    """AMQP connections of a namespace."""


def node_rate(given: Mapping[str, float], job: str) -> float:
    """Images/s of a node that has all it asks for; evictions taken off."""
    cpu_ms = given["detect_cpu_ms" if job == "detect" else "convert_cpu_ms"]
    rate = given["node_cores"] * given["core_share"] * 1000 / cpu_ms
    if job == "detect":
        rate = min(rate, given["share_of_model"] * 1000 / given["model_ms"])
    boot = (given["boot_first_seconds"] + given["boot_last_seconds"]) / 2
    return rate / (1 + given["evictions_per_node_hour"] * boot / HOUR)


def renewals(given: Mapping[str, float], rate: float) -> int:
    """Lock renewals an image: one at each half of a lock for which it is in a worker's hands."""
    return int(given["slots"] / rate / (given["lock_seconds"] / 2))


def ingest_most(given: Mapping[str, float]) -> tuple[float, str]:
    """Images/s that ingest does if nothing is scarce, and why not more."""
    cpu = given["ingest_cpu_ms"] / 1000
    waits = given["ingest_table_requests"] * given["table_seconds"]
    waits += given["ingest_blob_requests"] * given["blob_seconds"]
    by_cores = given["ingest_cores"] * given["core_share"] / cpu
    replicas = given["ingest_replicas"] * min(by_cores, given["service_slots"] / (waits + cpu))
    return min(
        (replicas, INGEST),
        (given["suppliers"] / (given["ingest_serial_requests"] * given["table_seconds"]), TURNS),
    )


def stages(given: Mapping[str, float], job: str) -> list[Stage]:
    """From the photograph that lies there to its final in the ledger: what each step takes of what is shared."""
    send, settle, judge = given["data_credits"], given["settle_credits"], given["filter_credits"]
    receive = given["data_credits"]
    batch, events = given["images_per_message"], given["images_per_event"]
    event, accepted, final = given["event_bytes"], given["accepted_bytes"], given["final_bytes"]
    rate = node_rate(given, job)
    ingest, why = ingest_most(given)
    made = given["annotated_bytes"] if job == "detect" else given["png_bytes"]
    held = held_bytes(given)
    notifier = given["notifier_replicas"] * given["service_slots"]
    return [
        Stage("events", {CREDITS: (send + judge * filters_of("uploads")) / events, UNIT_IN: event}),
        Stage(
            "ingest",
            {
                CREDITS: (receive + settle) / events + (send + judge * filters_of("images")) / batch,
                UNIT_IN: accepted,
                UNIT_OUT: event,
                REQUESTS: given["ingest_blob_requests"] + given["ingest_table_requests"],
                EGRESS: given["photo_bytes"],
                PARTITIONS: given["ingest_run_entities"],
            },
            most=ingest,
            why=why,
            room=held / event,
        ),
        Stage(
            "workers",
            {
                CREDITS: (receive + settle * (1 + renewals(given, rate)) + send + judge * filters_of("results"))
                / batch,
                UNIT_IN: final,
                UNIT_OUT: accepted,
                REQUESTS: given["worker_blob_requests"],
                INGRESS: made,
                EGRESS: given["photo_bytes"],
            },
            most=rate,
            why=NODES,
            pooled=True,
            room=held / accepted,
        ),
        Stage(
            "notifier",
            {
                CREDITS: (receive + settle) / batch,
                UNIT_OUT: final,
                REQUESTS: given["notifier_table_requests"],
                PARTITIONS: given["notifier_run_entities"],
            },
            most=notifier / (given["notifier_table_requests"] * given["table_seconds"]),
            why=NOTIFIER,
            room=held / final,
        ),
    ]


def held_bytes(given: Mapping[str, float]) -> float:
    """Bytes that one topic holds, in all namespaces."""
    return given["namespaces"] * given["premium_topic_bytes" if given["premium_units"] else "standard_topic_bytes"]


def shared(given: Mapping[str, float]) -> dict[str, float]:
    """What there is of each shared thing, a second."""
    room = {
        REQUESTS: given["accounts"] * given["account_requests"],
        INGRESS: given["accounts"] * given["account_ingress"],
        EGRESS: given["accounts"] * given["account_egress"],
        PARTITIONS: given["suppliers"] * given["partition_entities"],
    }
    if units := given["premium_units"]:
        carried = given["namespaces"] * units * given["unit_bytes_per_second"] * given["unit_share"]
        return room | {UNIT_IN: carried, UNIT_OUT: carried}
    looked = given["depth_reads_per_second"] * given["management_credits"]
    return room | {CREDITS: given["namespaces"] * (given["standard_credits"] - looked)}


def simulate(job: str = "detect", changed: Mapping[str, float] | None = None) -> Report:
    """One run with some figures changed. Raises KeyError for a figure that there is not."""
    given = values(changed)
    nodes, first, last = int(given["nodes"]), given["boot_first_seconds"], given["boot_last_seconds"]
    ready = [first + (last - first) * number / max(1, nodes - 1) for number in range(nodes)]
    room, steps = shared(given), stages(given, job)
    kept = [
        Stage(**{**vars(one), "uses": {name: use for name, use in one.uses.items() if name in room}}) for one in steps
    ]
    return _report(job, dict(changed or {}), given, run(given["images"], kept, room, ready))


def _report(job: str, changed: dict[str, float], given: Mapping[str, float], out: Outcome) -> Report:
    rate = node_rate(given, job)
    overall = given["images"] / out.seconds
    busy = given["images"] / rate / out.node_seconds
    evictions = given["evictions_per_node_hour"] * out.node_seconds / HOUR
    sizes = {"ingest": "event_bytes", "workers": "accepted_bytes", "notifier": "final_bytes"}
    return Report(
        job=job,
        changed=changed,
        hours=out.seconds / HOUR,
        images_per_second=overall,
        saturates=max(out.bound, key=lambda name: out.bound[name]),
        used={name: round(share, 4) for name, share in out.used.items()},
        node_hours=out.node_seconds / HOUR,
        nodes_busy=busy,
        nodes_enough=min(int(given["nodes"]), math.ceil(overall / rate)),
        done_twice=evictions * min(given["slots"], rate * given["lock_seconds"] / 2) * busy,
        events_delivered_hours=out.empty_at["events"] / HOUR,
        longest_queue_gb=max(out.peak[stage] * given[size] for stage, size in sizes.items()) / 1e9,
        connections=given["nodes"] * given["worker_connections"] / given["namespaces"],
    )


def remedy(saturated: str, given: Mapping[str, float]) -> tuple[str, dict[str, float]] | None:
    """What to change about it, in words and in figures; None where only more nodes help."""
    if saturated == CREDITS:
        return "Premium, 1 messaging unit", {"premium_units": 1}
    if saturated in (UNIT_IN, UNIT_OUT):
        if given["premium_units"] < UNITS[-1]:
            more = next(units for units in UNITS if units > given["premium_units"])
            return f"{more} messaging units", {"premium_units": more}
        more = given["namespaces"] + 1
        return f"{more:g} namespaces, each for a share of the suppliers", {"namespaces": more}
    if saturated in (REQUESTS, INGRESS, EGRESS):
        more = given["accounts"] * 2
        return f"{more:g} storage accounts, each for a share of the suppliers", {"accounts": more}
    if saturated == INGEST:
        return f"{given['ingest_replicas'] * 2:g} replicas of ingest", {"ingest_replicas": given["ingest_replicas"] * 2}
    if saturated == NOTIFIER:
        more = given["notifier_replicas"] * 2
        return f"{more:g} replicas of the notifier", {"notifier_replicas": more}
    if saturated == TURNS:
        return "enter 10 uploads of a supplier in one turn (code)", {"ingest_serial_requests": 0.2}
    if saturated == PARTITIONS:
        # A header for 10 uploads, and no look at the run for each final: 1 + 0.1, and 2.
        return "write 10 uploads with one header, look at the run less often (code)", {
            "ingest_run_entities": 1.1,
            "notifier_run_entities": 2,
        }
    return None


def ladder(job: str, changed: Mapping[str, float]) -> list[tuple[str, Report]]:
    """From what there is to where only nodes are scarce: each step changes what saturated the step before."""
    given, found = dict(changed), [("as it is", simulate(job, changed))]
    while len(found) < MOST_STEPS and (step := remedy(found[-1][1].saturates, values(given))):
        what, change = step
        if all(values(given)[name] == value for name, value in change.items()):
            break  # done already: what is left needs another design
        given |= change
        found.append((what, simulate(job, given)))
    return found


def tiers(job: str, changed: Mapping[str, float]) -> list[tuple[str, Report]]:
    """The broker alone: everything else has no end."""
    wide = {**changed, "suppliers": 1e6, "ingest_replicas": 1e6, "notifier_replicas": 1e6, "accounts": 1e6}
    chosen: list[tuple[str, dict[str, float]]] = [
        ("Standard", {}),
        ("Standard, settling costs no credit", {"settle_credits": 0}),
        ("Standard, 10 images a message", {"images_per_message": 10}),
        (
            "Standard, 10 images a message and a list instead of events",
            {"images_per_message": 10, "images_per_event": 10},
        ),
        ("Standard, 4 namespaces", {"namespaces": 4}),
        ("Standard, 10 namespaces", {"namespaces": 10}),
        *((f"Premium, {units} messaging unit{'s' * (units > 1)}", {"premium_units": float(units)}) for units in UNITS),
    ]
    return [(name, simulate(job, wide | more)) for name, more in chosen]


def show(title: str, rows: list[tuple[str, Report]]) -> None:
    """As a table."""
    print(f"\n{title}\n\n| what | hours | images/s | saturated by | node-hours | nodes busy | nodes enough |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for what, one in rows:
        print(
            f"| {what} | {one.hours:.1f} | {one.images_per_second:,.0f} | {one.saturates} | {one.node_hours:,.0f} "
            f"| {one.nodes_busy:.0%} | {one.nodes_enough} |"
        )


def notes(first: Report, last: Report) -> list[str]:
    """What a table does not say."""
    found = [
        f"Done twice because of evictions: {last.done_twice:,.0f} images of the last row ({last.node_hours:,.0f} "
        "node-hours); effects stay one each.",
        f"AMQP connections of workers: {first.connections:,.0f} of {values()['most_connections']:,.0f}.",
        f"Longest queue: {first.longest_queue_gb:.1f} GB at first, {last.longest_queue_gb:.1f} GB in the last row.",
    ]
    if first.events_delivered_hours > EVENT_GRID_HOURS:
        found.append(
            f"At first the last event is delivered after {first.events_delivered_hours:.0f} h. Event Grid tries for "
            f"{EVENT_GRID_HOURS:.0f} h: the sweep has to find the rest."
        )
    return found


def setting(text: str) -> tuple[str, float]:
    """`name=number`."""
    name, _, number = text.partition("=")
    if name not in figures():
        raise argparse.ArgumentTypeError(f"{name!r} is no figure; see --figures")
    return name, float(number)


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=("detect", "convert"), nargs="+", default=["detect", "convert"])
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=NUMBER", dest="changed")
    parser.add_argument("--figures", action="store_true", help="list every number with its unit and source, and end")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    chosen = parser.parse_args()
    changed = dict(chosen.changed)
    if chosen.figures:
        given = values(changed)
        for name, figure in figures().items():
            print(f"{name:26} {given[name]:>16,.6g}  {figure.unit}; {figure.source}")
        return 0
    document: dict[str, Any] = {"figures": {name: asdict(one) for name, one in figures().items()}, "changed": changed}
    for job in chosen.job:
        broker, steps = tiers(job, changed), ladder(job, changed)
        if chosen.json:
            document[job] = {
                name: [{"what": what} | asdict(one) for what, one in rows]
                for name, rows in (("tiers", broker), ("ladder", steps))
            }
            continue
        show(f"{job}: the broker alone", broker)
        show(f"{job}: one change after the other", steps)
        print("\n" + "\n".join(f"- {note}" for note in notes(steps[0][1], steps[-1][1])))
    if chosen.json:
        print(json.dumps(document, indent=1, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
