"""Every number of the scale simulation, with its unit and where it is from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fusebus.contracts.topology import TOPICS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

THROTTLING = "learn.microsoft.com, Service Bus: throttling operations"
QUOTAS = "learn.microsoft.com, Service Bus: quotas"
PERFORMANCE = "learn.microsoft.com, Service Bus: best practices for performance"
ACCOUNT = "learn.microsoft.com, Scalability targets for standard storage accounts"
TABLES = "learn.microsoft.com, Scalability targets for Table storage"
ASSUMED = "assumed"


@dataclass(frozen=True)
class Figure:
    """A number that the model uses."""

    value: float
    unit: str
    source: str


def filters_of(topic: str) -> int:
    """Rules that a message sent to this topic is compared with."""
    return sum(len(one.rules) for found in TOPICS if found.name == topic for one in found.subscriptions)


def measured(file: str, *path: str, default: float, source: str) -> tuple[float, str]:
    """A figure of a benchmark's file and its place; where that was never written, `default` and its source."""
    try:
        found: Any = json.loads((BENCHMARKS / file).read_text())
        for step in path:
            found = found[step]
        return float(found), f"benchmarks/{file}: {' / '.join(path)}"
    except (OSError, KeyError, ValueError):
        return default, source


def _measured_figures() -> dict[str, Figure]:
    thirty = ("details", "pipeline", "model of 30 ms")
    share, share_source = measured("inferencer.json", *thirty, "share", default=0.92, source="SPEED mark")
    cpu, cpu_source = measured("inferencer.json", *thirty, "ours_ms", default=39.0, source="inferencer_bench.py")
    converting, converting_source = measured(
        "convert.json",
        "figures",
        "photograph 2 MP",
        "fusebus",
        "cpu_ms",
        default=27.1,
        source="docs/convert.md: 20.7 times Pillow's 1.78 pictures/s at 2 MP",
    )
    checking, checking_source = measured(
        "validation.json", "costs", "2 MP JPEG", "cpu_with_derivative_ms", default=28.0, source="validation_bench.py"
    )
    png, png_source = measured("validation.json", "costs", "2 MP PNG", "file_mb", default=3.5, source=ASSUMED)
    return {
        "share_of_model": Figure(share, "of the model's own rate that a worker reaches", share_source),
        "detect_cpu_ms": Figure(cpu, "ms CPU an image of a worker", cpu_source),
        "convert_cpu_ms": Figure(converting, "ms CPU an image of a conversion", converting_source),
        "ingest_cpu_ms": Figure(checking, "ms CPU an image of ingest's check", checking_source),
        "png_bytes": Figure(png * 1e6, "bytes of a converted photograph", png_source),
    }


def figures() -> dict[str, Figure]:
    """All of them, by name."""
    return {
        # The run.
        "images": Figure(10e6, "images", "the question"),
        "nodes": Figure(100, "nodes, one worker each", "the question"),
        "suppliers": Figure(20, "suppliers, one open run each, with equal shares", ASSUMED),
        "photo_bytes": Figure(0.5e6, "bytes of a photograph", "convert_bench.py: 2 MP at 2 bits a pixel"),
        "annotated_bytes": Figure(0.5e6, "bytes of picture and result of an analysis", "as the photograph"),
        # Nodes.
        "model_ms": Figure(30, "ms of GPU an image", "inferencer_bench.py's faked model; no GPU was measured"),
        "node_cores": Figure(4, "cores of a node", "Standard_NC4as_T4_v3"),
        "core_share": Figure(0.8, "of a node's cores that work fills", "SPEED: cores = CPU / model / 0.8"),
        "boot_first_seconds": Figure(180, "s until the first node works", "DESIGN: 0 to 1 takes 3-8 min"),
        "boot_last_seconds": Figure(480, "s until the last node works", "DESIGN: 0 to 1 takes 3-8 min"),
        "evictions_per_node_hour": Figure(0.05, "evictions of a Spot node an hour", ASSUMED),
        "slots": Figure(32, "images in a worker's hands", "FUSEBUS_INFERENCER_SLOTS"),
        "lock_seconds": Figure(60, "s of a message's lock", "contracts.topology"),
        # Ingest and notifier.
        "ingest_replicas": Figure(10, "replicas of ingest", "Container Apps' default maximum"),
        "ingest_cores": Figure(2, "cores of a replica", ASSUMED),
        "notifier_replicas": Figure(1, "replicas of the notifier", ASSUMED),
        "service_slots": Figure(8, "messages handled at a time by a replica", "FUSEBUS_CONSUMER_SLOTS"),
        "table_seconds": Figure(0.010, "s of one table request", ASSUMED),
        "blob_seconds": Figure(0.030, "s of one blob request", ASSUMED),
        # Broker.
        "namespaces": Figure(1, "namespaces, each with all topics", "contracts.topology"),
        "standard_credits": Figure(1000, "credits/s of a Standard namespace", THROTTLING),
        "data_credits": Figure(1, "credits of a message sent or received", THROTTLING),
        "filter_credits": Figure(1, "credits of a filter evaluated", THROTTLING),
        "settle_credits": Figure(1, "credits of a settlement or renewal", f"{ASSUMED}: not among those documented"),
        "management_credits": Figure(10, "credits of reading a queue's depth", THROTTLING),
        "depth_reads_per_second": Figure(
            2 / 15 + 2 / 30, "1/s; dispatcher: two each 15 s; KEDA: two each 30 s", "dispatcher.settings; KEDA"
        ),
        "unit_bytes_per_second": Figure(4e6, "bytes/s in, and out, of a Premium unit", PERFORMANCE),
        "unit_share": Figure(0.5, "of that left with duplicate detection and filters", ASSUMED),
        "event_bytes": Figure(1000, "bytes of a BlobCreated", "golden file encoded with the SDK, 559, longer names"),
        "accepted_bytes": Figure(1000, "bytes of an ImageAccepted", "golden file encoded with the SDK, 997"),
        "final_bytes": Figure(1100, "bytes of an ImageAnalysed", "golden file encoded with the SDK, 939, longer names"),
        "standard_topic_bytes": Figure(5e9, "bytes that a Standard topic holds", QUOTAS),
        "premium_topic_bytes": Figure(80e9, "bytes that a Premium topic holds", QUOTAS),
        "most_connections": Figure(5000, "AMQP connections of a namespace", QUOTAS),
        "worker_connections": Figure(3, "AMQP connections of a worker: receive, renew, send", "PROTOCOL: one a link"),
        "premium_units": Figure(0, "messaging units of a Premium namespace (1 to 16); 0: Standard", "the question"),
        "images_per_message": Figure(1, "images that a message of images and results tells of", "contracts"),
        "images_per_event": Figure(1, "images that a message of uploads tells of", "Event Grid: one"),
        # Storage.
        "accounts": Figure(1, "storage accounts", "one for all suppliers"),
        "account_requests": Figure(20_000, "requests/s of an account; 40,000 in some regions", ACCOUNT),
        "account_ingress": Figure(25e9 / 8, "bytes/s into an account (25 Gbps; 60 in some regions)", ACCOUNT),
        "account_egress": Figure(50e9 / 8, "bytes/s out of an account (50 Gbps; 200 in some regions)", ACCOUNT),
        "partition_entities": Figure(2000, "entities/s of a table partition", TABLES),
        "ingest_blob_requests": Figure(2, "blob requests an image of ingest: properties, read", "ingest.validation"),
        "worker_blob_requests": Figure(3, "blob requests an image of a worker: read, two writes", "inferencer.handler"),
        "ingest_table_requests": Figure(6, "table requests an image of ingest", "ledger.uploads, ledger.images"),
        "ingest_run_entities": Figure(2, "entities an image in a run's partition", "ledger.uploads: header, upload"),
        "ingest_serial_requests": Figure(
            2, "table requests an image that a supplier's uploads make one after the other", "ledger.uploads"
        ),
        "notifier_table_requests": Figure(3, "table requests an image of the notifier", "ledger.runs, notifier"),
        "notifier_run_entities": Figure(3, "entities an image in a run's partition", "ledger.runs, notifier"),
        **_measured_figures(),
    }


def values(changed: Mapping[str, float] | None = None) -> dict[str, float]:
    """Each figure's value, some of them changed. Raises KeyError for a name that is none."""
    found = {name: figure.value for name, figure in figures().items()}
    for name, value in (changed or {}).items():
        if name not in found:
            raise KeyError(name)
        found[name] = value
    return found
