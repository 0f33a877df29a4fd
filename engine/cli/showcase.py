"""The demo's course: broker, topics, workers, events, the wait, the count.

The steps are in :func:`_work`, one line each.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from engine import config as configuration
from engine.cli.console import promised
from engine.cli.progress import Display, Snapshot
from engine.cli.running import run_loop
from engine.clock import SystemClock
from engine.devbroker import start_broker
from engine.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from engine.app import App
    from engine.cli.crew import Crew
    from engine.cli.events import Input
    from engine.config import Guarantee
    from engine.connect.loader import Loader
    from engine.kafka.admin import KafkaAdmin

LOOK_S = 0.1
STALLED_S = 60.0
PLAIN_SESSION_MS = 3_000
"""Tansu lets a group wait for half the session timeout before anything flows."""


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
    """The broker that the job runs on."""

    name: str
    address: str
    guarantee: Guarantee
    foreign: bool


class Result(msgspec.Struct, frozen=True):
    """What came out, counted in the output topics; the fields of ``--json``."""

    events: int
    enriched: int
    unmatched: int
    dead_letters: int
    sessions: int
    counts: int
    guarantee: Guarantee
    broker: str
    seconds: float
    events_per_second: int

    def summary(self) -> Table:
        """Return it as a table."""
        from engine.cli.console import table

        return table(
            ("result", "records", "where"),
            [
                ("events in", self.events, "raw-events"),
                ("enriched", self.enriched, "enriched-events"),
                ("without a profile", self.unmatched, "left out, and counted"),
                ("dead letters", self.dead_letters, "raw-events-dlq"),
                ("sessions", self.sessions, "user-sessions"),
                ("counts by minute", self.counts, "event-counts"),
                ("events a second", self.events_per_second, f"{self.seconds:.1f} s in all, "
                 f"{promised(self.guarantee)}, {self.broker}"),
            ],
            right="records",
        )  # fmt: skip


def run(plan: Plan, console: Console) -> Result:
    """Run the demo; everything it has started is gone afterwards."""
    from engine.cli.events import from_file, generated  # the job is imported here

    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="headrace-demo-", ignore_cleanup_errors=True)
        home = Path(stack.enter_context(temporary))
        configuration.export(keep_unmatched=plan.keep_unmatched, sessions=plan.sessions)
        place = stack.enter_context(_broker(plan, home, console))
        now = SystemClock().now_ms()
        data = (
            generated(plan.events, plan.users, plan.seed)
            if plan.file is None
            else from_file(plan.file, now)
        )
        console.print(
            f"{place.name} at {place.address}, {promised(place.guarantee)}; "
            f"{plan.replicas} worker{'s' * (plan.replicas > 1)}, {plan.partitions} partitions, "
            f"{data.count:,} events", soft_wrap=True
        )  # fmt: skip
        return run_loop(_work(plan, place, data, home, console))
