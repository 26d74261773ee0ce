"""The live view of a delivery: bars and counts in a terminal, one line at a time in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fusebus.console.tables import count_text
from fusebus.console.uploading import Upload
from fusebus.ledger import FinalKind
from fusebus.stack.delivery import Moment

LINE_SECONDS = 3.0
"""Where there is no terminal, at most one line in so long."""
BAR_WIDTH = 40
STATES = (
    ("analysed", (FinalKind.ANALYSED, FinalKind.CONVERTED), "green"),
    ("rejected", (FinalKind.REJECTED,), "yellow"),
    ("duplicate", (FinalKind.DUPLICATE,), "yellow"),
    ("failed", (FinalKind.FAILED,), "red"),
)


class Display:
    """Shows each Moment on standard error; a context manager."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self._total, self._quiet = total, quiet
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._last_line, self._said_at = "", 0.0
        self._sent = 0
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def sent(self, upload: Upload) -> None:
        """One more file is on its way."""
        self._sent += 1
        if self._console.is_terminal and not self._quiet:
            self._live.update(Text(f"uploaded {self._sent} of {self._total}: {upload.photo.name}"), refresh=True)

    def show(self, moment: Moment) -> None:
        """Draw what was seen."""
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live.update(self._drawn(moment), refresh=True)
            return
        line = self._line(moment)
        if line != self._last_line and time.monotonic() - self._said_at >= LINE_SECONDS:
            self._console.print(Text(f"{time.monotonic() - self._began:5.0f} s  {line}"), soft_wrap=True)
            self._last_line, self._said_at = line, time.monotonic()

    def _line(self, moment: Moment) -> str:
        states = ", ".join(f"{moment.finals(*kinds)} {name}" for name, kinds, _ in STATES if moment.finals(*kinds))
        return f"{states or 'nothing final yet'}, {self._outstanding(moment)} to go; {_machinery(moment)}"

    def _outstanding(self, moment: Moment) -> int:
        return max(self._total - moment.arrived, 0) + moment.waiting

    def _drawn(self, moment: Moment) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, kinds, colour in STATES:
            count = moment.finals(*kinds)
            bar = ProgressBar(self._total, count, width=BAR_WIDTH, complete_style=colour, finished_style=colour)
            table.add_row(name, bar, f"{count} of {self._total}")
        return Group(table, Text(_machinery(moment), style="dim"))


def _machinery(moment: Moment) -> str:
    runs = ", ".join(run.state.value for run in moment.runs) or "none yet"
    queued = ", ".join(f"{topic} {count_text(moment.queued(topic))}" for topic in ("uploads", "images", "results"))
    return (
        f"run {runs}; queued: {queued}; "
        f"nodes {count_text(moment.nodes.present)}, workers {count_text(moment.nodes.working)}"
    )
