"""Writes the cards for Teams: what mails say, as an Adaptive Card in which no text from outside means anything.

All text stands in TextRuns, which know no Markdown; a mention needs an entity, and there are none; links are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from fusebus.blobs import layout
from fusebus.contracts import display
from fusebus.notifier.alerts import Alert
from fusebus.notifier.problems import Problem, problems_of
from fusebus.notifier.report import counted, findings, next_steps, parts, period, title, whereabouts
from fusebus.notifier.summary import Summary, presentable

VERSION = "1.4"
"""Of Adaptive Cards: nothing here is newer than 1.2, which clients on phones know too."""
MOST_BYTES = 20_000
"""Of the posted JSON: Teams names 28 KB as its limit, and is known to answer 413 from 21 KB on."""
MOST_UTF16_BYTES = 28_000  # in which Teams is said to count
MOST_PROBLEMS = 12  # told one by one; the report has all
LONGEST_TEXT = 1_000  # characters of one text of an alert
LONGEST_LINE = 300  # characters of any other
LONGEST_ADDRESS = 2_000  # characters; a longer one is no link

_COLOURS = {"analysed": "Good", "rejected": "Warning", "failed": "Attention", "missing": "Warning"}
_FUNCTION = re.compile(r"\{(?=\{)")
_MENTION = re.compile(r"<(?=\s*/?\s*at\b)", re.IGNORECASE)

Element = dict[str, Any]


def run_card_key(run_id: str) -> str:
    """What a run's card is about; also its marker's key in the ledger, beside that of the run's mail."""
    return f"card-run-{run_id}"


def alert_card_key(alert: Alert) -> str:
    """The same of an alert's card."""
    return f"card-{alert.key}"


def summary_card(summary: Summary, report_address: str, *, without_receipt: bool = False) -> bytes:
    """A run's card as it is posted: JSON of at most MOST_BYTES, however many and long the names are.

    `report_address`: web address of the results, ending in a slash; empty: no link.
    """
    run = presentable(summary)
    problems = [
        *problems_of(run),
        *(Problem("missing", found.name, "Listed, not here", f"It {whereabouts(found)}.") for found in run.missing),
    ]
    place = layout.report_name(summary.run_id)
    link = report_address + place if report_address and len(report_address) <= LONGEST_ADDRESS else ""
    report = () if link else (_line(f"Report: {layout.RESULTS}/{place}", isSubtle=True),)
    head = (
        _line(title(run), size="Large", weight="Bolder"),
        *([_line(findings(run), weight="Bolder")] if findings(run) else []),
        _line(next_steps(run, without_receipt)),
        _tally(run),
    )
    facts = [("Supplier", run.supplier), ("Delivered", period(run.opened_at, run.closed_at)), ("Run", run.run_id)]
    if run.reprocess_of:
        facts += [("Again", run.reprocess_of), ("Model", run.model)]
    card = b""
    for shown in range(min(len(problems), MOST_PROBLEMS), -1, -1):
        body = (*head, *_told(problems, shown), *report, *_facts(facts))
        card = _message("The summary of a delivery.", body, link)
        if _fits(card):
            break
    return card


def alert_card(alert: Alert) -> bytes:
    """An alert's card as it is posted."""
    body = (
        _line(alert.subject, size="Large", weight="Bolder"),
        _line(alert.text, LONGEST_TEXT),
        *_facts(alert.facts, LONGEST_TEXT),
        *(_line(sentence, LONGEST_TEXT) for sentence in alert.follows),
    )
    return _message("An alert.", body, "")


def inert(text: str) -> str:
    """The text with a space inside of what a client might act on even in a TextRun: {{DATE(…)}}, <at>…</at>."""
    return _MENTION.sub("< ", _FUNCTION.sub("{ ", text))


def _told(problems: Sequence[Problem], shown: int) -> list[Element]:
    """The first `shown` of them, each a name of its own paragraph, and how many more there are."""
    found: list[Element] = []
    for problem in problems[:shown]:
        colour = {"color": _COLOURS[problem.key]} if problem.key in _COLOURS else {}
        found.append(_block(_run(problem.name, LONGEST_LINE, weight="Bolder", **colour)))
        found.append(_block(_run(f"{problem.title}. {problem.text}", LONGEST_LINE), spacing="None"))
    if left := len(problems) - shown:
        found.append(
            _line(f"{counted(left, 'more file' if shown else 'file')} to look at in the report.", isSubtle=True)
        )
    return found


def _tally(run: Summary) -> Element:
    """`18 analysed · 2 rejected`, in the colours of the finals."""
    inlines: list[Element] = []
    for part in parts(run):
        if part.count or part.always:
            inlines += [{"type": "TextRun", "text": " · ", "isSubtle": True}] if inlines else []
            colour = {"color": _COLOURS[part.key]} if part.count and part.key in _COLOURS else {}
            inlines.append(_run(f"{part.count:,} {part.label.lower()}", LONGEST_LINE, **colour))
    return _block(*inlines)


def _facts(facts: Sequence[tuple[str, str]], length: int = LONGEST_LINE) -> list[Element]:
    """Not a FactSet, whose values are Markdown."""
    return [
        _block(
            {"type": "TextRun", "text": f"{label}: ", "isSubtle": True},
            _run(value, length),
            spacing="Small" if number else "Medium",
        )
        for number, (label, value) in enumerate(facts)
    ]


def _line(text: str, length: int = LONGEST_LINE, **style: Any) -> Element:
    return _block(_run(text, length, **style))


def _block(*inlines: Element, **style: Any) -> Element:
    return {"type": "RichTextBlock", "inlines": list(inlines), **style}


def _run(text: str, length: int, **style: Any) -> Element:
    return {"type": "TextRun", "text": inert(display.one_line(text, length)) or "-", **style}


def _message(fallback: str, body: Sequence[Element], link: str) -> bytes:
    """What a workflow takes. `fallback`: shown by clients that know no such card, as Markdown: never a name."""
    content: Element = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": VERSION,
        "lang": "en",
        "fallbackText": fallback,
        "msteams": {"width": "Full"},
        "body": list(body),
    }
    if link:
        content["actions"] = [{"type": "Action.OpenUrl", "title": "Open the report", "url": link}]
    card = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return msgspec.json.encode({"type": "message", "attachments": [card]})


def _fits(card: bytes) -> bool:
    return len(card) <= MOST_BYTES and len(card.decode().encode("utf-16-le")) <= MOST_UTF16_BYTES
