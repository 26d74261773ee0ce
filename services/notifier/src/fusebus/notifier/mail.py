"""Writes the mails: a run's summary as text, HTML and small pictures, the budget's alert, and what is held."""

from __future__ import annotations

import math
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
from fusebus.contracts.messages import BudgetCrossed, UploadsHeld, WorkLate
from fusebus.notifier.report import environment, findings, next_steps, parts, period, reason, title, verdict
from fusebus.notifier.summary import Summary, presentable

SUBJECT_LENGTH = 120  # characters
LONGEST_REASON = 1_000  # characters
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


class _Problem(Struct, frozen=True):
    key: str
    name: str
    title: str
    text: str


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
    problems = _problems(run)
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


def budget_mail(message: BudgetCrossed, envelope: Envelope, now: datetime) -> EmailMessage:
    """The alert that a month's metered cost crossed a share of its budget, or that its forecast is above it."""
    share, month, currency = (
        f"{message.share:.0%}",
        display.one_line(message.month, 20),
        display.one_line(message.currency, 8),
    )
    subject, first = (f"{share} spent", f"The metered cost of {month} crossed {share} of its budget.")
    if message.foretold:
        subject, first = f"{share} foretold", f"The cost of {month} is expected to become {share} of its budget."
    elif message.share >= 1 and message.spent < message.budget:  # the dispatcher keeps money back for what runs
        subject = f"{math.floor(100 * message.spent / message.budget)}% spent, the rest kept"
        first = f"The metered cost of {month}, with what is needed to end what runs, has reached its budget."
    mail = _mail(f"Budget {month}: {subject}", budget_key(message), envelope, now)
    lines = [f"  Spent     {message.spent:,.2f} {currency} (metered by us, an estimate until the bill)"]
    if message.forecast is not None:
        lines.append(f"  Forecast  {message.forecast:,.2f} {currency} for the whole month, if it goes on as before")
    lines += [
        f"  Budget    {message.budget:,.2f} {currency}",
        f"  When      {period(message.crossed_at, message.crossed_at)}",
    ]
    mail.set_content(f"{first}\n\n" + "\n".join(lines) + "\n" + _what_follows(message), cte="quoted-printable")
    return mail


def late_mail(message: WorkLate, envelope: Envelope, now: datetime) -> EmailMessage:
    """The alert that work of one job kind will not be done in time, and why."""
    kind, count = message.job_kind.value, f"{message.images:,} image{'s' * (message.images != 1)}"
    span = "for good, nothing may be bought"
    if message.late_seconds is not None:
        span = f"by up to {max(1, round(message.late_seconds / 60)):,} min"
    mail = _mail(f"{count} ({kind}) will be late", late_key(message), envelope, now)
    lines = [
        f"{count} of job kind {kind} can't be done by the deadline with all that may be bought.",
        "",
        f"  Late   {span}",
        f"  Seen   {period(message.since, message.since)}",
        f"  Why    {display.one_line(message.because, LONGEST_REASON)}",
        "",
        "Nothing is lost: the work goes on with what there is. `fusebus why` tells the numbers of now; what helps is",
        "more nodes (max_nodes, quota, another VM size), a raised budget, or later deadlines. This alert is not",
        "repeated while work stays late.",
    ]
    mail.set_content("\n".join(lines) + "\n", cte="quoted-printable")
    return mail


def late_key(message: WorkLate) -> str:
    """What this mail is about: once for each time that a job kind's work turns late."""
    return f"late-{message.job_kind.value}-{message.since:%Y%m%dT%H%M%S}"


def held_mail(message: UploadsHeld, envelope: Envelope, now: datetime) -> EmailMessage:
    """Tells a supplier that its uploads are kept but not processed, why, and what happens next."""
    mail = _mail(f"Uploads of {message.supplier} are held", held_key(message), envelope, now)
    limits = [
        f"{limit:,} {what}"
        for limit, what in ((message.images_per_day, "uploads"), (message.bytes_per_day, "bytes"))
        if limit is not None
    ]
    day = display.one_line(message.day, 20)
    until = f"after {message.until:%Y-%m-%d %H:%M} UTC" if message.until else "once that changes"
    why = {
        "quota": f"More arrived on {day} (UTC) than is agreed for a day ({', '.join(limits)}).",
        "suspended": "Uploads of this supplier are suspended for now.",
        "removed": "This supplier delivers no more.",
    }.get(message.because, "They are held for now.")
    next_step = (
        "Nothing more of them will be processed. If that is an error, please speak to who gave you the link."
        if message.because == "removed"
        else f"Nothing is lost and nothing has to be sent again: what is held is processed by itself {until}."
    )
    mail.set_content(
        f"Uploads of {message.supplier} have arrived but are not processed yet.\n\n{why}\n{next_step}\n",
        cte="quoted-printable",
    )
    return mail


def held_key(message: UploadsHeld) -> str:
    """What this mail is about: once for each supplier, day and reason."""
    return f"held-{message.supplier}-{display.one_line(message.day, 20)}-{display.one_line(message.because, 20)}"


def _what_follows(message: BudgetCrossed) -> str:
    if message.consequence:
        return f"\n{display.one_line(message.consequence, 1_000)}\n"
    if message.share >= 1 and not message.foretold and not message.mark:  # of a release without consequences
        return "\nWorkers start no more until the budget is raised or the month ends.\n"
    return ""


def run_key(run_id: str) -> str:
    """What a run's mail is about."""
    return f"run-{run_id}"


def budget_key(message: BudgetCrossed) -> str:
    """What a budget's alert is about; also its marker's key in the ledger."""
    return f"budget-{message.month}-{message.mark or message.share}"


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


def _problems(run: Summary) -> list[_Problem]:
    """What went wrong, our own failures first."""
    return [
        *(_Problem("failed", found.name, reason(found.reason), found.description) for found in run.failed),
        *(
            _Problem("rejected", found.name, "List of files refused", found.explanation)
            for found in run.manifests
            if found.reason
        ),
        *(_Problem("rejected", found.name, reason(found.reason), found.explanation) for found in run.rejected),
        *(
            _Problem("duplicate", found.name, "Duplicate", f"Same photo as {found.of_name or 'an earlier upload'}.")
            for found in run.duplicates
        ),
    ]


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
