"""Takes every mail that it is sent, keeps the last ones in memory and shows them: a mailbox for rehearsals.

    catcher.py [--smtp-port 1025] [--http-port 8025]

GET /api/v1/messages lists them (newest first), /api/v1/message/ID/raw is one as it came, / shows all to people.
The two paths answer as Mailpit does, so that either may stand here.
"""

from __future__ import annotations

import argparse
import email.policy
import html
import itertools
import json
import re
import signal
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

MOST_MAILS = 1000
MOST_BYTES = 30_000_000  # of one mail
NO_SCRIPTS = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox"


@dataclass(frozen=True)
class Mail:
    """One mail as it came."""

    number: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    at: datetime

    @property
    def message(self) -> EmailMessage:
        """Parsed; a broken one is whatever the parser makes of it."""
        return cast("EmailMessage", email.message_from_bytes(self.content, policy=email.policy.default))

    def summary(self) -> dict[str, Any]:
        """As Mailpit's list shows it."""
        message = self.message
        return {
            "ID": self.number,
            "MessageID": str(message.get("Message-ID", "")).strip("<>"),
            "From": {"Name": "", "Address": self.sender},
            "To": [{"Name": "", "Address": address} for address in self.recipients],
            "Subject": str(message.get("Subject", "")),
            "Created": self.at.isoformat(),
            "Size": len(self.content),
        }

    def page(self) -> str:
        """Its HTML part with its pictures inside, or its text."""
        message = self.message
        part = message.get_body(("html", "plain"))
        text = "" if part is None else str(part.get_content())
        if part is None or part.get_content_type() == "text/plain":
            return f"<pre>{html.escape(text)}</pre>"
        for picture in message.walk():
            name = str(picture.get("Content-ID", "")).strip("<>")
            if name and picture.get_content_maintype() == "image":
                data = "".join(str(picture.get_payload()).split())
                text = text.replace(f"cid:{name}", f"data:{picture.get_content_type()};base64,{data}")
        return text


class Box:
    """The last mails, as the SMTP server's handler."""

    def __init__(self) -> None:
        self._mails: OrderedDict[str, Mail] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Keep it; the oldest makes room."""
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        with self._lock:
            number = str(next(self._numbers))
            recipients = tuple(str(address) for address in envelope.rcpt_tos)
            self._mails[number] = Mail(number, str(envelope.mail_from), recipients, content, datetime.now(UTC))
            while len(self._mails) > MOST_MAILS:
                self._mails.popitem(last=False)
        return "250 OK"

    def newest_first(self) -> list[Mail]:
        """All that are kept."""
        with self._lock:
            return list(reversed(self._mails.values()))

    def get(self, number: str) -> Mail | None:
        """One of them."""
        with self._lock:
            return self._mails.get(number)


def answer(box: Box, path: str) -> tuple[int, str, bytes]:
    """Status, content type and body for a GET."""
    if path == "/readyz":
        return 200, "text/plain", b"ok"
    if path.partition("?")[0] == "/api/v1/messages":
        mails = box.newest_first()
        found = {"total": len(mails), "count": len(mails), "messages": [mail.summary() for mail in mails]}
        return 200, "application/json", json.dumps(found).encode()
    if path == "/":
        return 200, "text/html; charset=utf-8", _list(box.newest_first()).encode()
    matched = re.fullmatch(r"/(?:api/v1/message/(\d+)/raw|view/(\d+)\.html)", path)
    mail = box.get(matched[1] or matched[2]) if matched else None
    if matched is None or mail is None:
        return 404, "text/plain", b"no such mail"
    if matched[1]:
        return 200, "message/rfc822", mail.content
    return 200, "text/html; charset=utf-8", mail.page().encode(errors="replace")


def _list(mails: list[Mail]) -> str:
    def row(mail: Mail) -> str:
        told: Mapping[str, Any] = mail.summary()
        cells = (f"{mail.at:%Y-%m-%d %H:%M:%S}", ", ".join(mail.recipients), told["Subject"])
        shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        links = f'<a href="/view/{mail.number}.html">read</a> <a href="/api/v1/message/{mail.number}/raw">raw</a>'
        return f"<tr>{shown}<td>{links}</td></tr>"

    style = "body{font:15px system-ui;margin:2em}td,th{padding:.3em 1em;text-align:left}"
    head = "<tr><th>at (UTC)</th><th>to</th><th>subject</th><th></th></tr>"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Mail</title><style>{style}</style>"
        f"<h1>Mail</h1><table>{head}{''.join(row(mail) for mail in mails)}</table></html>"
    )


def http_server(box: Box, port: int, host: str = "") -> ThreadingHTTPServer:
    """The web side, not serving yet."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the standard library's name
            status, kind, body = answer(box, self.path)
            self.send_response(status)
            for name, value in (
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Content-Security-Policy", NO_SCRIPTS),
                ("X-Content-Type-Options", "nosniff"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet: health checks come every few seconds."""

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description="Catches mail and shows it.")
    parser.add_argument("--smtp-port", type=int, default=1025)
    parser.add_argument("--http-port", type=int, default=8025)
    given = parser.parse_args()
    box = Box()
    smtp = Controller(box, hostname="0.0.0.0", port=given.smtp_port, data_size_limit=MOST_BYTES)
    smtp.start()
    web = http_server(box, given.http_port)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print(f"ready smtp {given.smtp_port} http {given.http_port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    smtp.stop()
    web.shutdown()


if __name__ == "__main__":
    main()
