"""The run report: one static HTML page that needs no server, no script and no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from fusebus.notifier.listed import Missing
from fusebus.notifier.summary import Picture, Summary, presentable

UP_TO_RESULTS = "../../"
"""From `report/<run>/index.html` to the results container's root; every link starts with it."""

_TITLES = {
    "blob_vanished": "Gone before we could read it",
    "blob_changed": "Changed while we read it",
    "blob_type": "Wrong kind of upload",
    "empty": "Empty file",
    "too_large": "Too large",
    "not_an_image": "Not an image",
    "too_many_pixels": "Too many pixels",
    "damaged": "Damaged",
    "gave_up": "Gave up after several tries",
}


class Part(Struct, frozen=True):
    """One share of the run in the bar and the tally. `start`: uploads before it."""

    key: str
    label: str
    count: int
    start: int
    always: bool


def render_report(summary: Summary, thumbnails: Mapping[str, bytes]) -> bytes:
    """The page in UTF-8. `thumbnails`: JPEG bytes by upload id; a picture without one is linked all the same."""
    run = presentable(summary)
    sources = {
        upload: "data:image/jpeg;base64," + base64.b64encode(data).decode() for upload, data in thumbnails.items()
    }
    style = _stylesheet()

    def framed(picture: Picture) -> Markup:
        if (source := sources.get(picture.upload_id)) is None:
            return Markup('<span class="frame bare">Open the picture</span>')
        return Markup('<span class="frame"><img src="{}" alt="{}" loading="lazy"></span>').format(source, _alt(picture))

    page = (
        environment()
        .get_template("report.html")
        .render(
            run=run,
            counts=run.counts,
            parts=parts(run),
            title=title(run),
            findings=findings(run),
            next_steps=next_steps(run),
            period=period(run.opened_at, run.closed_at),
            models=", ".join(sorted({picture.model for picture in run.analysed})),
            thumbnails=sources,
            framed=framed,
            style=Markup(style),  # noqa: S704 -- our own file
            style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )
    return page.encode()


@cache
def environment() -> Environment:
    """The templates of report and mail: autoescaped, and an unknown name in one is an error."""
    found = Environment(
        loader=PackageLoader("fusebus.notifier"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"counted": counted, "reason": reason, "link": link, "parted": parted, "whereabouts": whereabouts}
    return found


@cache
def _stylesheet() -> str:
    return files("fusebus.notifier").joinpath("templates/report.css").read_text(encoding="utf-8")


def title(run: Summary) -> str:
    """The run in a few words."""
    again = f", analysed again with {run.model}" if run.reprocess_of else ""
    return f"{counted(run.counts.uploads, 'photo')} from {run.supplier}{again}"


def verdict(run: Summary) -> str:
    """What became of the photos in one line, for a subject: `20 analysed, 3 rejected, 1 duplicate`."""
    counts = run.counts
    missing = [f"{len(run.lost)} missing"] if run.lost else []
    if counts.uploads and counts.analysed == counts.uploads:
        return ", ".join(["all analysed", *missing])
    found = [f"{part.count} {part.label.lower()}" for part in parts(run) if part.count]
    return ", ".join([*(found or ["nothing was uploaded"]), *missing])


def findings(run: Summary) -> str:
    """What was found, in bold: `39 fuse neutrals in 18 of 20 photos.`; empty where nothing was analysed."""
    counts = run.counts
    if not counts.analysed:
        return ""
    showing = sum(picture.detections > 0 for picture in run.analysed)
    where = f"{showing} of {counts.analysed}" if showing < counts.analysed else f"{counts.analysed}"
    photos = "photo" if counts.analysed == 1 else "photos"
    return f"{counted(counts.neutrals, 'fuse neutral')} in {where} {photos}."


def next_steps(run: Summary, without_receipt: bool = False) -> str:
    """What is left to do, and for whom."""
    counts = run.counts
    sentences = []
    if counts.rejected:
        sentences.append(
            f"{counted(counts.rejected, 'photo')} {'needs' if counts.rejected == 1 else 'need'} another upload."
        )
    if run.lost:
        one = len(run.lost) == 1
        sentences.append(f"{counted(len(run.lost), 'listed file')} {'is' if one else 'are'} missing.")
    if counts.failed:
        sentences.append(f"{counted(counts.failed, 'photo')} failed on our side.")
    if without_receipt:
        sentences.append("Its supplier got no receipt, for storage did not take it: the notifier's log says why.")
    return " ".join(sentences) or ("Nothing is left to do." if counts.uploads else "Nothing was uploaded.")


def parts(run: Summary) -> list[Part]:
    """The shares of the run in the order of the page; they add up to its uploads."""
    counts = run.counts
    shares = (
        ("analysed", "Analysed", counts.analysed, True),
        ("converted", "Converted", counts.converted, False),
        ("rejected", "Rejected", counts.rejected, True),
        ("duplicate", "Duplicate" if counts.duplicate == 1 else "Duplicates", counts.duplicate, False),
        ("failed", "Failed", counts.failed, True),
    )
    found: list[Part] = []
    for key, label, count, always in shares:
        found.append(Part(key, label, count, sum(part.count for part in found), always))
    return found


def counted(count: int, noun: str) -> str:
    """`1 photo`, `2 photos`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def reason(code: str) -> str:
    """A reason's title for people; an unknown code is shown in words."""
    return _TITLES.get(code) or (code.replace("_", " ").strip().capitalize() or "Unknown reason")


def parted(name: str) -> tuple[str, str]:
    """A name's folders (with the slash) and its last part."""
    folders, slash, last = name.rpartition("/")
    return (folders + slash, last) if last else ("", name)


def whereabouts(found: Missing) -> str:
    """What is known of a listed file that is not in the run."""
    if found.of_run:
        return f"came in another run, {found.of_run}"
    return "arrived and is held" if found.held else "did not arrive"


def link(name: str) -> str:
    """A relative link from the report to something that we stored."""
    return UP_TO_RESULTS + quote(name)


def period(start: datetime, end: datetime) -> str:
    """`21 November 2026, 11:04 to 11:12 UTC`."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    day = f"{first.day} {first:%B %Y}, {first:%H:%M}"
    if first.date() != last.date():
        return f"{day} to {last.day} {last:%B %Y}, {last:%H:%M} UTC"
    return f"{day} UTC" if f"{first:%H:%M}" == f"{last:%H:%M}" else f"{day} to {last:%H:%M} UTC"


def _alt(picture: Picture) -> str:
    found = counted(picture.detections, "fuse neutral") if picture.detections else "no fuse neutral"
    return f"{picture.name}: {found}"
