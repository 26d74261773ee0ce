"""How an overview looks in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fusebus.console.overview import Overview, Queue, RunOverview


def overview_tables(overview: Overview) -> RenderableType:
    """Runs, queues and the fleet, for people."""
    fleet = Text("fleet: nothing decided yet")
    if overview.nodes_wanted is not None:
        fleet = Text(
            f"fleet: {overview.nodes_wanted} nodes, {overview.workers_wanted} workers wanted: {overview.because}"
        )
    return Group(_runs_table(overview.runs), _queues_table(overview.queues), fleet)


def states_text(by_state: dict[str, int]) -> str:
    """`3 analysed, 1 waiting`."""
    return ", ".join(f"{count} {state}" for state, count in by_state.items()) or "no uploads"


def count_text(count: int | None) -> str:
    """A count, or `?` where it could not be read."""
    return "?" if count is None else str(count)


def _runs_table(runs: tuple[RunOverview, ...]) -> RenderableType:
    if not runs:
        return Text("no runs yet: fusebus upload FOLDER --supplier NAME sends photos")
    table = Table("run", "state", "uploads", "", title="runs, newest first", title_justify="left", box=None)
    for run in runs:
        table.add_row(escape(run.run_id), run.state, str(run.uploads), states_text(run.by_state))
    return table


def _queues_table(queues: tuple[Queue, ...]) -> RenderableType:
    busy = [queue for queue in queues if (queue.active, queue.dead_letters) != (0, 0)]
    if not busy:
        return Text(f"queues: nothing waits in any of the {len(queues)} subscriptions")
    table = Table("subscription", "active", "dead letters", title="queues", title_justify="left", box=None)
    for queue in busy:
        table.add_row(f"{queue.topic}/{queue.subscription}", count_text(queue.active), count_text(queue.dead_letters))
    return table
