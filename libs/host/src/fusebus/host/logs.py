"""JSON log lines on standard error, with the ids of the work at hand and without secrets."""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec
from opentelemetry import trace

from fusebus.host.redaction import redact, redacted

_fields: ContextVar[dict[str, str] | None] = ContextVar("fusebus_log_fields", default=None)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOISY = ("azure", "uamqp", "aiohttp.access", "pyvips")


class log_fields:
    """Add these ids (upload, run, image …) to every log line written inside: `with log_fields(run=run_id): ...`.

    Named and used as contextlib's functions are; as a class it takes a third as long.
    """

    __slots__ = ("_added", "_token")

    def __init__(self, **fields: str | None) -> None:
        self._added = fields

    def __enter__(self) -> None:
        known = {key: value for key, value in self._added.items() if value}
        self._token = _fields.set({**outer, **known} if (outer := _fields.get()) else known)

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: a line break inside a value can't forge a second record."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text, secrets redacted."""
        own: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (here := trace.get_current_span().get_span_context()).is_valid:
            own["trace_id"], own["span_id"] = f"{here.trace_id:032x}", f"{here.span_id:016x}"
        extra = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        line = {**own, **(_fields.get() or {}), **extra, **own}  # own keys first, and no id takes their place
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        safe = redacted(line)
        try:
            return msgspec.json.encode(safe, enc_hook=_text).decode()
        except UnicodeEncodeError:  # half a character, as a file's name may hold
            return json.dumps(safe, default=_text)


def _text(value: object) -> str:
    return redact(str(value))


def set_up_logs(service: str, level: str = "INFO") -> None:
    """Send every logger of this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # What would else be printed as it is, past the formatter and its redaction.
    logging.captureWarnings(True)
    log = logging.getLogger(__name__)
    sys.excepthook = lambda kind, error, where: log.critical("ended by an exception", exc_info=(kind, error, where))
    threading.excepthook = lambda of: log.critical("a thread ended by an exception", exc_info=of.exc_value)
