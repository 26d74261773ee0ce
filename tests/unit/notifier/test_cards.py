"""Cards: what is in them, that nothing from outside means anything in them, and that they stay small."""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from fusebus.blobs import layout
from fusebus.contracts import display
from fusebus.contracts.messages import BudgetCrossed
from fusebus.notifier.alerts import budget_alert
from fusebus.notifier.cards import MOST_BYTES, MOST_UTF16_BYTES, alert_card, inert, summary_card
from fusebus.notifier.summary import Failure, Picture, Rejection, Summary

ADDRESS = "https://fusebus.example.com/results/"


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in it."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts_of(inner)


def lines(card: bytes) -> list[str]:
    content = json.loads(card)["attachments"][0]["content"]
    return ["".join(run["text"] for run in block["inlines"]) for block in content["body"]]


@pytest.fixture
def summary(world, make) -> Summary:
    return Summary(
        run_id=make.run_id,
        supplier="northgrid",
        opened_at=world.now,
        closed_at=world.now,
        pictures=tuple(
            Picture(
                upload_id=f"u{number}",
                name=f"{number}.jpg",
                analysis_id="a",
                final="analysed",
                detections=2,
                best_score=0.9,
                model="m@1",
                annotated="annotated/a.jpg",
                result="json/a.json",
            )
            for number in range(3)
        ),
        rejected=(Rejection(upload_id="r", name="van/7.jpg", reason="damaged", explanation="Please send it again."),),
        duplicates=(),
        failed=(Failure(upload_id="f", name="van/8.jpg", reason="gave_up", description="The model failed."),),
    )


def test_a_runs_card_says_what_its_mail_says_and_leads_to_the_report(summary):
    card = summary_card(summary, ADDRESS, without_receipt=True)
    message = json.loads(card)
    assert message["type"] == "message"
    [attachment] = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    content = attachment["content"]
    assert (content["type"], content["version"]) == ("AdaptiveCard", "1.4")
    [action] = content["actions"]
    assert (action["type"], action["url"]) == ("Action.OpenUrl", ADDRESS + layout.report_name(summary.run_id))
    assert lines(card) == [
        "5 photos from northgrid",
        "6 fuse neutrals in 3 photos.",
        "1 photo needs another upload. 1 photo failed on our side. Its supplier got no receipt, for storage did not "
        "take it: the notifier's log says why.",
        "3 analysed · 1 rejected · 1 failed",
        "van/8.jpg",
        "Gave up after several tries. The model failed.",
        "van/7.jpg",
        "Damaged. Please send it again.",
        "Supplier: northgrid",
        "Delivered: 21 November 2026, 11:04 UTC",
        f"Run: {summary.run_id}",
    ]


def test_without_an_address_of_the_results_a_card_has_no_link_and_names_the_place(summary):
    card = summary_card(summary, "")
    assert "actions" not in json.loads(card)["attachments"][0]["content"]
    assert f"Report: results/{layout.report_name(summary.run_id)}" in lines(card)


@pytest.mark.parametrize("name", ["n" * 1024, '"' * 1024, "\\" * 1024, "电" * 1024, "👍" * 1024, "{" * 1024])
def test_a_card_stays_small_however_many_and_long_names_and_reasons_are(summary, name):
    failed = tuple(
        Failure(upload_id=f"f{number}", name=f"{number}{name}", reason=name, description=name * 9)
        for number in range(40)
    )
    summary = msgspec.structs.replace(summary, failed=failed, supplier=name, reprocess_of=name, model=name)
    card = summary_card(summary, ADDRESS)
    assert len(card) <= MOST_BYTES and len(card.decode().encode("utf-16-le")) <= MOST_UTF16_BYTES
    said = lines(card)
    names = {inert(display.name(one.name)) for one in failed}
    shown = sum(line in names for line in said)
    assert 1 <= shown <= 12
    assert f"{41 - shown} more files to look at in the report." in said
    assert json.loads(card)["attachments"][0]["content"]["actions"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{DATE(2026-11-22T06:00:00Z, SHORT)}}", "{ {DATE(2026-11-22T06:00:00Z, SHORT)}}"),
        ("{{{{", "{ { { {"),
        ("<at>all</at>", "< at>all< /at>"),
        ("< AT id='1'>", "<  AT id='1'>"),
        ("<attic>.jpg", "<attic>.jpg"),
        ("**a** [b](http://c)", "**a** [b](http://c)"),
    ],
)
def test_what_a_client_might_act_on_in_plain_text_is_broken_up(text, shown):
    assert inert(text) == shown


def test_a_card_is_made_of_text_runs_that_take_no_markdown(summary):
    """TextBlocks and FactSets read Markdown, `msteams.entities` makes mentions: there are none."""
    hostile = "[a](http://evil.example) **b** <at>all</at> {{TIME(2026-11-22T06:00:00Z)}}.jpg"
    bad = Rejection(upload_id="r", name=hostile, reason=hostile, explanation=hostile)
    card = summary_card(msgspec.structs.replace(summary, rejected=(bad,), supplier=hostile), ADDRESS)
    objects = list(parts_of(json.loads(card)))
    assert {found["type"] for found in objects if "type" in found} == {
        "message",
        "AdaptiveCard",
        "RichTextBlock",
        "TextRun",
        "Action.OpenUrl",
    }
    keys = {key for found in objects for key in found}
    assert not keys & {"selectAction", "entities", "speak", "backgroundImage", "refresh", "authentication"}
    assert [found["url"] for found in objects if "url" in found] == [ADDRESS + layout.report_name(summary.run_id)]
    assert all("evil" not in str(found.get(key, "")) for found in objects for key in ("fallbackText", "title"))


def test_an_alerts_card_says_what_its_mail_says(world):
    crossed = BudgetCrossed(
        month="2026-11",
        share=0.8,
        spent=80.5,
        budget=100,
        currency="EUR",
        crossed_at=world.now,
        consequence="No **new** nodes.",
    )
    assert lines(alert_card(budget_alert(crossed))) == [
        "Budget 2026-11: 80% spent",
        "The metered cost of 2026-11 crossed 80% of its budget.",
        "Spent: 80.50 EUR (metered by us, an estimate until the bill)",
        "Budget: 100.00 EUR",
        "When: 21 November 2026, 11:04 UTC",
        "No **new** nodes.",
    ]


def test_the_longest_alert_is_small(world):
    many = "👍" * 9_999
    longest = BudgetCrossed(
        month="2026-11", share=1.0, spent=1, budget=1, currency=many, crossed_at=world.now, consequence=many
    )
    card = alert_card(budget_alert(longest))
    assert len(card) <= MOST_BYTES and len(card.decode().encode("utf-16-le")) <= MOST_UTF16_BYTES
