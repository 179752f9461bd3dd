"""The benchmark's progress on standard error: a live table on a terminal, elsewhere a line a cell."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

ROWS = 20
"""Finished cells that the live table shows, the latest last."""


class Board:
    """A context: `begin` and `end` in turn for each of `names`, in their order."""

    def __init__(self, names: Sequence[str]):
        self._total, self._started, self._now = len(names), time.monotonic(), ""
        self._lines: list[tuple[str, str, str]] = []
        self._computed: list[float] = []
        """Seconds of the cells that were not found finished."""
        console = Console(stderr=True)
        self._live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=1) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._now = ""
            self._live.stop()

    def begin(self, name: str, method: str) -> None:
        self._now, self._began = name, time.monotonic()

    def end(self, name: str, result: dict) -> None:
        seconds = time.monotonic() - self._began
        if result["state"] == "done" and seconds > 1:
            self._computed.append(seconds)
        self._lines.append((name, said(result), f"{seconds:.0f} s"))
        if not self._live:
            print(
                f"{len(self._lines)}/{self._total} {name}: {said(result)}, {self._remaining()}",
                file=sys.stderr,
                flush=True,
            )

    def _remaining(self) -> str:
        left = self._total - len(self._lines)
        if left == 0 or not self._computed:
            return f"{left} left"
        # By the mean of what was computed in this session.
        return f"{left} left, about {left * sum(self._computed) / len(self._computed) / 60:.0f} min"

    def _table(self) -> Table:
        elapsed = time.monotonic() - self._started
        title = f"{len(self._lines)} of {self._total} cells, {elapsed / 60:.0f} min, {self._remaining()}"
        table = Table("cell", "accuracy", "time", title=title, title_justify="left")
        for line in self._lines[-ROWS:]:
            table.add_row(*line)
        if self._now:
            table.add_row(self._now, "…", f"{time.monotonic() - self._began:.0f} s")
        return table


def said(result: dict) -> str:
    """A result in a few words."""
    if result["state"] != "done":
        return f"{result['state']}: {result['reason']}"
    hits = result["hits"]
    return f"{100 * hits.count('1') / len(hits):.1f}"
