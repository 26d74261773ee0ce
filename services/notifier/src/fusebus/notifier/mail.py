"""Writes the mails: a run's summary as text, HTML and small pictures, and alerts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from msgspec import Struct

from fusebus.blobs import layout
from fusebus.contracts import display
from fusebus.contracts.identity import digest
from fusebus.notifier.alerts import Alert
from fusebus.notifier.problems import problems_of
from fusebus.notifier.report import environment, findings, next_steps, parts, period, title, verdict
from fusebus.notifier.summary import Summary, presentable

SUBJECT_LENGTH = 120  # characters
MOST_PROBLEMS = 12  # told one by one; the report has all
MOST_MISSING = 30  # missing files that are named; the report has all
MOST_PICTURE_BYTES = 600_000  # of all pictures together; well under what relays take, 1.35 times that in base64

_TONES = {
    "analysed": "#1f8a70",
    "converted": "#6b7fa3",
    "rejected": "#b7791f",
    "duplicate": "#9a9fa5",
    "failed": "#c0453b",
}
_SAFE_ID = re.compile(r"[^A-Za-z0-9.-]+")


class Envelope(Struct, frozen=True, kw_only=True):
    """Who gets mail from whom, and where links lead."""

    sender: str
    recipients: Sequence[str]
    report_address: str = ""
    """Web address of the results' root, ending in a slash; empty: no links."""


class _Shown(Struct, frozen=True):
    cid: str
    name: str
    data: bytes


def summary_mail(
    summary: Summary,
    thumbnails: Mapping[str, bytes],
    envelope: Envelope,
    now: datetime,
    *,
    without_receipt: bool = False,
) -> EmailMessage:
    """A run's mail. `thumbnails`: JPEG bytes by upload id, in the order in which they shall appear."""
    run = presentable(summary)
    domain = _domain(envelope)
    pictures = _pictures(run, thumbnails, domain)
    problems = problems_of(run)
    place = layout.report_name(summary.run_id)
    values = {
        "run": run,
        "counts": run.counts,
        "parts": parts(run),
        "title": title(run),
        "findings": findings(run),
        "next_steps": next_steps(run, without_receipt),
        "period": period(run.opened_at, run.closed_at),
        "problems": problems[:MOST_PROBLEMS],
        "more": max(0, len(problems) - MOST_PROBLEMS),
        "missing": run.missing[:MOST_MISSING],
        "more_missing": max(0, len(run.missing) - MOST_MISSING),
        "pictures": pictures,
        "tones": _TONES,
        "report": envelope.report_address + place if envelope.report_address else f"{layout.RESULTS}/{place}",
        "report_link": envelope.report_address + place if envelope.report_address else "",
    }
    mail = _mail(f"{title(run)}: {verdict(run)}", run_key(summary.run_id), envelope, now)
    mail.set_content(environment().get_template("mail.txt").render(values), cte="quoted-printable")
    mail.add_alternative(environment().get_template("mail.html").render(values), subtype="html", cte="quoted-printable")
    _attach(mail, pictures)
    return mail


def alert_mail(alert: Alert, envelope: Envelope, now: datetime) -> EmailMessage:
    """An alert's mail: plain text."""
    mail = _mail(alert.subject, alert.key, envelope, now)
    width = max((len(label) for label, _ in alert.facts), default=0)
    facts = "\n".join(f"  {label:<{width}}  {value}" for label, value in alert.facts)
    paragraphs = [part for part in (alert.text, facts, "\n".join(alert.follows)) if part]
    mail.set_content("\n\n".join(paragraphs) + "\n", cte="quoted-printable")
    return mail


def run_key(run_id: str) -> str:
    """What a run's mail is about."""
    return f"run-{run_id}"


def message_id(key: str, envelope: Envelope) -> str:
    """Derives from the work, so that a repeat is recognised: `<key.digest@sender's domain>`."""
    return f"<{_SAFE_ID.sub('-', key)[:90]}.{digest('mail', key)[:8]}@{_domain(envelope)}>"


def _mail(subject: str, key: str, envelope: Envelope, now: datetime) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = display.one_line(subject, SUBJECT_LENGTH)  # a line break here would raise, for ever
    mail["From"] = Address("Fusebus", addr_spec=envelope.sender)
    mail["To"] = [Address(addr_spec=recipient) for recipient in envelope.recipients]
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = message_id(key, envelope)
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    return mail


def _domain(envelope: Envelope) -> str:
    return envelope.sender.rpartition("@")[2]


def _pictures(run: Summary, thumbnails: Mapping[str, bytes], domain: str) -> list[_Shown]:
    names = {picture.upload_id: picture.name for picture in run.pictures}
    found: list[_Shown] = []
    room = MOST_PICTURE_BYTES
    for upload, data in thumbnails.items():
        if upload in names and len(data) <= room:
            room -= len(data)
            found.append(_Shown(f"picture-{len(found) + 1}@{domain}", names[upload], data))
    return found


def _attach(mail: EmailMessage, pictures: Sequence[_Shown]) -> None:
    """Put the pictures beside the HTML part, under names of our own."""
    html = mail.get_body(("html",))
    assert isinstance(html, EmailMessage)
    for number, picture in enumerate(pictures, 1):
        html.add_related(
            picture.data,
            "image",
            "jpeg",
            cid=f"<{picture.cid}>",
            filename=f"picture-{number}.jpg",
            disposition="inline",
        )
