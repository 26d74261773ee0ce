"""Canaries: secrets planted in settings and in addresses that fail appear in no log line, span or metric."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from aiohttp import web
from otlp_receiver import OtlpReceiver

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUS_KEY = "Y2FuYXJ5LW9mLXRoZS1idXMta2V5LTgxMWYyYQ=="
BLOB_SIGNATURE = "bG9iLWNhbmFyeQ+sig/4f1d="
TABLE_KEY = "dGFibGUtY2FuYXJ5LWtleS05MmFjMTc3Yg=="
SMTP_PASSWORD = 'smtp "canary" pass\\word ö 77'
OTLP_TOKEN = "otlp-canary-token-c4be"
TEAMS_SIGNATURE = "teams_canary-Signature-41b7"
SECRETS = (BUS_KEY, BLOB_SIGNATURE, TABLE_KEY, SMTP_PASSWORD, OTLP_TOKEN, TEAMS_SIGNATURE)
SERVICES = ("ingest", "dispatcher", "inferencer", "notifier")
FAILING_SECONDS = 60.0

PROGRAM = """
import asyncio, logging, os, sys, threading, urllib.request, warnings
import msgspec
from opentelemetry import metrics, trace
from fusebus.host import Life, Secret, run_service

class Smtp(msgspec.Struct, frozen=True, kw_only=True):
    password: Secret = Secret()

class Settings(msgspec.Struct, frozen=True, kw_only=True):
    smtp: Smtp
    address: Secret = Secret()

log = logging.getLogger("canary")

async def main(settings: Settings, life: Life) -> None:
    password, address = settings.smtp.password.reveal(), settings.address.reveal()
    log.info("the relay answered 535 %s is not the password", password)
    log.warning("with ids", extra={"reply": {"text": password}, "address": address})
    log.info("%s %r", settings, settings.smtp)
    warnings.warn(password)
    threading.Thread(target=lambda: int(password), name="thread").start()
    tracer = trace.get_tracer("canary")
    with tracer.start_as_current_span("plain span", attributes={"a": password, "b": [address, "x"]}) as span:
        span.add_event(password, {"where": address})
    try:
        with tracer.start_as_current_span(f"GET {address}"):
            raise ValueError(f"{address} said {password}")
    except ValueError:
        log.exception("failed with %s", address)
    try:
        urllib.request.urlopen(address, timeout=2)
    except OSError as error:
        log.error("%s: %r", address, error)
    life.health.ready = True
    await life.stop.wait()
    raise RuntimeError(f"the end of {password}")

sys.exit(run_service("canary", Settings, main))
"""


def looks_of(secret: str) -> set[str]:
    """How a secret may stand in a text: as it is, in a URL, in JSON, in a Python repr."""
    inside = repr(secret)[1:-1], secret.replace("\\", "\\\\").replace('"', '\\"')
    return {secret, quote(secret), quote(secret, safe=""), *inside, secret.encode("ascii", "backslashreplace").decode()}


def assert_silent(name: str, told: bytes | str, secrets: tuple[str, ...] = SECRETS) -> None:
    data = told if isinstance(told, bytes) else told.encode(errors="replace")
    for secret in secrets:
        for look in looks_of(secret):
            assert look.encode() not in data, f"{name} holds {look}"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def echo() -> AsyncIterator[str]:
    """A storage service that refuses everything and, as proxies do, quotes the request with its signature."""

    async def refuse(request: web.Request) -> web.Response:
        quoted = f"{request.method} {request.scheme}://{request.host}{request.raw_path} {dict(request.headers)}"
        code = "<?xml version='1.0'?><Error><Code>AuthenticationFailed</Code><Message>"
        return web.Response(status=403, text=f"{code}{quoted.replace('<', '').replace('&', '&amp;')}</Message></Error>",
                            content_type="application/xml")  # fmt: skip

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    await runner.cleanup()


def telemetry(receiver: OtlpReceiver) -> dict[str, str]:
    return {
        "FUSEBUS_TELEMETRY_EXPORTER": "otlp",
        "FUSEBUS_TELEMETRY_ENDPOINT": receiver.endpoint,
        "FUSEBUS_TELEMETRY_HEADERS": f"x-token={OTLP_TOKEN}",
        "FUSEBUS_TELEMETRY_METRIC_SECONDS": "1",
        "FUSEBUS_LOG_LEVEL": "DEBUG",
    }


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FUSEBUS_")}


def started(arguments: list[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT)


def complains(log: Path) -> bool:
    """Whether a service has said that something fails."""
    return re.search('"level":"(warning|error|critical)"', log.read_text(errors="replace")) is not None


async def test_no_secret_of_a_working_stack_is_told(observed: Any) -> None:
    settings = tomllib.loads(observed.stack.settings_file.read_text())
    connections = (settings["bus"]["connection"], settings["blobs"]["connection"])
    keys = tuple(found for text in connections for found in re.findall(r"(?:SharedAccessKey|AccountKey)=([^;]+)", text))
    assert len(keys) == 2
    secrets = (*keys, settings["telemetry"]["headers"].partition("=")[2])
    logs = observed.logs()
    assert any("inferencer" in text for text in logs.values()), "workers' output is among them"
    for name, text in {**logs, **observed.scraped}.items():
        assert_silent(name, text, secrets)
    for number, body in enumerate(observed.receiver.received.raw):
        assert_silent(f"export {number}", body, secrets)


async def test_services_that_fail_tell_no_secret(receiver: OtlpReceiver, echo: str, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        port = nobody.getsockname()[1]
        bus = f"Endpoint=sb://127.0.0.1:{port};SharedAccessKeyName=a;SharedAccessKey={BUS_KEY};UseDevelopmentEmulator=true"
        signature = f"sv=2024-08-04&ss=bt&srt=sco&sp=rl&se=2099-01-01&sig={quote(BLOB_SIGNATURE, safe='')}"
        environment = {
            **clean_environment(),
            **telemetry(receiver),
            "FUSEBUS_BUS_CONNECTION": bus,
            "FUSEBUS_BLOBS_CONNECTION": f"BlobEndpoint={echo}/acme;SharedAccessSignature={signature}",
            "FUSEBUS_LEDGER_CONNECTION": f"TableEndpoint={echo}/acme;AccountName=acme;AccountKey={TABLE_KEY}",
        }
        own = {
            "notifier": {
                "FUSEBUS_NOTIFIER_MAILER": "smtp",
                "FUSEBUS_SMTP_PASSWORD": SMTP_PASSWORD,
                "FUSEBUS_TEAMS_WEBHOOK": f"{echo}/workflows/1?sp=%2Frun&sv=1.0&sig={TEAMS_SIGNATURE}",
            },
            "dispatcher": {"FUSEBUS_DISPATCHER_BATCH_URL": echo, "FUSEBUS_DISPATCHER_INTERVAL_SECONDS": "1"},
            "ingest": {"FUSEBUS_INGEST_SWEEP_INTERVAL_SECONDS": "1"},
            "inferencer": {"FUSEBUS_INFERENCER_FOLLOW_REGISTRY": "true"},
        }
        logs = {name: tmp_path / f"{name}.log" for name in SERVICES}
        running = [started(["-m", f"fusebus.{name}"], {**environment, **own[name]}, log) for name, log in logs.items()]
        deadline = time.monotonic() + FAILING_SECONDS
        while time.monotonic() < deadline and not all(complains(log) for log in logs.values()):
            await asyncio.sleep(0.5)
        exports, deadline = len(receiver.received.raw), time.monotonic() + FAILING_SECONDS
        while time.monotonic() < deadline and len(receiver.received.raw) < exports + len(SERVICES):
            await asyncio.sleep(0.5)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            await asyncio.to_thread(process.wait, 60)
    for name, log in logs.items():
        text = log.read_text(errors="replace")
        assert complains(log), f"{name} had nothing to complain of:\n{text}"
        assert_silent(name, text)
    assert receiver.received.raw
    for body in receiver.received.raw:
        assert_silent("an export", body)


async def test_a_program_that_says_its_secrets_everywhere_is_not_heard(
    receiver: OtlpReceiver, echo: str, unused_tcp_port: int, tmp_path: Path
) -> None:
    address = f"{echo}/results/picture.jpg?sv=2024-08-04&sr=b&sig={quote(BLOB_SIGNATURE, safe='')}&se=2099-01-01"
    environment = {
        **clean_environment(),
        **telemetry(receiver),
        "FUSEBUS_HEALTH_PORT": str(unused_tcp_port),
        "FUSEBUS_SMTP_PASSWORD": SMTP_PASSWORD,
        "FUSEBUS_CANARY_ADDRESS": address,
    }
    log = tmp_path / "canary.log"
    process = started(["-c", PROGRAM], environment, log)
    for _ in range(200):
        with contextlib.suppress(OSError):
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{unused_tcp_port}/readyz", timeout=1)
            break
        await asyncio.sleep(0.1)
    with await asyncio.to_thread(
        urllib.request.urlopen, f"http://127.0.0.1:{unused_tcp_port}/metrics", timeout=5
    ) as answer:
        page = answer.read()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 30) == 1
    text = log.read_text()
    assert "the relay answered 535 *** is not the password" in text
    assert "sv=2024-08-04" in text, "what is no secret is left to read"
    assert "a thread ended by an exception" in text
    assert "ended" in text
    assert any(span.name == "plain span" for span in receiver.received.spans)
    assert [span.failed for span in receiver.received.spans if span.name.startswith("GET ")] == [True]
    assert receiver.received.headers[0]["x-token"] == OTLP_TOKEN, "the collector itself is told"
    for name, told in {"log": text, "scrape": page, **dict(enumerate(receiver.received.raw))}.items():
        assert_silent(str(name), told)
