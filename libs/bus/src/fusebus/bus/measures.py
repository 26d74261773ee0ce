"""What the bus tells OpenTelemetry in numbers, by the messaging conventions where they have a name for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from opentelemetry import metrics

from fusebus.bus.settlement import Source
from fusebus.bus.tracing import destination

REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
WORK_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
WAIT_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)

_meter = metrics.get_meter("fusebus.bus")
_sent = _meter.create_counter(
    "messaging.client.sent.messages", unit="{message}", description="Messages that were to be sent."
)
_received = _meter.create_counter(
    "messaging.client.consumed.messages", unit="{message}", description="Messages that were received."
)
_operation = _meter.create_histogram(
    "messaging.client.operation.duration",
    unit="s",
    description="What one send or one settling took.",
    explicit_bucket_boundaries_advisory=REQUEST_SECONDS,
)
_process = _meter.create_histogram(
    "messaging.process.duration",
    unit="s",
    description="What the handling of one message took, with the publishing of what follows from it.",
    explicit_bucket_boundaries_advisory=WORK_SECONDS,
)
_wait = _meter.create_histogram(
    "fusebus.message.wait.duration",
    unit="s",
    description="How long a message had been in its queue when it was handled.",
    explicit_bucket_boundaries_advisory=WAIT_SECONDS,
)
_redelivered = _meter.create_counter(
    "fusebus.message.redeliveries", unit="{message}", description="Messages that were received not for the first time."
)


@contextmanager
def operation(name: str, topic: str, subscription: str | None = None, messages: int = 0) -> Iterator[None]:
    """One request to the broker; `messages`: so many are to be sent by it."""
    attributes = {**destination(topic, subscription), "messaging.operation.name": name}
    with timed(_operation.record, attributes):
        try:
            yield
        except Exception as error:
            if messages:
                _sent.add(messages, {**attributes, "error.type": type(error).__qualname__})
            raise
        if messages:
            _sent.add(messages, attributes)


def received(source: Source, delivery_count: int) -> None:
    """One message came."""
    attributes = destination(source.topic, source.subscription)
    _received.add(1, {**attributes, "messaging.operation.name": "receive"})
    if delivery_count > 0:
        _redelivered.add(1, attributes)


def waited(source: Source, enqueued_at: datetime | None) -> None:
    """A message that was enqueued then is handled now."""
    if enqueued_at is not None:
        _wait.record(max(0.0, time.time() - enqueued_at.timestamp()), destination(source.topic, source.subscription))


@contextmanager
def processing(source: Source) -> Iterator[dict[str, str]]:
    """One message is handled. What is put into the attributes that it yields is recorded with it."""
    attributes = destination(source.topic, source.subscription)
    with timed(_process.record, attributes):
        yield attributes


@contextmanager
def timed(record: Callable[[float, dict[str, str]], None], attributes: dict[str, str]) -> Iterator[None]:
    """Record the seconds inside, with the type of what was raised."""
    began = time.perf_counter()
    try:
        yield
    except BaseException as error:
        record(time.perf_counter() - began, {**attributes, "error.type": type(error).__qualname__})
        raise
    record(time.perf_counter() - began, attributes)
