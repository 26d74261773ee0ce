"""One image's trace, as a real receiver got it from the services' real exporters over real queues."""

from typing import Any

import pytest
from otlp_receiver import Span

from fusebus.ledger import FinalKind

pytestmark = pytest.mark.asyncio(loop_scope="session")
STAGES = ["download", "decode", "model", "annotate", "upload"]


def analysed(observed: Any) -> str:
    """The id of an upload that the model has seen."""
    return next(row.upload_id for row in observed.delivered.last.uploads if row.final.kind is FinalKind.ANALYSED)


def tree_of(observed: Any, upload: str) -> list[Span]:
    received = observed.receiver.received
    return received.tree(received.trace_of(fusebus__upload__id=upload))


def parents(tree: list[Span]) -> dict[str, Span]:
    return {span.id: span for span in tree}


def path_to_root(span: Span, tree: list[Span]) -> list[str]:
    by_id, found = parents(tree), []
    while True:
        found.append(f"{span.service}: {span.name}")
        if not span.parent:
            return found
        span = by_id[span.parent]


async def test_a_trace_of_one_image_is_one_tree_through_all_services_and_queues(observed: Any) -> None:
    tree = tree_of(observed, analysed(observed))
    roots = [span for span in tree if not span.parent]
    assert len(roots) == 1
    assert all(span.parent in parents(tree) for span in tree if span.parent), "no span hangs in the air"
    assert {span.service for span in tree} == {"fusebus-ingest", "fusebus-inferencer", "fusebus-notifier"}
    final = next(span for span in tree if span.name == "process results")
    way = path_to_root(final, tree)[::-1]
    assert way[0].startswith("fusebus-ingest: ")
    assert way[1:] == [
        "fusebus-ingest: process uploads",
        "fusebus-ingest: send images",
        "fusebus-inferencer: process images",
        "fusebus-inferencer: send results",
        "fusebus-notifier: process results",
    ]


async def test_each_image_has_a_trace_of_its_own(observed: Any) -> None:
    received = observed.receiver.received
    traces = [received.trace_of(fusebus__upload__id=row.upload_id) for row in observed.delivered.last.uploads]
    assert len(set(traces)) == len(traces) == len(observed.delivered.sent)


async def test_producers_and_consumers_follow_the_messaging_conventions(observed: Any) -> None:
    tree = tree_of(observed, analysed(observed))
    by_id = parents(tree)
    for consumer in (span for span in tree if span.kind == "consumer"):
        about = consumer.attributes
        assert about["messaging.system"] == "servicebus"
        assert about["messaging.operation.type"] == about["messaging.operation.name"] == "process"
        assert consumer.name == f"process {about['messaging.destination.name']}"
        assert about["messaging.destination.subscription.name"]
        assert about["messaging.message.id"]
        producer = by_id[consumer.parent]
        assert producer.kind == "producer"
        assert producer.service != consumer.service or producer.attributes["messaging.destination.name"] == "uploads"
        assert producer.attributes["messaging.message.id"] == about["messaging.message.id"]
        assert producer.began <= consumer.began
        assert (producer.trace, producer.id) in consumer.links
    assert {span.attributes["messaging.destination.name"] for span in tree if span.kind == "producer"} >= {
        "uploads", "images", "results",
    }  # fmt: skip


async def test_every_message_of_the_trace_is_settled_in_it(observed: Any) -> None:
    tree = tree_of(observed, analysed(observed))
    settled = [span for span in tree if span.attributes.get("messaging.operation.type") == "settle"]
    assert {span.name for span in settled} == {"complete uploads", "complete images", "complete results"}
    assert all(span.kind == "client" for span in settled)


async def test_the_stages_of_an_image_are_below_its_processing(observed: Any) -> None:
    tree = tree_of(observed, analysed(observed))
    stages = [span for span in tree if span.name.startswith("stage ")]
    assert [span.name.removeprefix("stage ") for span in stages] == STAGES
    assert all("fusebus-inferencer: process images" in path_to_root(span, tree) for span in stages)
    assert all(span.began <= span.ended for span in stages)


async def test_uploads_that_are_announced_together_are_linked_from_the_one_send(observed: Any) -> None:
    received = observed.receiver.received
    sends = [
        s for s in received.spans if s.name == "send uploads" and s.attributes.get("messaging.batch.message_count")
    ]
    created = {(span.trace, span.id) for span in received.spans if span.name == "create uploads"}
    alone = [span for span in received.spans if span.name == "send uploads" and span.kind == "producer"]
    assert {link for send in sends for link in send.links} == created
    assert len(created) + len(alone) >= len(observed.delivered.sent)


async def test_the_looks_at_a_run_have_a_trace_apart_from_its_images(observed: Any) -> None:
    received = observed.receiver.received
    checks = [s for s in received.spans if str(s.attributes.get("messaging.message.id", "")).startswith("RunCheck/")]
    images = {received.trace_of(fusebus__upload__id=row.upload_id) for row in observed.delivered.last.uploads}
    assert checks
    assert not images & {span.trace for span in checks}
    first = next(span for span in checks if span.kind == "producer")
    assert {trace for trace, _ in first.links} & images, "but it says from which upload it came"
