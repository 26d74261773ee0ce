"""What the benchmarks found, as rows of one table: how a row is judged, how the table looks, how it is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Direction = Literal["at least", "at most"]
REACHED, FALLS_SHORT, NO_MARK = "reached", "falls short", "–"
SIGNS: dict[Direction, str] = {"at least": "≥", "at most": "≤"}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. `measure` names it for good: what varies from run to run belongs into `note`."""

    benchmark: str
    measure: str
    direction: Direction
    """What is better: more, or less; and what the mark wants."""
    unit: str = ""
    """Of `value`."""
    value: float | None = None
    peer: str = ""
    ratio: float | None = None
    """Ours to the peer's, as `measure` says."""
    mark: float | None = None
    of: Literal["value", "ratio"] = "value"
    """Which of the two the mark holds for, and which is compared between runs."""
    note: str = ""

    @property
    def figure(self) -> float | None:
        """The one that is judged."""
        return self.ratio if self.of == "ratio" else self.value

    @property
    def reached(self) -> bool | None:
        """None where there is no mark. What was not measured, or is no number, reaches none."""
        if self.mark is None:
            return None
        figure = self.figure
        if figure is None or math.isnan(figure):
            return False
        return figure >= self.mark if self.direction == "at least" else figure <= self.mark

    @property
    def verdict(self) -> str:
        """In the table's words."""
        return NO_MARK if self.reached is None else REACHED if self.reached else FALLS_SHORT


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark as it was run."""

    name: str
    command: str
    seconds: float
    others_cores: float
    """Cores that other work of the machine took meanwhile: from some tenths on, times and rates tell little."""
    error: str = ""
    """Why there is no figure of it; empty: it went well."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    processor: str
    cores: int
    memory_gib: float
    system: str
    python: str


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """One run of several benchmarks, as benchmarks/results.json keeps it."""

    written: str
    """UTC, ISO 8601."""
    commit: str
    seconds: float
    machine: Machine
    versions: dict[str, str]
    benchmarks: list[Ran]
    rows: list[Row]

    @property
    def broken(self) -> list[Ran]:
        """The benchmarks that gave no figures."""
        return [ran for ran in self.benchmarks if ran.error]


def encode(results: Results) -> str:
    """As JSON, one row a line, so that a diff can be read; each row says whether its mark is reached."""
    found = msgspec.to_builtins(results)
    for kept, row in zip(found["rows"], results.rows, strict=True):
        kept["reached"] = row.reached
    lists = {name: found.pop(name) for name in ("benchmarks", "rows")}
    head = msgspec.json.format(msgspec.json.encode(found), indent=1).decode()[:-2]
    for name, entries in lists.items():
        lines = ",\n".join("  " + msgspec.json.encode(entry).decode() for entry in entries)
        head += f',\n "{name}": [\n{lines}\n ]'
    return head + "\n}\n"


def decode(text: str | bytes) -> Results:
    """Raises msgspec.ValidationError where it is no such file."""
    return msgspec.json.decode(text, type=Results)


def write(results: Results, path: Path) -> None:
    """Keep it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(encode(results))


def table(rows: Sequence[Row]) -> str:
    """All rows below one another, columns aligned; also a table in Markdown."""
    head = ("benchmark", "what", "measured", "peer", "ratio", "mark", "", "note")
    return aligned(head, [_cells(row) for row in rows])


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below one another in a terminal too; the last one is as wide as it is."""
    widths = [max(3, *(len(line[at]) for line in (head, *lines))) for at in range(len(head) - 1)] + [3]

    def one(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([one(head), one("-" * width for width in widths), *(one(line) for line in lines)])


def _cells(row: Row) -> list[str]:
    value = "" if row.value is None else f"{number(row.value)} {row.unit}".strip()
    ratio = "" if row.ratio is None else number(row.ratio)
    mark = "" if row.mark is None else f"{SIGNS[row.direction]} {row.mark:g}{unit_of_mark(row)}"
    return [row.benchmark, row.measure, value, row.peer, ratio, mark, row.verdict, row.note]


def unit_of_mark(row: Row) -> str:
    """With a space before it; a ratio has none."""
    return f" {row.unit}" if row.of == "value" and row.unit else ""


def number(value: float) -> str:
    """Four digits: 0.0432, 26.05, 127427."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def summary(results: Results) -> str:
    """How many marks are reached, what fell short, what is broken, and how quiet the machine was."""
    judged = [row for row in results.rows if row.mark is not None]
    short = [row for row in judged if not row.reached]
    lines = [f"{len(judged) - len(short)} of {len(judged)} marks reached, in {results.seconds:.0f} s"]
    lines += [f"{FALLS_SHORT}: {row.benchmark}: {row.measure}" for row in short]
    lines += [f"BROKEN: {ran.name}: {ran.error}" for ran in results.broken]
    busy = max((ran.others_cores for ran in results.benchmarks), default=0.0)
    if busy >= 0.2:
        lines.append(f"Other work took up to {busy:.1f} cores meanwhile: times and rates are worse for it.")
    return "\n".join(lines)
