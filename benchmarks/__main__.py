"""Measure headrace beside other engines, on one broker, in one run.

Examples:
  python -m benchmarks                                    all jobs, all engines, 3 rounds
  python -m benchmarks --quick --json                     headrace, Kafka Streams, Faust; minutes
  python -m benchmarks --jobs sessions --rounds 5 --save  one job; JSON and chart in results/
  python -m benchmarks --engines headrace,quix --jobs enrich
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
from benchmarks.engines import ENGINES, QUICK, Unavailable
from benchmarks.inputs import HEADRACE, Inputs
from benchmarks.jobs import JOBS
from benchmarks.rounds import Bench, Round
from engine.devbroker import DevBroker, start_kafka

EVENTS = (1_000_000, 150_000)
USERS = (10_000, 2_000)
ROUNDS = (3, 1)
"""Whole, and quick."""


class Options(msgspec.Struct):
    """What the command line says."""

    events: int
    users: int
    rounds: int
    jobs: list[str]
    engines: list[str]
    quick: bool
    json: bool
    save: bool


def options(words: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, help="size of the input (1,000,000)")
    parser.add_argument("--users", type=int, help="number of keys (10,000)")
    parser.add_argument("--rounds", type=int, help="rounds of each job and engine (3)")
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"some of {','.join(JOBS)}")
    parser.add_argument("--engines", help=f"some of {','.join(ENGINES)}")
    parser.add_argument(
        "--quick", action="store_true", help=f"a few minutes: less input, one round, {QUICK}"
    )
    parser.add_argument("--json", action="store_true", help="last line: the figures as JSON")
    parser.add_argument("--save", action="store_true", help="keep JSON and chart in results/")
    given = parser.parse_args(words)
    engines = given.engines.split(",") if given.engines else list(QUICK if given.quick else ENGINES)
    jobs = given.jobs.split(",")
    for kind, names, known in (("jobs", jobs, JOBS), ("engines", engines, ENGINES)):
        unknown = set(names) - set(known)
        if unknown:
            parser.error(f"unknown {kind}: {', '.join(sorted(unknown))}")
    return Options(
        given.events or EVENTS[given.quick],
        given.users or USERS[given.quick],
        given.rounds or ROUNDS[given.quick],
        jobs,
        engines,
        given.quick,
        given.json,
        given.save,
    )


def say(text: str) -> None:
    """Tell what goes on."""
    print(text, file=sys.stderr, flush=True)


def prepare(names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Build what the engines need; return that, and why some cannot run."""
    ready: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            ready[name] = ENGINES[name].prepare(say)
        except Unavailable as reason:
            skipped[name] = str(reason)
            say(f"{name} is skipped: {reason}")
    return ready, skipped


async def run(
    broker: DevBroker,
    home: Path,
    given: Options,
    prepared: dict[str, str],
    skipped: dict[str, str],
) -> list[Round]:
    """All rounds: the engines in turn, so that what the machine does meanwhile hits all.

    A peer that fails goes on into ``skipped``, with its reason.
    """
    cluster = Cluster(broker.bootstrap)
    inputs = Inputs(cluster, Workload(events=given.events, users=given.users, seed=1))
    await inputs.open()
    bench = Bench(cluster, inputs, home, prepared, say)
    rounds: list[Round] = []
    for job in given.jobs:
        for number in range(given.rounds):
            say(f"{job}, round {number + 1} of {given.rounds}")
            for engine in (ENGINES[name] for name in prepared):
                if job not in engine.jobs:
                    continue
                share = engine.quick_share if given.quick else engine.share
                try:
                    done = await bench.round(job, engine, share)
                except RuntimeError as error:
                    if engine.name == HEADRACE:
                        raise
                    skipped[f"{engine.name} on {job}"] = str(error)
                    say(f"    failed: {error}")
                    continue
                say(
                    f"    {done.events_per_second:,.0f} events/s, "
                    f"{done.cpu_seconds_per_million:.1f} CPU s per million, "
                    f"{done.came:,} of {done.expected:,} results "
                    f"{'right' if done.correct else 'NOT right'}; {done.notes}"
                )
                rounds.append(done)
    return rounds


def save(rounds: list[Round], given: Options, broker: str, commit: str) -> None:
    """Keep the rounds and a chart of them."""
    now = datetime.now(UTC)
    name = f"{now:%Y-%m-%d-%H%M}-{commit.rstrip('+')}"
    results = report.HERE / "results"
    results.mkdir(exist_ok=True)
    content = {
        "date": now.isoformat(timespec="seconds"),
        "commit": commit,
        "arguments": {**msgspec.structs.asdict(given), "partitions": PARTITIONS},
        "machine": report.machine(broker),
        "rounds": msgspec.to_builtins(rounds),
    }
    (results / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
    caption = f"{now:%Y-%m-%d}, commit {commit}, {broker}, {given.rounds} rounds, medians"
    (results / f"{name}.svg").write_text(report.chart(rounds, caption))
    say(f"saved {results / name}.json and .svg")


def main() -> int:
    """Run it; 1 if one of headrace's results was wrong."""
    given = options()
    commit = report.commit()  # of what runs, not of what somebody changes meanwhile
    prepared, skipped = prepare(given.engines)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        home = Path(folder)
        with start_kafka(home / "kafka", progress=say) as broker:
            rounds = asyncio.run(run(broker, home, given, prepared, skipped))
            name = broker.name
    print(report.table(rounds, skipped))
    if given.save:
        save(rounds, given, name, commit)
    if given.json:
        print(json.dumps(report.summary(rounds)))
    wrong = [each for each in rounds if each.engine == HEADRACE and not each.correct]
    for each in wrong:
        say(f"WRONG: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
