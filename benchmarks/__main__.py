"""Measure headrace beside stock Faust, on one broker, in one run.

python -m benchmarks [--events N] [--faust-events N] [--rounds R] [--quick] [--json] [--jobs ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agents.workload import Workload
from benchmarks import report
from benchmarks.cluster import PARTITIONS, Cluster
from benchmarks.rounds import Bench, Plan, Round, load_input
from engine.devbroker import DevBroker, start_kafka

ENGINES = {
    "enrich": ("headrace", "faust"),
    "main": ("headrace",),
    "passthrough": ("headrace", "faust"),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, help="headrace's input (1,000,000)")
    parser.add_argument("--faust-events", type=int, help="Faust's input (30,000)")
    parser.add_argument("--rounds", type=int, help="rounds a job and engine (3)")
    parser.add_argument("--quick", action="store_true", help="a minute: small input, one round")
    parser.add_argument("--json", action="store_true", help="last line: the figures as JSON")
    parser.add_argument("--jobs", default="enrich", help=f"some of {','.join(ENGINES)}")
    parser.add_argument("--no-faust", action="store_true", help="headrace alone")
    parser.add_argument("--save", action="store_true", help="keep JSON and chart in results/")
    given = parser.parse_args()
    defaults = (150_000, 6_000, 1) if given.quick else (1_000_000, 30_000, 3)
    given.events = given.events or defaults[0]
    given.faust_events = given.faust_events or defaults[1]
    given.rounds = given.rounds or defaults[2]
    given.jobs = given.jobs.split(",")
    unknown = set(given.jobs) - set(ENGINES)
    if unknown:
        parser.error(f"unknown jobs: {', '.join(sorted(unknown))}")
    return given


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


async def run(broker: DevBroker, home: Path, given: argparse.Namespace) -> list[Round]:
    """All rounds: the engines in turn, so that what the machine does meanwhile hits both."""
    cluster = Cluster(broker.bootstrap)
    users = 2_000 if given.quick else 10_000
    plan = Plan(Workload(events=given.events, users=users, seed=1), given.faust_events)
    say(f"loading {given.events:,} events and {plan.work.profile_count:,} profiles")
    bench = Bench(cluster, await load_input(cluster, plan), home, say)
    rounds: list[Round] = []
    for job in given.jobs:
        for number in range(given.rounds):
            say(f"{job}, round {number + 1} of {given.rounds}")
            for engine in ENGINES[job]:
                if engine == "faust" and given.no_faust:
                    continue
                done = await bench.round(job, engine)
                say(
                    f"    {done.events_per_second:,.0f} events/s, "
                    f"{done.cpu_seconds_per_million:.1f} CPU s per million, "
                    f"{done.came:,} of {done.expected:,} results; {done.notes}"
                )
                rounds.append(done)
    return rounds


def save(rounds: list[Round], given: argparse.Namespace, broker: str, commit: str) -> None:
    now = datetime.now(UTC)
    name = f"{now:%Y-%m-%d-%H%M}-{commit.rstrip('+')}"
    results = report.HERE / "results"
    results.mkdir(exist_ok=True)
    content = {
        "date": now.isoformat(timespec="seconds"),
        "commit": commit,
        "arguments": {**vars(given), "partitions": PARTITIONS},
        "machine": report.machine(broker),
        "rounds": msgspec.to_builtins(rounds),
    }
    (results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    caption = f"{now:%Y-%m-%d}, commit {commit}, {broker}, {given.rounds} rounds, medians"
    (results / f"{name}.svg").write_text(report.chart(rounds, caption))
    say(f"saved {results / name}.json and .svg")


def main() -> int:
    given = arguments()
    commit = report.commit()  # of what runs, not of what somebody changes meanwhile
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        home = Path(folder)
        with start_kafka(home / "kafka", progress=say) as broker:
            rounds = asyncio.run(run(broker, home, given))
            name = broker.name
    print(report.table(rounds))
    if given.save:
        save(rounds, given, name, commit)
    if given.json:
        print(json.dumps(report.summary(rounds)))
    wrong = [each for each in rounds if each.engine == "headrace" and not each.correct]
    for each in wrong:
        say(f"WRONG: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
