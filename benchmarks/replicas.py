"""Measure what a second worker brings: ``headrace worker --replicas n`` on the main job.

python -m benchmarks.replicas [--events N] [--replicas 1,2] [--rounds R] [--json]

The clock runs from the moment when all replicas have their tasks until the last output; what came
out before is not counted. The broker shares the machine's cores with them, so its CPU is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from agents.workload import Workload
from benchmarks.cluster import PARTITIONS, Cluster, Watermark
from engine.devbroker import DevBroker, start_kafka
from engine.tether import Tether

ROOT = Path(__file__).parents[1]
INPUTS = ("raw-events", "user-profiles")
OUTPUT = "enriched-events"
TICKS = os.sysconf("SC_CLK_TCK")
LOOK_S = 0.05
QUIET_S = 1.5
START_S = 60.0


class Round(msgspec.Struct):
    """One drain.

    Attributes:
        cpu: seconds a million events, of all workers; broker_cpu: of the broker.
        rss_mb: of each worker.
    """

    replicas: int
    events_per_second: float
    cpu: float
    broker_cpu: float
    rss_mb: list[float]
    measured: int


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def said(log: Path) -> str:
    return log.read_text(errors="replace")


def cpu_s(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return (
        int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
        / 1024
    )


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started, from any of its threads."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


class Enriched(msgspec.Struct):
    """What an enriched event is known by."""

    id: str


_decode = msgspec.json.Decoder(Enriched).decode


class Bench:
    """A broker with the main job's input on it."""

    def __init__(self, broker: DevBroker, home: Path) -> None:
        self.broker, self.home = broker, home
        self.cluster = Cluster(broker.bootstrap)
        self.expected = 0
        self.events = 0

    async def load(self, events: int, users: int) -> None:
        """Write the input; note how many results there must be."""
        work = Workload(events=events, users=users, seed=1)
        await self.cluster.create(*INPUTS)
        profiles = list(work.profiles())
        await self.cluster.load("user-profiles", profiles)
        known, faults = {row[0] for row in profiles}, {place for place, _ in work.faults()}
        rows = list(work.raw_events())
        self.events = len(rows)
        self.expected = sum(n not in faults and row[0] in known for n, row in enumerate(rows))
        await self.cluster.load("raw-events", rows)

    async def round(self, replicas: int, number: int) -> Round:
        """Drain the input once, from nothing."""
        await self.cluster.delete_all_but(*INPUTS)
        await self.cluster.create(OUTPUT)
        name = f"replicas-{replicas}-{number}"
        log = self.home / f"{name}.log"
        environ = {
            **os.environ,
            "BENCH_GROUP": name,
            "PYTHONPATH": str(ROOT),
            "HEADRACE_BROKER": self.broker.bootstrap,
            "HEADRACE_STATE_DIR": str(self.home / name),
            "HEADRACE_PARTITIONS": str(PARTITIONS),
            "HEADRACE_RETENTION_MS": "-1",
        }
        argv = [sys.executable, "-m", "engine.cli", "worker", "benchmarks.replica_app"]
        argv += ["--replicas", str(replicas)]
        workers = Tether(argv, directory=ROOT, log_path=log, environ=environ)
        try:
            async with Watermark(self.cluster.bootstrap, OUTPUT) as mark:
                return await self._watch(workers, log, mark, replicas)
        finally:
            workers.stop(20)

    async def _watch(self, workers: Tether, log: Path, mark: Watermark, replicas: int) -> Round:
        began = time.perf_counter()
        while said(log).count("new tasks") < replicas:
            if workers.exit_code is not None or time.perf_counter() - began > START_S:
                raise RuntimeError(said(log)[-3000:])
            await asyncio.sleep(LOOK_S)
        pids = list(children(workers.pid)) if replicas > 1 else [workers.pid]
        if len(pids) != replicas:
            raise RuntimeError(f"{len(pids)} workers are running, not {replicas}")
        broker = [self.broker.pid]
        start = time.perf_counter(), await mark.now(), cpu_s(pids), cpu_s(broker)
        last = start
        while last[1] < self.expected or time.perf_counter() - last[0] < QUIET_S:
            size = await mark.now()
            if size > last[1]:
                last = time.perf_counter(), size, cpu_s(pids), cpu_s(broker)
            if time.perf_counter() - last[0] > START_S:
                raise RuntimeError(f"{last[1]} of {self.expected} results came")
            await asyncio.sleep(LOOK_S)
        # the watermark counts markers too: what share of it are results, so is of the input
        measured = int(self.events * (last[1] - start[1]) / last[1])
        seconds, *used = (end - first for end, first in zip(last, start, strict=True))
        rss = [rss_mb(pid) for pid in pids]
        million = measured / 1e6
        return Round(
            replicas, measured / seconds, used[1] / million, used[2] / million, rss, measured
        )

    async def is_exact(self) -> bool:
        """Say whether each event that was to be enriched has been, once."""
        ids = [_decode(value).id for value in await self.cluster.values(OUTPUT)]
        return len(ids) == len(set(ids)) == self.expected


async def run(broker: DevBroker, home: Path, given: argparse.Namespace) -> list[Round]:
    bench = Bench(broker, home)
    say(f"loading {given.events:,} events")
    await bench.load(given.events, given.users)
    rounds = []
    for number in range(given.rounds):
        for replicas in given.replicas:
            done = await bench.round(replicas, number)
            exact = await bench.is_exact()
            say(
                f"{replicas} replicas: {done.events_per_second:,.0f} events/s over "
                f"{done.measured:,} events, CPU s per million: workers {done.cpu:.1f}, broker "
                f"{done.broker_cpu:.1f}; RSS {', '.join(f'{mb:.0f}' for mb in done.rss_mb)} MB; "
                f"{'exact' if exact else 'NOT EXACT'}; load {os.getloadavg()[0]:.1f}"
            )
            if not exact:
                raise SystemExit("the results are not exact")
            rounds.append(done)
    return rounds


def table(rounds: list[Round]) -> str:
    """A Markdown table: medians."""
    lines = [
        "| replicas | events/s (median, min to max) | CPU s a million: workers | broker | RSS MB |",
        "|---:|---:|---:|---:|---|",
    ]
    for replicas in dict.fromkeys(each.replicas for each in rounds):
        own = [each for each in rounds if each.replicas == replicas]
        rates = [each.events_per_second for each in own]
        rss = " + ".join(f"{mb:.0f}" for mb in own[-1].rss_mb)
        lines.append(
            f"| {replicas} | {median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) "
            f"| {median(each.cpu for each in own):.1f} "
            f"| {median(each.broker_cpu for each in own):.1f} | {rss} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--replicas", default="1,2", help="which numbers to compare (1,2)")
    parser.add_argument("--json", action="store_true", help="last line: the rounds as JSON")
    given = parser.parse_args()
    given.replicas = [int(each) for each in given.replicas.split(",")]
    with tempfile.TemporaryDirectory(prefix="headrace-replicas-") as name:
        home = Path(name)
        with start_kafka(home / "kafka", progress=say) as broker:
            rounds = asyncio.run(run(broker, home, given))
    print(table(rounds))
    if given.json:
        print(json.dumps(msgspec.to_builtins(rounds)))


if __name__ == "__main__":
    main()
