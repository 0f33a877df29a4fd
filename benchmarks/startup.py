"""Measure how long a worker takes from its command to its first result, on Kafka, part by part.

python -m benchmarks.startup [--rounds R] [--json]

The input is there before; the topics are created by the first worker that needs them. Each round is
a group, a state directory and outputs of its own; ``again`` is the same worker once more, on the
state that it left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agents.workload import Workload
from benchmarks.cluster import Cluster, Watermark
from engine.devbroker import start_kafka
from engine.tether import Tether

ROOT = Path(__file__).parents[1]
INPUTS = ("raw-events", "user-profiles")
OUTPUT = "enriched-events"
EVENTS = 20_000
LOOK_S = 0.005
PATIENT_S = 30.0
SIGNS = {"said what it runs": "agents ", "has tasks": "new tasks"}
"""What a worker's log has when it is so far."""


def said(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""


async def watch(broker: str, home: Path, group: str, log: Path) -> dict[str, float]:
    """Start a worker; return when (s) each part was over. It is stopped in good order."""
    environ = {
        **os.environ,
        "BENCH_GROUP": group,
        "PYTHONPATH": str(ROOT),
        "HEADRACE_BROKER": broker,
        "HEADRACE_STATE_DIR": str(home),
        "HEADRACE_PARTITIONS": "4",
    }
    argv = [sys.executable, "-m", "engine.cli", "worker", "benchmarks.replica_app"]
    found: dict[str, float] = {}
    async with Watermark(broker, OUTPUT) as mark:
        before = await mark.now()
        began = time.perf_counter()
        worker = Tether(argv, directory=ROOT, log_path=log, environ=environ)
        try:
            while "first result" not in found:
                now = time.perf_counter() - began
                told = said(log)
                for what, sign in SIGNS.items():
                    if what not in found and sign in told:
                        found[what] = now
                if await mark.now() > before:
                    found["first result"] = time.perf_counter() - began
                if now > PATIENT_S or worker.exit_code is not None:
                    raise RuntimeError(told[-3000:])
                await asyncio.sleep(LOOK_S)
        finally:
            worker.stop(20)
    return found


def imports() -> float:
    """How long a process takes that only imports what a worker does."""
    code = "import agents, engine.kafka, engine.loop, engine.cli.running"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - began


async def run(broker: str, home: Path, rounds: int) -> dict[str, list[float]]:
    cluster = Cluster(broker)
    work = Workload(events=EVENTS, users=500, seed=1)
    await cluster.create(*INPUTS, OUTPUT)
    await cluster.load("user-profiles", work.profiles())
    await cluster.load("raw-events", work.raw_events())
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        found.setdefault("imports alone", []).append(await asyncio.to_thread(imports))
        for kind in ("new", "again"):
            if kind == "again":
                await cluster.load("raw-events", work.raw_events())
            state, log = home / f"state-{number}", home / f"{number}-{kind}.log"
            parts = await watch(broker, state, f"startup-{number}", log)
            for what, at in parts.items():
                found.setdefault(f"{kind}: {what}", []).append(at)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="last line: medians as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-startup-") as name:
        home = Path(name)
        with start_kafka(home / "kafka") as broker:
            found = asyncio.run(run(broker.bootstrap, home, given.rounds))
    print("| from the command until | s (median, min to max) |\n|---|---:|")
    for what, each in found.items():
        print(f"| {what} | {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) |")
    if given.json:
        print(json.dumps({what: statistics.median(each) for what, each in found.items()}))


if __name__ == "__main__":
    main()
