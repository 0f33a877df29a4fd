"""The demo's display while it runs: live on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from engine.clock import Clock

PLAIN_S = 2.0
RATE_S = 2.0
"""The speed shown is that of the last two seconds."""


class Snapshot(NamedTuple):
    """How far the job is.

    Attributes:
        exact: whether the counts of results are; transaction markers may be among them.
    """

    produced: int
    processed: int
    enriched: int = 0
    dead_letters: int = 0
    sessions: int = 0
    exact: bool = True


class Display:
    """Shows snapshots. Use it in a ``with`` statement.

    Args:
        total: how many events there are.
    """

    def __init__(self, console: Console, clock: Clock, total: int) -> None:
        self._console = console
        self._clock = clock
        self._total = total
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._marks: list[tuple[float, int]] = []
        self._said_ms = clock.elapsed_ms()

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how far the job is now."""
        now = self._clock.elapsed_ms()
        rate = self._rate(now, snapshot.processed)
        if self._console.is_terminal:
            self._live.update(self._panel(snapshot, rate), refresh=True)
        elif now - self._said_ms >= PLAIN_S * 1000:
            self._said_ms = now
            self._console.print(
                f"{snapshot.processed:,} of {self._total:,} events, {rate:,.0f} events/s, "
                f"{self._results(snapshot)}", soft_wrap=True
            )  # fmt: skip

    def _rate(self, now: float, processed: int) -> float:
        self._marks.append((now, processed))
        while len(self._marks) > 2 and now - self._marks[1][0] >= RATE_S * 1000:  # noqa: PLR2004
            self._marks.pop(0)
        began, before = self._marks[0]
        return (processed - before) / (now - began) * 1000 if now > began else 0.0

    def _results(self, snapshot: Snapshot) -> str:
        about = "" if snapshot.exact else "about "
        return (
            f"{about}{snapshot.enriched:,} enriched, {snapshot.dead_letters:,} dead letters, "
            f"{snapshot.sessions:,} sessions"
        )

    def _panel(self, snapshot: Snapshot, rate: float) -> Group:
        share = snapshot.processed / self._total if self._total else 1.0
        total = f"{self._total:,}"  # numbers keep their width, so that nothing jumps
        line = Table.grid(padding=(0, 2, 0, 0))
        line.add_row(
            ProgressBar(total=max(1, self._total), completed=snapshot.processed, width=24,
                        complete_style="green"),
            Text(f"{share:4.0%}"),
            Text(f"{snapshot.processed:>{len(total)},} of {total} events"),
            Text(f"{rate:>7,.0f} events/s", style="bold"),
        )  # fmt: skip
        produced = f"{snapshot.produced:,} sent, {self._results(snapshot)}"
        return Group(line, Text(produced, style="dim"))
