"""What will be late with the nodes that there are and that are bought: an alert, not a wish."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fusebus.planning.lines import Line
from fusebus.planning.plan import Late
from fusebus.planning.view import Verdict, View, seconds
from fusebus.planning.work import Load, at_hand, finished_at


def late_of(view: View, verdict: Verdict) -> tuple[Late, ...]:
    """Images that are late even if all goes as it usually does: a median boot, no margin."""
    if verdict.waits or not view.due:
        return ()
    crew = [_with(line, verdict.targets.get(line.key, 0) - line.kept) for line in view.lines]
    images = math.ceil(max(load.images - at_hand(crew, load.deadline, view.now) for load in view.due) - 1e-6)
    if images <= 0:
        return ()
    by = max(0.0, *(_overdue(crew, load, view.now) for load in view.due))
    why = "; ".join(dict.fromkeys(verdict.said)) or "no node is ready early enough"
    when = f"up to {seconds(by)}" if by < math.inf else "for good"
    because = f"{images} of {view.due[-1].images} {view.kind.kind} images are late, {when}: {why}"
    return (Late(kind=view.kind.kind, images=images, seconds=by, because=because),)


def _overdue(crew: Sequence[Line], load: Load, now: float) -> float:
    return finished_at(crew, load.images, now) - load.deadline


def _with(line: Line, nodes: int) -> Line:
    """The line once so many more were bought."""
    if nodes <= 0:
        return line
    later = line.boot.p50 if not line.coming else max(line.boot.p50, line.coming_in)
    return msgspec.structs.replace(line, coming=line.coming + nodes, coming_in=later)
