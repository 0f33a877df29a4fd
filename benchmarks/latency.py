"""Measure end-to-end latency of the enrich job: produced, to seen by a read_committed consumer.

Examples:
  python -m benchmarks.latency                               5,000 events/s, default interval
  python -m benchmarks.latency --intervals 20,100,500 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from math import ceil
from pathlib import Path

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from agents.workload import Record, Workload
from benchmarks.__main__ import say
from benchmarks.cluster import PARTITIONS, Cluster
from benchmarks.engines import ENGINES, Launch
from benchmarks.process import Process
from engine.devbroker import start_kafka

TICK_S = 0.005
WARM_UP_S = 3.0
"""So much at the beginning is not counted."""
LAST_S = 15.0
"""How long the last results are waited for."""
P50_OVER_MS = 60
P99_OVER_MS = 150
"""What p50 may have over half an interval, and p99 over a whole one."""


class Figures(msgspec.Struct):
    """What one commit interval came to, in ms."""

    interval_ms: int
    events: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    start_ms: float
    """From the process's start to its first committed result."""

    @property
    def within(self) -> bool:
        """Whether both percentiles are what they may be."""
        return (
            self.p50_ms <= self.interval_ms / 2 + P50_OVER_MS
            and self.p99_ms <= self.interval_ms + P99_OVER_MS
        )


class _Id(msgspec.Struct):
    id: str


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all is not above (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * share) - 1)]


class Trial:
    """Events at a steady rate through one worker."""

    def __init__(self, bootstrap: str, rate: int, seconds: float) -> None:
        self._bootstrap = bootstrap
        self._rate = rate
        work = Workload(
            events=int(rate * seconds), users=1_000, seed=1, invalid_ratio=0, profile_ratio=1
        )
        self.records: list[Record] = list(work.raw_events())
        self._sent: dict[str, float] = {}
        self._seen: dict[str, float] = {}

    async def consume(self, first: asyncio.Event) -> None:
        """Note when each result is seen, until cancelled."""
        decode = msgspec.json.Decoder(_Id).decode
        async with AIOKafkaConsumer(
            "enriched-events",
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        ) as consumer:
            while True:
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    now = time.perf_counter()
                    for record in records:
                        self._seen[decode(record.value).id] = now
                    first.set()

    async def produce(self, records: Sequence[Record]) -> None:
        """Send records at the rate."""
        decode = msgspec.json.Decoder(_Id).decode
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer:
            began, left, sent = time.perf_counter(), iter(records), 0
            while sent < len(records):
                due = int((time.perf_counter() - began) * self._rate) - sent
                for key, value, _ in islice(left, due):
                    self._sent[decode(value or b"").id] = time.perf_counter()
                    await producer.send("raw-events", value, key)
                    sent += 1
                await asyncio.sleep(TICK_S)

    async def run(self, process: Process, interval_ms: int) -> Figures:
        """The first record is there when the worker starts; the others come when it is up."""
        first = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self.consume(first))
            async with asyncio.timeout(60):
                await first.wait()
            start_ms = (min(self._seen.values()) - process.started) * 1e3
            await self.produce(self.records[1:])
            deadline = time.perf_counter() + LAST_S
            while len(self._seen) <= len(self._sent) and time.perf_counter() < deadline:
                process.check()
                await asyncio.sleep(0.05)
            watching.cancel()
        return self._figures(interval_ms, start_ms)

    def _figures(self, interval_ms: int, start_ms: float) -> Figures:
        missing = self._sent.keys() - self._seen.keys()
        if missing:
            raise RuntimeError(f"{len(missing):,} of {len(self._sent):,} results never came")
        began = min(self._sent.values())
        spans = [
            (self._seen[name] - at) * 1e3
            for name, at in self._sent.items()
            if at - began > WARM_UP_S
        ]
        p50, p99 = percentile(spans, 0.5), percentile(spans, 0.99)
        return Figures(interval_ms, len(spans), p50, p99, max(spans), start_ms)


async def measure(
    bootstrap: str, home: Path, interval_ms: int, rate: int, seconds: float
) -> Figures:
    """One worker with this commit interval."""
    cluster = Cluster(bootstrap)
    await cluster.delete_all_but()
    await cluster.create("raw-events", "user-profiles", "enriched-events")
    profiles = Workload(events=1, users=1_000, seed=1, profile_ratio=1).profiles()
    await cluster.load("user-profiles", profiles)
    trial = Trial(bootstrap, rate, seconds)
    await cluster.load("raw-events", trial.records[:1])
    run = f"latency-{interval_ms}"
    state = home / run
    state.mkdir()
    launch = Launch("enrich", run, bootstrap, "raw-events", state, PARTITIONS)
    command = ENGINES["headrace"].command(launch, sys.executable)
    environ = {**command.environ, "HEADRACE_COMMIT_INTERVAL_MS": str(interval_ms)}
    with Process(command.argv, environ, home / f"{run}.log") as process:
        return await trial.run(process, interval_ms)


def table(found: list[Figures]) -> str:
    """One row an interval."""
    head = ("interval ms", "events", "p50 ms (at most)", "p99 ms (at most)", "max ms", "start ms")
    lines = [f"| {' | '.join(head)} |", "|" + "---:|" * len(head)]
    lines += [
        f"| {each.interval_ms} | {each.events:,} "
        f"| {each.p50_ms:.0f} ({each.interval_ms / 2 + P50_OVER_MS:.0f}) "
        f"| {each.p99_ms:.0f} ({each.interval_ms + P99_OVER_MS}) "
        f"| {each.most_ms:.0f} | {each.start_ms:,.0f} |"
        for each in found
    ]
    return "\n".join(lines)


def main() -> int:
    """Run it; 1 if a percentile is over what it may be."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rate", type=int, default=5_000, help="events a second (5,000)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each interval (15)")
    parser.add_argument("--intervals", default="100", help="commit intervals in ms (100)")
    parser.add_argument("--json", action="store_true", help="last line: the figures as JSON")
    given = parser.parse_args()
    found: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="headrace-latency-") as folder:
        home = Path(folder)
        with (
            start_kafka(home / "kafka", progress=say) as broker,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            for interval in map(int, given.intervals.split(",")):
                say(f"commit interval {interval} ms")
                found.append(
                    runner.run(measure(broker.bootstrap, home, interval, given.rate, given.seconds))
                )
    print(table(found))
    if given.json:
        print(json.dumps(msgspec.to_builtins(found)))
    return 0 if all(each.within for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
