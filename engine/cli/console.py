"""What goes to the terminal: consoles, numbers, the log."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text

from engine import config
from engine.cli.command import debugging
from engine.security import Redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OUT_WIDTH = 160
"""How wide a table may be where there is no terminal to ask: a pipe wraps nothing."""


def stdout() -> Console:
    """Return the console for results."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=OUT_WIDTH)


def stderr() -> Console:
    """Return the console for everything that is not the result."""
    return Console(stderr=True, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> Table:
    """Return a table; ``right`` names the columns of numbers, and only the last one wraps."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = right.split()
    for column in columns:
        justify: Literal["right", "left"] = "right" if column in numbers else "left"
        made.add_column(column, justify=justify, no_wrap=column != columns[-1], overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def promised(guarantee: str) -> str:
    """Say a guarantee as words, and what it means where it is the lesser one."""
    if guarantee == "exactly_once":
        return "exactly once"
    return "AT LEAST ONCE (no transactions: after a crash, results can come twice)"


class _ToStderr(logging.Handler):
    """Writes to what is stderr at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        print(self.format(record), file=sys.stderr)  # noqa: T201


def log_to_stderr(level: str, *, aiokafka: bool = False) -> None:
    """Send the log to stderr; ``--debug`` sends all of it.

    Args:
        aiokafka: let it say that a broker is away: a worker waits, where other commands end.
    """
    debug = debugging()
    if debug:
        config.export(log_values=True)
    handler: logging.Handler
    if sys.stderr.isatty():
        handler = RichHandler(console=stderr(), show_path=debug, rich_tracebacks=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = _ToStderr()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(Redact())
    if not (debug or aiokafka):  # the command ends with a sentence of ours
        handler.addFilter(lambda record: not record.name.startswith("aiokafka"))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, RichHandler | _ToStderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel("DEBUG" if debug else level.upper())
