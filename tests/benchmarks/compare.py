"""What changed since the results that are committed: each measure then and now, and whether its mark is reached still.

    python tests/benchmarks/compare.py [--now FILE] [--before FILE | --revision REVISION]

Compared is the figure that the mark holds for: the ratio where there is one. Differences up to 5 % are called the same.
Exit code 1 where a measure or a benchmark is gone or broken, or where there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from results import FALLS_SHORT, REACHED, Results, Row, aligned, decode, number

ROOT = Path(__file__).parents[2]
SAME = 0.05  # two runs on one idle machine differ by so much
GONE, NEW = "gone", "new"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One measure in both runs; None where it is in one only."""

    before: Row | None
    now: Row | None

    @property
    def row(self) -> Row:
        """For its names."""
        found = self.now or self.before
        assert found is not None
        return found

    @property
    def share(self) -> float | None:
        """How much more it is now: 0.1 is a tenth more."""
        if self.before is None or self.now is None:
            return None
        before, now = self.before.figure, self.now.figure
        return None if not before or now is None else now / before - 1

    @property
    def verdict(self) -> str:
        """In the table's words."""
        if self.now is None:
            return GONE
        if self.before is None:
            return NEW
        if self.share is None or abs(self.share) <= SAME:
            return "same"
        return "better" if (self.share > 0) == (self.now.direction == "at least") else "WORSE"

    @property
    def mark(self) -> str:
        """What became of it."""
        if self.before is None or self.now is None or self.before.reached == self.now.reached:
            return "" if self.row.reached is None else self.row.verdict
        return f"{self.before.verdict} → {self.now.verdict}"


def changes(before: Results, now: Results) -> list[Change]:
    """In the order of now; what is gone comes last."""
    then, found = {_name(row): row for row in before.rows}, {_name(row): row for row in now.rows}
    kept = [Change(before=then.get(name), now=row) for name, row in found.items()]
    return kept + [Change(before=row, now=None) for name, row in then.items() if name not in found]


def _name(row: Row) -> tuple[str, str, str]:
    return row.benchmark, row.measure, row.peer


def missing(before: Results, now: Results) -> list[str]:
    """Each benchmark without figures now, and why."""
    ran = {one.name for one in now.benchmarks}
    absent = [f"{one.name} was not run" for one in before.benchmarks if one.name not in ran]
    return absent + [f"{one.name}: {one.error}" for one in now.broken]


def differences(before: Results, now: Results) -> list[str]:
    """Of machine and versions: with these the figures are hardly comparable."""
    then, found = (msgspec.to_builtins(one.machine) | one.versions for one in (before, now))
    return [
        f"{name}: {then.get(name)} → {found.get(name)}" for name in then | found if then.get(name) != found.get(name)
    ]


def table(found: Sequence[Change]) -> str:
    """All of them."""
    head = ("benchmark", "what", "peer", "before", "now", "change", "", "mark")
    return aligned(head, [_cells(change) for change in found])


def _cells(change: Change) -> list[str]:
    row, share = change.row, change.share
    moved = "" if share is None else f"{share:+.1%}"
    before, now = _figure(change.before), _figure(change.now)
    return [row.benchmark, row.measure, row.peer, before, now, moved, change.verdict, change.mark]


def _figure(row: Row | None) -> str:
    if row is None or row.figure is None:
        return ""
    return f"{number(row.figure)} {row.unit if row.of == 'value' else ''}".strip()


def said(before: Results, now: Results) -> tuple[str, int]:
    """The whole report, and the exit code."""
    found, absent, other = changes(before, now), missing(before, now), differences(before, now)
    counted = {word: sum(change.verdict == word for change in found) for word in ("better", "same", "WORSE", NEW, GONE)}
    lines = [f"{before.commit}, {before.written} → {now.commit}, {now.written}", "", table(found), ""]
    lines.append(", ".join(f"{count} {word}" for word, count in counted.items()))
    lines += [f"Mark lost: {change.row.benchmark}: {change.row.measure}" for change in found if _lost(change)]
    lines += [f"MISSING: {line}" for line in absent]
    if other:
        lines.append("Not the same machine or libraries: " + "; ".join(other))
    return "\n".join(lines), int(bool(absent) or counted[GONE] > 0)


def _lost(change: Change) -> bool:
    return change.mark == f"{REACHED} → {FALLS_SHORT}"


def committed(revision: str) -> str | None:
    """The file in this revision; None where it has none."""
    command = ["git", "show", f"{revision}:benchmarks/results.json"]
    shown = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    return shown.stdout if shown.returncode == 0 else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Read both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--now", type=Path, default=ROOT / "benchmarks/results.json", help="default: %(default)s")
    parser.add_argument("--before", type=Path, help="another file to compare with")
    parser.add_argument(
        "--revision", default="HEAD", help="whose committed file to compare with (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    before = given.before.read_text() if given.before else committed(given.revision)
    if before is None:
        print(f"{given.revision} has no benchmarks/results.json: nothing to compare with", file=sys.stderr)
        return 1
    if not given.now.exists():
        print(f"{given.now} is not there: `make bench` writes it", file=sys.stderr)
        return 1
    text, code = said(decode(before), decode(given.now.read_bytes()))
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
