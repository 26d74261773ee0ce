"""One running stack that exports to a real OTLP receiver and can be scraped; its delivery is made once."""

import asyncio
import shutil
import time
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from otlp_receiver import OtlpReceiver

from fusebus.console.photos import photos_in
from fusebus.console.settings import console_settings
from fusebus.stack.delivery import Delivered, deliver
from fusebus.stack.stack import SERVICES, Stack, StackOptions
from fusebus.vision import encode_jpeg
from fusebus.vision.boards import draw_board

SIZE = (640, 480)  # pixels: the flow is under test, not the picture
PHOTOS = 3
HEADER = "x-canary=otlp-header-canary-5d0b"
WAIT_SECONDS = 60.0


@dataclass
class Observed:
    """The stack after one delivery, and what it told."""

    stack: Stack
    receiver: OtlpReceiver
    delivered: Delivered
    scraped: dict[str, str]
    """By service, the page of /metrics."""

    def port(self, service: str) -> int:
        """Where a service can be scraped."""
        return int(self.stack.children[service].environment["FUSEBUS_HEALTH_PORT"])

    def page(self, service: str) -> str:
        """What a scrape of a service gets now."""
        return _page(self.port(service))

    def logs(self) -> dict[str, str]:
        """By file, all that the stack's processes have written, workers' output too."""
        return {str(path): path.read_text(errors="replace") for path in sorted(self.stack.folder.rglob("*"))
                if path.is_file() and path.suffix in (".log", ".txt")}  # fmt: skip


@pytest.fixture(scope="session")
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def observed(tmp_path_factory: pytest.TempPathFactory, otlp: OtlpReceiver) -> AsyncIterator[Observed]:
    """Short times; one file is no image, so that there is a rejection too."""
    photos = tmp_path_factory.mktemp("photos")
    for seed in range(PHOTOS):
        (photos / f"{seed}.jpg").write_bytes(encode_jpeg(draw_board(seed, SIZE).image))
    (photos / "text.jpg").write_text("not a photo")
    options = StackOptions(
        folder=tmp_path_factory.mktemp("stack"),
        lock_seconds=5.0,
        run_quiet_seconds=3.0,
        boot_seconds=0.5,
        overrides={
            "telemetry": {"exporter": "otlp", "endpoint": otlp.endpoint, "headers": HEADER, "metric_seconds": 1.0},
            "bus": {"queue_metrics_seconds": 1.0},
            "log": {"level": "DEBUG"},
            "costs": {"budget_per_month": 100.0},
        },
    )
    async with Stack(options) as stack:
        delivered = await deliver(
            stack,
            console_settings(stack.settings_file),
            "acme",
            photos_in(photos),
            close_when_entered=False,
            on_upload=lambda _: None,
            on_look=lambda _: None,
        )
        await asyncio.to_thread(_send_what_nobody_understands, stack)
        found = Observed(stack, otlp, delivered, {})
        await _until_told(otlp, stack)
        found.scraped = {name: await asyncio.to_thread(_page, found.port(name)) for name in SERVICES}
        yield found


def _send_what_nobody_understands(stack: Stack) -> None:
    """It becomes a dead letter, which the dispatcher counts and the notifier deals with."""
    connection = tomllib.loads(stack.settings_file.read_text())["bus"]["connection"]
    with ServiceBusClient.from_connection_string(connection) as client, client.get_topic_sender("results") as sender:
        sender.send_messages(ServiceBusMessage(b"not a message", message_id="strange"))


async def _until_told(otlp: OtlpReceiver, stack: Stack) -> None:
    """The last spans are sent some seconds after their end, and a worker's when it ends."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline and "fusebus.dead_letters.handled" not in otlp.received.metrics:
        await asyncio.sleep(0.2)
    seen, quiet_since = -1, time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - quiet_since < 5:
        if (count := len(otlp.received.spans)) != seen:
            seen, quiet_since = count, time.monotonic()
        await asyncio.sleep(0.2)


def _page(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return str(answer.read().decode())


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """A program of Debian's package `prometheus`; missing, the test fails: this tier is run where it is installed."""

    def find(name: str) -> str:
        path = shutil.which(name)
        assert path, f"{name} is missing: apt-get install prometheus"
        return path

    return find


@pytest.fixture(scope="session")
def deployment() -> Path:
    """The folder with alert rules, dashboard and configurations."""
    return Path(__file__).parents[2] / "deploy" / "observability"
