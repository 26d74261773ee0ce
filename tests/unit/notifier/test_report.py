import hashlib
import re
from base64 import b64decode, b64encode
from html.parser import HTMLParser

import msgspec
import pytest

from fusebus.ledger import ImageFacts
from fusebus.notifier.report import period, reason, render_report, title, verdict
from fusebus.notifier.summary import summarise, summary_json

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "a\r\nBcc: everybody@example.com\r\n\r\n.jpg",
    "photo\u202egpj.exe",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "javascript:alert(1)",
    "../../../etc/passwd",
    "x" * 1_024,
    "\x00\x1b]0;title\x07.jpg",
]


class Page(HTMLParser):
    """What a browser would see: tags, links, text."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]


@pytest.fixture
def finished(world, make):
    """A summary of a finished run with these blob names, the finals taken in turn."""

    async def finish(names: list[str]):
        uploads = [f"u{number}" for number in range(len(names))]
        world.enter(*uploads)
        messages = [make.analysed, make.rejected, lambda upload: make.duplicate(upload, of="u0"), make.analysed]
        for number, (upload, name) in enumerate(zip(uploads, names, strict=True)):
            await world.take(messages[number % len(messages)](upload))
            row = world.ledger.rows[make.run_id, upload]
            world.ledger.rows[make.run_id, upload] = msgspec.structs.replace(row, blob_name=name)
        return summarise(world.run, list(world.ledger.rows.values()), {})

    return finish


async def test_hostile_names_are_shown_as_text_and_as_nothing_else(finished):
    plain = Page(render_report(await finished([f"{number}.jpg" for number in range(len(HOSTILE))]), {}))
    hostile = Page(render_report(await finished(HOSTILE), {}))
    assert [tag for tag, _ in hostile.tags if tag in ("script", "iframe", "form", "object")] == []
    assert {name for _, attributes in hostile.tags for name in attributes} <= {
        name for _, attributes in plain.tags for name in attributes
    }
    assert sorted({tag for tag, _ in hostile.tags} - {"span"}) == sorted({tag for tag, _ in plain.tags} - {"span"})
    assert "<script>alert(1)</" in hostile.text
    assert "{{ 7 * 7 }}" in hostile.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\x07]", hostile.text)
    assert "x" * 80 not in hostile.text


async def test_links_lead_only_to_what_we_stored_or_within_the_page(finished, make):
    page = Page(render_report(await finished(HOSTILE), {}))
    for href in page.attributes("href"):
        assert re.fullmatch(rf"#[a-z]+|\.\./\.\./(annotated|json)/2026-11-21/{make.run_id}/[0-9a-f]+\.(jpg|json)", href)


async def test_the_page_forbids_everything_but_its_own_style_and_pictures(finished):
    page = render_report(await finished(["a.jpg"]), {"u0": b"\xff\xd8jpeg"})
    parsed = Page(page)
    policy = next(attributes["content"] for tag, attributes in parsed.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = re.search(rb"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert f"'sha256-{b64encode(hashlib.sha256(style).digest()).decode()}'" in policy
    assert parsed.attributes("style") == []
    [source] = parsed.attributes("src")
    assert b64decode(source.removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8jpeg"


async def test_counts_add_up(finished):
    summary = await finished([f"{number}.jpg" for number in range(23)])
    counts = summary.counts
    assert counts.uploads == 23
    assert counts.analysed + counts.converted + counts.rejected + counts.duplicate + counts.failed == 23
    assert verdict(summary) == "11 analysed, 6 rejected, 6 duplicates"
    assert msgspec.json.decode(summary_json(summary))["counts"]["uploads"] == 23
    assert title(summary) == "23 photos from northgrid"


async def test_a_duplicate_names_what_it_repeats(finished):
    page = Page(render_report(await finished(["first.jpg", "bad.jpg", "copy.jpg"]), {}))
    assert "Same as first.jpg" in page.text


async def test_photos_are_in_the_order_of_their_numbers(finished):
    summary = await finished(["img10.jpg", "x.jpg", "y.jpg", "img2.jpg"])
    assert [picture.name for picture in summary.pictures] == ["img2.jpg", "img10.jpg"]


async def test_summary_json_is_the_same_bytes_each_time(finished):
    summary = await finished(HOSTILE)
    assert summary_json(summary) == summary_json(summary)


@pytest.mark.parametrize(
    ("minutes", "text"),
    [
        (0, "21 November 2026, 11:04 UTC"),
        (8, "21 November 2026, 11:04 to 11:12 UTC"),
        (24 * 60, "21 November 2026, 11:04 to 22 November 2026, 11:04 UTC"),
    ],
)
def test_a_period_names_its_day_once(world, minutes, text):
    start = world.now
    world.pass_time(minutes * 60)
    assert period(start, world.now) == text


def test_an_unknown_reason_is_told_in_words():
    assert reason("worker_ran_out_of_memory") == "Worker ran out of memory"
    assert reason("not_an_image") == "Not an image"


async def test_what_may_have_kept_a_photo_from_being_judged_well_is_said_beside_it(finished, world, make):
    await finished(["a.jpg"])
    row = world.ledger.rows[make.run_id, "u0"]
    facts = ImageFacts(image_id="i", sha256="0" * 64, format="jpeg", width=1, height=1, quality="blurred,too_small")
    summary = summarise(world.run, [msgspec.structs.replace(row, image=facts)], {})
    assert summary.pictures[0].quality == ("blurred", "too_small")
    text = Page(render_report(summary, {})).text
    assert "Blurred" in text
    assert "Too small" in text
