"""What went wrong in a run, file by file, in the words of mail and card: our own failures first."""

from __future__ import annotations

from msgspec import Struct

from fusebus.notifier.report import reason
from fusebus.notifier.summary import Summary


class Problem(Struct, frozen=True):
    """One file. `key`: which final, for its colour."""

    key: str
    name: str
    title: str
    text: str


def problems_of(run: Summary) -> list[Problem]:
    """All of them; `run` is presentable already."""
    return [
        *(Problem("failed", found.name, reason(found.reason), found.description) for found in run.failed),
        *(
            Problem("rejected", found.name, "List of files refused", found.explanation)
            for found in run.manifests
            if found.reason
        ),
        *(Problem("rejected", found.name, reason(found.reason), found.explanation) for found in run.rejected),
        *(
            Problem("duplicate", found.name, "Duplicate", f"Same photo as {found.of_name or 'an earlier upload'}.")
            for found in run.duplicates
        ),
    ]
