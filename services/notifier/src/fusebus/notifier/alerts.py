"""What people are told beside runs: each alert as words, which mail and card put into their own form."""

from __future__ import annotations

import math
from datetime import datetime

from msgspec import Struct

from fusebus.contracts import display
from fusebus.contracts.identity import digest
from fusebus.contracts.messages import BudgetCrossed, ReleaseRun, UploadsHeld, WorkLate
from fusebus.notifier.report import counted, period

LONGEST_REASON = 1_000  # characters


class Alert(Struct, frozen=True, kw_only=True):
    """One alert. Each text is one line, fit to be shown, still to be escaped."""

    key: str
    """What it is about, also its marker's key in the ledger: told once for each."""
    since: datetime
    """When it became due."""
    subject: str
    text: str
    facts: tuple[tuple[str, str], ...] = ()
    """Label and value."""
    follows: tuple[str, ...] = ()
    """What happens next, sentence by sentence."""


def budget_alert(message: BudgetCrossed) -> Alert:
    """A month's metered cost crossed a share of its budget, or its forecast is above it."""
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
    facts = [("Spent", f"{message.spent:,.2f} {currency} (metered by us, an estimate until the bill)")]
    if message.forecast is not None:
        facts.append(("Forecast", f"{message.forecast:,.2f} {currency} for the whole month, if it goes on as before"))
    facts += [
        ("Budget", f"{message.budget:,.2f} {currency}"),
        ("When", period(message.crossed_at, message.crossed_at)),
    ]
    return Alert(
        key=f"budget-{message.month}-{message.mark or message.share}",
        since=message.crossed_at,
        subject=f"Budget {month}: {subject}",
        text=first,
        facts=tuple(facts),
        follows=_what_follows(message),
    )


def _what_follows(message: BudgetCrossed) -> tuple[str, ...]:
    if message.consequence:
        return (display.one_line(message.consequence, LONGEST_REASON),)
    if message.share >= 1 and not message.foretold and not message.mark:  # of a release without consequences
        return ("Workers start no more until the budget is raised or the month ends.",)
    return ()


def late_alert(message: WorkLate) -> Alert:
    """Work of one job kind will not be done in time, and why: once for each time that it turns late."""
    kind, count = message.job_kind.value, f"{message.images:,} image{'s' * (message.images != 1)}"
    span = "for good, nothing may be bought"
    if message.late_seconds is not None:
        span = f"by up to {max(1, round(message.late_seconds / 60)):,} min"
    return Alert(
        key=f"late-{kind}-{message.since:%Y%m%dT%H%M%S}",
        since=message.since,
        subject=f"{count} ({kind}) will be late",
        text=f"{count} of job kind {kind} can't be done by the deadline with all that may be bought.",
        facts=(
            ("Late", span),
            ("Seen", period(message.since, message.since)),
            ("Why", display.one_line(message.because, LONGEST_REASON)),
        ),
        follows=(
            "Nothing is lost: the work goes on with what there is. `fusebus why` tells the numbers of now; what helps "
            "is more nodes (max_nodes, quota, another VM size), a raised budget, or later deadlines. This alert is not "
            "repeated while work stays late.",
        ),
    )


def held_alert(message: UploadsHeld) -> Alert:
    """A supplier's uploads are kept but not processed, why, and what happens next: once for each day and reason."""
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
    return Alert(
        key=f"held-{message.supplier}-{day}-{display.one_line(message.because, 20)}",
        since=message.held_at,
        subject=f"Uploads of {message.supplier} are held",
        text=f"Uploads of {message.supplier} have arrived but are not processed yet.",
        follows=(why, next_step),
    )


def release_alert(message: ReleaseRun, photos: int, queue: str, dead: tuple[int, str, str], now: datetime) -> Alert:
    """The message that announces waiting photos was given up. `dead`: its dead letter's sequence, id and reason."""
    sequence, message_id, reason = dead
    run, supplier = display.one_line(message.run_id, 200), display.one_line(message.supplier, 100)
    opened = period(message.opens_at, message.opens_at)
    asked_by = display.one_line(message.requested_by, 200)
    return Alert(
        key=f"release-{digest('release', queue, message_id, str(sequence))[:24]}",
        since=now,
        subject=f"{counted(photos, 'photo')} from {supplier} still {'waits' if photos == 1 else 'wait'}",
        text=f"The message that lets the photos of run {run} go was given up; they wait until it is put back.",
        facts=(
            ("Run", run),
            ("Asked for" if asked_by else "Window", f"{opened}, by {asked_by}" if asked_by else opened),
            ("Photos", f"{photos:,}"),
            ("Reason", display.one_line(reason, LONGEST_REASON)),
            ("Queue", queue),
            ("Command", f"fusebus dead-letters --id {display.one_line(message_id, 200)} --put-back"),
        ),
        follows=(
            "Mend the cause first, or it is given up again. `fusebus run-now` announces nothing of a window that is "
            "over for more than five minutes.",
        ),
    )


def refused_alert(setting: str, card: str, reason: str, now: datetime) -> Alert:
    """Teams takes no card from us: once a day for each webhook, by mail only. `setting`: the variable that holds it."""
    return Alert(
        key=f"card-refused-{setting}-{now:%Y%m%d}",
        since=now,
        subject="Teams takes no cards from us",
        text=f"The webhook of {setting} did not take a card, which will not be sent again.",
        facts=(
            ("Card", display.one_line(card, 200)),
            ("Reason", display.one_line(reason, LONGEST_REASON)),
            ("When", period(now, now)),
        ),
        follows=(
            "Runs and mails go on without. Look whether the workflow still exists and is turned on, and give the "
            "setting its present address. This mail comes once a day; each such card is in the notifier's log.",
        ),
    )
