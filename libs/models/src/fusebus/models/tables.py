"""How versions and the live document look in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusebus.models.live import Change, Live
from fusebus.models.registry import Unreadable, Version

HISTORY_SHOWN = 10
MB = 1_000_000


def versions_table(versions: Sequence[Version | Unreadable]) -> RenderableType:
    """One line for each version."""
    if not versions:
        return Text('no versions yet: fusebus model push FOLDER --why "..." brings one')
    table = Table("version", "use", "MB", "precision", "finds", "pushed", "by", "why", box=None)
    for found in versions:
        if isinstance(found, Unreadable):
            table.add_row(escape(found.ref), "unreadable", "?", "?", "?", "?", "?", escape(found.problem))
            continue
        manifest, pushed = found.manifest, found.pushed
        table.add_row(
            escape(found.ref),
            found.use,
            f"{manifest.total_bytes / MB:.1f}",
            manifest.precision,
            escape(", ".join(manifest.prompts)),
            f"{pushed.when:%F %R}" if pushed else "?",
            escape(pushed.who) if pushed else "?",
            escape(pushed.why) if pushed else "",
        )
    return table


def version_table(version: Version) -> RenderableType:
    """Everything that is known of one version."""
    manifest, pushed = version.manifest, version.pushed
    source = manifest.source
    thresholds = zip(manifest.prompts, manifest.score_thresholds, strict=True)
    rows = {
        "version": version.ref,
        "use": version.use or "none",
        "pushed": f"{pushed.when:%F %R} by {pushed.who}: {pushed.why}" if pushed else "?",
        "finds": ", ".join(f"{prompt} (score over {threshold:g})" for prompt, threshold in thresholds),
        "picture": f"{manifest.image_size} × {manifest.image_size}, masks {manifest.mask_size} × {manifest.mask_size}",
        "precision": f"{manifest.precision}, opset {manifest.opset}, {manifest.top_k} candidates",
        "source": f"{source.name}, {source.kind}, SHA-256 {source.sha256}" if source else "not named",
        "parity": _as_text(manifest.parity),
        "measured": _as_text(manifest.measured or {}),
        "exported with": _as_text(manifest.libraries),
        "manifest": f"SHA-256 {version.manifest_sha256}",
    }
    for name, found in sorted(manifest.files.items()):
        rows[name] = f"{found.bytes} bytes, SHA-256 {found.sha256}"
    return _facts(rows)


def live_table(live: Live) -> RenderableType:
    """What serves, and the last changes, newest first."""
    rows = {
        "live": live.current.ref if live.current else "nothing: workers serve the model that their settings name",
        "canary": f"{live.canary.ref}, {live.canary.percent:g} % of the images" if live.canary else "none",
        "rollback to": live.previous[0].ref if live.previous else "nothing",
    }
    if not live.history:
        return _facts(rows)
    return Group(_facts(rows), _history(live.history))


def _history(changes: Sequence[Change]) -> Table:
    table = Table("when", "who", "what", "from", "to", "why", title="history", title_justify="left", box=None)
    for change in reversed(changes[-HISTORY_SHOWN:]):
        what = change.action if change.percent is None else f"{change.action} {change.percent:g} %"
        cells = (change.who, what, change.before, change.after, change.why)
        table.add_row(f"{change.when:%F %T}", *(escape(cell) for cell in cells))
    return table


def _facts(rows: dict[str, str]) -> Text:
    """A line for each, however long: digests must survive copying. To be printed with `crop=False`."""
    width = max(len(name) for name in rows) + 2
    return Text("\n".join(f"{name:<{width}}{text}" for name, text in rows.items()), no_wrap=True, overflow="ignore")


def _as_text(found: object) -> str:
    return msgspec.json.encode(found).decode() if found else "not given"
