"""The demo's data: what was asked for, where it runs, what came out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from engine.cli.console import promised, table

if TYPE_CHECKING:
    from rich.table import Table

Guarantee = Literal["exactly_once", "at_least_once"]


class Plan(NamedTuple):
    """What was asked for: the command's options."""

    events: int
    users: int
    seed: int
    file: Path | None
    replicas: int
    partitions: int
    broker: str | None
    fresh: bool
    guarantee: Guarantee | None
    state_dir: Path | None
    keep_unmatched: bool
    sessions: Literal["final", "updates"]


class Place(NamedTuple):
    """The broker that the job runs on, and where the workers keep their state."""

    name: str
    address: str
    guarantee: Guarantee
    state_dir: Path
    home: Path


class Result(msgspec.Struct, frozen=True):
    """What came out, counted in the output topics; the fields of ``--json``."""

    events: int
    enriched: int
    unmatched: int
    dead_letters: int
    sessions: int
    counts: int
    conversions: int
    guarantee: Guarantee
    broker: str
    seconds: float
    events_per_second: int

    def summary(self) -> Table:
        """Return it as a table."""
        rows = [
            ("events in", self.events, "raw-events"),
            ("enriched", self.enriched, "enriched-events"),
            ("without a profile", self.unmatched, "counted and left out"),
            ("dead letters", self.dead_letters, "raw-events-dlq"),
            ("sessions", self.sessions, "user-sessions"),
            ("counts by minute", self.counts, "event-counts"),
            ("logins with a purchase", self.conversions, "conversions"),
            ("events a second", self.events_per_second, self._how()),
        ]
        return table(("result", "records", "where"), rows, right="records")

    def _how(self) -> str:
        return f"in {self.seconds:.1f} s, {promised(self.guarantee)}, on {self.broker}"
