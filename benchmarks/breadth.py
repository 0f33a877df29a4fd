"""Measure what many keys and many partitions cost: CPU per event against 10,000 keys, 4 partitions.

Examples:
  python -m benchmarks.breadth                      enrich, 500,000 events, 1 round
  python -m benchmarks.breadth --jobs enrich,main --rounds 3 --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from statistics import median

import msgspec

from agents.workload import Workload
from benchmarks.__main__ import say
from benchmarks.cluster import Cluster
from benchmarks.engines import ENGINES
from benchmarks.inputs import Inputs
from benchmarks.jobs import JOBS
from benchmarks.rounds import Bench, Round
from engine.devbroker import start_kafka


class Case(msgspec.Struct, frozen=True):
    """So many keys in so many partitions, and how much more CPU an event may cost."""

    name: str
    users: int
    partitions: int
    most: float


BASE = Case("10,000 keys, 4 partitions", 10_000, 4, 1.0)
CASES = (
    BASE,
    Case("1,000,000 keys", 1_000_000, 4, 2.0),
    Case("64 partitions", 10_000, 64, 1.2),
)


async def measure(broker: str, home: Path, case: Case, jobs: list[str], events: int) -> list[Round]:
    """One round of each job. The first fifth of the output is left out: profiles are read in it."""
    cluster = Cluster(broker, case.partitions)
    inputs = Inputs(cluster, Workload(events=events, users=case.users, seed=1))
    await inputs.open()
    bench = Bench(cluster, inputs, home, {"headrace": sys.executable}, say)
    engine = msgspec.structs.replace(ENGINES["headrace"], warmed=True)
    return [await bench.round(job, engine, 1.0) for job in jobs]


def table(found: dict[str, list[Round]], jobs: list[str]) -> str:
    """The medians, and the ratios to the first case taken round by round."""
    lines = [
        "| job | case | events/s | CPU s per million | ÷ the first's | at most | RSS | results |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for job in jobs:
        base = [r.cpu_seconds_per_million for r in found[BASE.name] if r.job == job]
        for case in CASES:
            rows = [r for r in found[case.name] if r.job == job]
            cpu = [r.cpu_seconds_per_million for r in rows]
            times = median(one / first for one, first in zip(cpu, base, strict=True))
            lines.append(
                f"| {job} | {case.name} | {median(r.events_per_second for r in rows):,.0f} "
                f"| {median(cpu):.1f} | {times:.2f} | {case.most:g} "
                f"| {max(r.rss_mb for r in rows):.0f} "
                f"| {'exact' if all(r.correct for r in rows) else 'NOT exact'} |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run it; 1 if a result was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.breadth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--jobs", default="enrich", help=f"some of {','.join(JOBS)}")
    parser.add_argument("--json", action="store_true", help="last line: every round as JSON")
    given = parser.parse_args()
    jobs = given.jobs.split(",")
    found: dict[str, list[Round]] = {}
    for _ in range(given.rounds):
        for case in CASES:
            say(case.name)
            with tempfile.TemporaryDirectory(prefix="headrace-breadth-") as folder:
                home = Path(folder)
                with start_kafka(home / "kafka", progress=say) as broker:
                    rounds = asyncio.run(measure(broker.bootstrap, home, case, jobs, given.events))
            found.setdefault(case.name, []).extend(rounds)
    print(table(found, jobs))
    if given.json:
        print(json.dumps(msgspec.to_builtins(found)))
    return 0 if all(each.correct for rows in found.values() for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
