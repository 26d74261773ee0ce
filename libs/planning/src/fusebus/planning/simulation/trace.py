"""A scenario from a CSV file of arrivals: `at` (seconds, or ISO 8601 with a zone), `images`, and perhaps `kind`."""

from __future__ import annotations

import csv
from datetime import datetime
from pathlib import Path

import msgspec

from fusebus.planning.simulation.scenario import Lump, Scenario
from fusebus.planning.simulation.scenarios import D4, GPUS, HOUR, SERVICE

MOST_LINES = 2_000_000
MOST_IMAGES = 100_000_000  # in all


class TraceError(Exception):
    """The file can't be understood; the message names the line."""


def read_trace(path: Path, deadline: float = 6 * HOUR) -> Scenario:
    """The default pools and prices with the file's arrivals, the first at second 0. Raises TraceError, OSError."""
    found: list[Lump] = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if not {"at", "images"} <= set(rows.fieldnames or ()):
            raise TraceError(f"{path}: the first line must name the columns at,images (and perhaps kind)")
        try:
            for row in rows:
                found.append(_lump(row, f"{path}, line {rows.line_num}"))
                if len(found) > MOST_LINES:
                    raise TraceError(f"{path}: more than {MOST_LINES} lines")
        except (csv.Error, UnicodeDecodeError) as error:
            raise TraceError(f"{path}: {error}") from error
    return _scenario(path, found, deadline)


def _scenario(path: Path, found: list[Lump], deadline: float) -> Scenario:
    if not found:
        raise TraceError(f"{path}: no arrivals")
    if sum(lump.images for lump in found) > MOST_IMAGES:
        raise TraceError(f"{path}: more than {MOST_IMAGES} images")
    start = min(lump.at for lump in found)
    lumps = tuple(sorted((Lump(lump.at - start, lump.images, lump.kind) for lump in found), key=lambda lump: lump.at))
    offers = (*GPUS, D4) if any(lump.kind == "convert" for lump in lumps) else GPUS
    scenario = Scenario(name=path.stem, says=str(path), lumps=lumps, deadline=deadline, offers=offers, service=SERVICE)
    return msgspec.structs.replace(scenario, long=True)


def _lump(row: dict[str, str | None], where: str) -> Lump:
    try:
        images, at = int(row["images"] or ""), _seconds(row["at"] or "")
    except ValueError as error:
        raise TraceError(f"{where}: {error}") from error
    kind = row.get("kind") or "detect"
    if images < 1 or kind not in ("detect", "convert"):
        raise TraceError(f"{where}: images must be 1 or more, kind detect or convert")
    return Lump(at, images, kind)


def _seconds(text: str) -> float:
    """Of a number or a moment. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError(f"{text!r} has no zone, such as 2026-03-01T08:00:00+00:00") from None
        return moment.timestamp()
    if not -1e12 < value < 1e12:
        raise ValueError(f"{text!r} is no moment")
    return value
