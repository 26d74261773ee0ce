"""What is taken out of text, and what stays to be read."""

import json
import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusebus.host.logs import JsonFormatter
from fusebus.host.redaction import note_secret, redact
from fusebus.host.telemetry import Redacting

BUS = "Endpoint=sb://house.servicebus.windows.net/;SharedAccessKeyName=send;SharedAccessKey=a2V5LW9mLXRlc3Q9PQ=="


@pytest.mark.parametrize(
    "text",
    [
        "https://x.blob.core.windows.net/c/b?sv=1&sig=hidden%3D&se=2",
        "url%3Fsig%3Dhidden",
        "AccountKey=hidden;EndpointSuffix=core",
        "Authorization: Bearer hidden",
        "Authorization: SharedKey account:hidden",
        "Authorization: Basic b3BzOmhpZGRlbg==hidden",
        "SharedAccessSignature sr=x&sig=hidden&skn=k",
        "smtp login with password=hidden failed",
        "https://user:hidden@collector:4318/v1",
    ],
)
def test_what_looks_like_a_secret_is_taken_out(text: str) -> None:
    assert "hidden" not in redact(text)
    assert "***" in redact(text)


def test_what_is_no_secret_stays() -> None:
    text = "https://x.blob.core.windows.net/c/b?sv=2024-08-04&se=2099 sb://house:5671 design=blue, a basic check"
    assert redact(text) == text


def test_of_a_connection_string_only_the_key_is_taken_out() -> None:
    note_secret(BUS)
    assert redact("the key a2V5LW9mLXRlc3Q9PQ== is wrong") == "the key *** is wrong"
    assert redact("house.servicebus.windows.net does not answer") == "house.servicebus.windows.net does not answer"


def test_a_noted_secret_is_found_in_addresses_in_json_and_in_reprs() -> None:
    secret = 'pass "word"\\ ü 1'
    note_secret(secret)
    for shown in (secret, repr(secret), json.dumps(secret), "x%20=pass%20%22word%22%5C%20%C3%BC%201"):
        assert "word" not in redact(shown)


def test_a_short_secret_does_not_tear_words_apart() -> None:
    note_secret("at")
    assert redact("what") == "what"


def test_a_log_line_stays_json_and_keeps_no_secret_in_its_extras() -> None:
    note_secret('quoted"secret')
    record = logging.makeLogRecord(
        {"msg": "m", "reply": {"text": ['a quoted"secret'], "error": ValueError('quoted"secret')}}
    )
    line = JsonFormatter("ingest").format(record)
    assert "secret" not in line
    assert json.loads(line)["reply"]["text"] == ["a ***"]


def test_a_span_is_exported_without_secrets_in_any_of_its_texts() -> None:
    note_secret("span-canary")
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Redacting(kept)))
    tracer = provider.get_tracer("test")
    with (
        pytest.raises(ValueError),
        tracer.start_as_current_span("GET span-canary", attributes={"a": ["span-canary"]}) as span,
    ):
        span.add_event("span-canary", {"b": "span-canary"})
        raise ValueError("span-canary")
    (found,) = kept.get_finished_spans()
    assert "span-canary" not in found.to_json()
    assert (found.name, found.parent, found.status.is_ok) == ("GET ***", None, False)
    assert [event.name for event in found.events] == ["***", "exception"]
