"""Where a worker's processor time goes, per event and by stage of a record's path, on real Kafka.

Examples:
  python -m benchmarks.breakdown                        enrich and the whole main job
  python -m benchmarks.breakdown --jobs sessions,tumbling --events 300000

The engine counts its stages itself (engine/stages.py); what it comes to is held against what the
system says the process has used in the same time. The exit code is 1 if they differ by more than a
tenth: then there is a stage that nobody counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agents.workload import Workload
from benchmarks.__main__ import say
from benchmarks.cluster import Cluster
from benchmarks.engines import ENGINES
from benchmarks.headrace_worker import MARK, PROCESS
from benchmarks.inputs import Inputs
from benchmarks.jobs import JOBS
from benchmarks.rounds import Bench, Round
from engine.devbroker import start_kafka

MOST_APART = 0.1
WHAT = {
    "poll": "record batches to columns, unpacked",
    "decode": "decode and check, some hundreds at a time",
    "agent": "agents, with the reads and changes of their tables; outputs encoded",
    "cut": "changed table entries and positions, encoded",
    "encode": "records to record batches, packed",
    "produce": "requests with record batches",
    "commit": "the transaction's other requests",
    "store": "RocksDB, one batch a task",
    "loop": "sockets, aiokafka, asyncio, hand-over",
    "threads": "RocksDB's and others, beside the loop's",
}


def spent_by(home: Path, job: str) -> dict[str, float]:
    """The seconds by stage that a job's worker said when it ended."""
    [log] = home.glob(f"headrace-{job}-*.log")
    said = [line for line in log.read_text().splitlines() if line.startswith(MARK)]
    spent: dict[str, float] = json.loads(said[-1].removeprefix(MARK))
    return spent


def rows(spent: dict[str, float], events: int) -> Iterator[str]:
    """Lines of a Markdown table."""
    whole = spent[PROCESS]
    counted = sum(seconds for stage, seconds in spent.items() if stage != PROCESS)
    shares = {**spent, "threads": max(0.0, whole - counted)}
    yield "| stage | us per event | share | what |\n|---|---:|---:|---|"
    for stage, what in WHAT.items():
        us = shares.get(stage, 0.0) / events * 1e6
        yield f"| {stage} | {us:.2f} | {shares.get(stage, 0.0) / whole:.0%} | {what} |"
    yield f"| **stages of the loop** | **{counted / events * 1e6:.2f}** | {counted / whole:.0%} | |"
    yield f"| **the process** | **{whole / events * 1e6:.2f}** | 100% | as the system counts |"


async def run(bootstrap: str, home: Path, jobs: list[str], events: int) -> bool:
    """One round of each job; say whether the stages account for all of them."""
    cluster = Cluster(bootstrap)
    inputs = Inputs(cluster, Workload(events=events, users=10_000, seed=1))
    await inputs.open()
    bench = Bench(cluster, inputs, home, {"headrace": sys.executable}, say)
    complete = True
    for job in jobs:
        done: Round = await bench.round(job, ENGINES["headrace"], 1.0)
        spent = spent_by(home, job)
        print(
            f"\n### {job}\n\n{done.events:,} events, {done.events_per_second:,.0f} events/s, "
            f"{done.cpu_seconds_per_million:.1f} CPU s per million seen from outside, load "
            f"{done.load_average}, results {'right' if done.correct else 'WRONG'}\n"
        )
        print("\n".join(rows(spent, done.events)), flush=True)
        counted = sum(seconds for stage, seconds in spent.items() if stage != PROCESS)
        complete &= done.correct and abs(spent[PROCESS] - counted) <= MOST_APART * spent[PROCESS]
    return complete


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.breakdown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--jobs", default="enrich,main", help=f"some of {','.join(JOBS)}")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        home = Path(folder)
        with start_kafka(home / "kafka", progress=say) as broker:
            done = asyncio.run(run(broker.bootstrap, home, given.jobs.split(","), given.events))
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
