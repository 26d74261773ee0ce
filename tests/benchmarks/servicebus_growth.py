"""How much memory the broker takes for many receivers and a long queue, and how it grows as connections come and go."""

from __future__ import annotations

import resource
import time
from statistics import median
from typing import Any

from raw_amqp import RawClient, envelope, message
from servicebus_broker import BATCH, BODY, broker, taken

CHURN_MESSAGES, CHURN_CONNECTIONS = 4000, 4  # of one round
WARM_UP_ROUNDS = 50  # not counted: buffers and tables grow to their size
BLOCKS = 12  # stretches of the rest
T_95 = 2.23  # Student's t for twelve points and two parameters, two-sided
MARK_GROWTH = 6.0  # megabytes an hour, the upper end of the interval: a tenth of what a broker has at its start


def size(queued: int, receivers: int) -> dict[str, Any]:
    """Memory with many receivers and a long queue, and after they are gone."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, receivers + 1000)), hard))
    with broker() as running:
        start = running.resident_bytes()
        open_receivers = [idle_receiver(running.port) for _ in range(receivers)]
        with_receivers = running.resident_bytes()
        sender = RawClient(running.port, timeout=60)
        sender.attach_sender("h")
        batch = envelope([message(BODY) for _ in range(BATCH)])
        sender.send_all([batch] * (queued // BATCH), batch=True, ahead=40)
        full = running.resident_bytes()
        for each in open_receivers:
            each.close()
        drain = RawClient(running.port, timeout=60)
        drain.attach_receiver("h", settled=True)
        taken(drain, queued)
        drain.close()
        sender.close()
        time.sleep(2.0)  # the broker notices that connections are gone
        after = running.resident_bytes()
    return {
        "receivers": receivers,
        "queued": queued,
        "start_megabytes": start / 1e6,
        "with_receivers_megabytes": with_receivers / 1e6,
        "full_megabytes": full / 1e6,
        "after_drain_megabytes": after / 1e6,
    }


def backlog(queued: int, store: str) -> dict[str, Any]:
    """What sending so many messages before one is received costs the broker, and then receiving them."""
    with broker(store) as running:
        sender = RawClient(running.port, timeout=60)
        sender.attach_sender("h")
        batch = envelope([message(BODY) for _ in range(BATCH)])
        start = running.cpu_seconds()
        sender.send_all([batch] * (queued // BATCH), batch=True, ahead=40)
        sent = running.cpu_seconds()
        receiver = RawClient(running.port, timeout=60)
        receiver.attach_receiver("h", settled=True)
        taken(receiver, queued)
        received = running.cpu_seconds()
        receiver.close()
        sender.close()
    send_us, receive_us = (seconds / queued * 1e6 for seconds in (sent - start, received - sent))
    return {"store": store, "queued": queued, "send_us": send_us, "receive_us": receive_us}


def idle_receiver(port: int) -> RawClient:
    client = RawClient(port)
    client.attach_receiver("g")
    client.grant(10)
    return client


def churn(seconds: float, durable: bool) -> dict[str, Any]:
    """Connections, sends, completions over and over; how memory grows once everything is warm."""
    samples: list[tuple[float, float]] = []
    with broker("durable" if durable else "memory") as running:
        first = running.resident_bytes() / 1e6
        for _ in range(WARM_UP_ROUNDS):
            churn_once(running.port)
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < seconds:
            churn_once(running.port)
            samples.append((elapsed, running.resident_bytes() / 1e6))
    rounds = len(samples)
    per_hour, margin = (each * 3600 for each in trend(samples))
    return {
        "store": "durable" if durable else "memory",
        "seconds": seconds,
        "messages": rounds * CHURN_MESSAGES,
        "connections": rounds * CHURN_CONNECTIONS,
        "first_megabytes": first,
        "warm_megabytes": samples[0][1],
        "last_megabytes": samples[-1][1],
        "slope_megabytes_per_hour": per_hour,
        "confidence_95_megabytes_per_hour": margin,
        "slope_bytes_per_message": per_hour * 1e6 / 3600 / (rounds * CHURN_MESSAGES / seconds),
    }


def trend(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope and half of its 95 % interval, units of the second per unit of the first.

    Least squares over the medians of BLOCKS stretches: what follows closely upon one another is not independent.
    """
    size = max(1, len(points) // BLOCKS)
    stretches = [points[start : start + size] for start in range(0, len(points) - size + 1, size)]
    middles = [(median(x for x, _ in each), median(y for _, y in each)) for each in stretches]
    count = len(middles)
    x_mean, y_mean = sum(x for x, _ in middles) / count, sum(y for _, y in middles) / count
    spread = sum((x - x_mean) ** 2 for x, _ in middles)
    if count < 3 or not spread:
        return 0.0, float("inf")
    slope = sum((x - x_mean) * (y - y_mean) for x, y in middles) / spread
    left = sum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in middles)
    return slope, T_95 * (left / (count - 2) / spread) ** 0.5


def churn_once(port: int) -> None:
    for name in ("c", "d"):
        sender = RawClient(port)
        sender.attach_sender(name)
        sender.send_all([message(BODY, number=index) for index in range(2000)])
        receiver = RawClient(port)
        receiver.attach_receiver(name)
        taken(receiver, 2000, complete=True)
        receiver.close()
        sender.close()


def grown(result: dict[str, Any]) -> str:
    """What a churn says about growth: decided only if its confidence is narrow enough."""
    slope, margin = result["slope_megabytes_per_hour"], result["confidence_95_megabytes_per_hour"]
    reached = "reached" if slope + margin <= MARK_GROWTH else "MISSED "
    return f"{reached}  {result['store']:8} growth at most {MARK_GROWTH} MB an hour: {slope:.1f} ± {margin:.1f}"
