"""Where the time of an event goes: each stage of the main job by itself, without Kafka.

python -m benchmarks.stages [--events N] [--repeats R]

One task of four, as a worker of the main job has it, on a real RocksDB. CPU microseconds per input
event, the best of the repeats; the stages of a worker's round add up to what it can do at most,
without connections, transactions and the loop itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop
from aiokafka.record.memory_records import MemoryRecords

from agents import app, count_events, enrich, sessionize
from agents.contracts import RAW_EVENTS, USER_PROFILES
from agents.workload import Workload
from engine import Stream
from engine.agent import Agent
from engine.clock import SystemClock
from engine.kafka.records import CODECS, encode_batches, read_columns
from engine.metrics import Metrics
from engine.partitioner import partitioner_for
from engine.record import TP, Batch, Output
from engine.task import Task, TaskCut
from engine.testing.memory import MemoryBroker, memory_edges
from engine.topology import build
from engine.tuning import ROUND_RECORDS
from tables.store import Memory, RocksStore

PARTITIONS = 4
FETCHED = 4_000
"""Records of one fetch of one partition (about 1 MiB)."""
BETWEEN_CUTS = 1_000
"""What a task does in 100 ms while its worker does 40,000 a second."""
SHARE = ROUND_RECORDS // PARTITIONS
HOME = TP(RAW_EVENTS.name, 0)

Times = dict[str, float]


async def nothing(events: Stream) -> None:
    async for _ in events:
        pass


class Bench:
    """The input of one task, and the ways to time what is done to it."""

    def __init__(self, events: int, home: Path) -> None:
        place = partitioner_for(PARTITIONS)
        work = Workload(events=events * PARTITIONS, users=10_000, seed=1)
        mine = [row for row in work.raw_events() if row[0] is not None and place[row[0]] == 0]
        rows: list[Output] = [(key, value, at, ()) for key, value, at in mine]
        self.events = len(rows)
        self.profiles = [row for row in work.profiles() if place[row[0]] == 0]
        self.fetches = [
            [part.data for part in encode_batches(rows[at : at + FETCHED], CODECS["zstd"])]
            for at in range(0, len(rows), FETCHED)
        ]
        self.batches = list(placed(batch for fetch in self.fetches for batch in columns(fetch)))
        self._home = home
        self._tasks = 0

    def read(self) -> Times:
        began = time.process_time()
        for fetch in self.fetches:
            list(columns(fetch))
        return {"read columns": time.process_time() - began}

    def task(self, agents: list[Agent]) -> Task:
        """A task with these agents, its profiles loaded."""
        self._tasks += 1
        path = self._home / str(self._tasks)
        broker = MemoryBroker(PARTITIONS)
        for topic in (RAW_EVENTS, USER_PROFILES):
            broker.create(topic.name)
        edges = memory_edges(broker, SystemClock())._replace(
            open_store=lambda name, families: RocksStore(path / name, families, Memory())
        )
        topology = build("stages", agents, app.declared_tables.values())
        part = topology.measured(dict.fromkeys(topology.inputs, PARTITIONS)).parts[0]
        task = Task(part, 0, edges=edges, metrics=Metrics(), partitions_of=lambda _: PARTITIONS)
        task.start({})
        if "user-profiles" in task.tables:
            profiles = task.tables["user-profiles"]
            for key, value, _ in self.profiles:
                profiles.put_raw(key.decode(), USER_PROFILES.contract.decode(value), value)
        return task

    async def work(self, agents: list[Agent]) -> Times:
        """Give a task all events; time the agents, and the three parts of each commit."""
        task = self.task(agents)
        spent = dict.fromkeys(("decode", "agents", "cut", "encode batches", "store"), 0.0)
        await asyncio.sleep(0)  # the agents go to their loops
        commit(task, {})
        since = handed = 0
        for batch in self.batches:
            task.receive(batch)
            left = True
            while left:
                began = time.process_time()
                share = task.advance(SHARE)
                handed_over = time.process_time()
                await asyncio.sleep(0)
                spent["decode"] += handed_over - began
                spent["agents"] += time.process_time() - handed_over
                since, handed = since + share, handed + share
                left = not task.idle()
                if since >= BETWEEN_CUTS and task.at_boundary():
                    commit(task, spent)
                    since = 0
        commit(task, spent)
        assert handed >= self.events * 0.98, f"{handed} of {self.events} events were worked on"
        await task.close()
        return spent


def placed(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Give the batches the offsets of one partition: as encoded, each begins at 0."""
    start = 0
    for batch in batches:
        batch.offsets = list(range(start, start + len(batch)))
        batch.next_offset = start = start + len(batch)
        yield batch


def columns(fetch: list[bytes]) -> Iterator[Batch]:
    for data in fetch:
        fetched = SimpleNamespace(
            _records=MemoryRecords(data), _aborted_transactions=[], next_fetch_offset=0
        )
        yield read_columns(HOME, fetched)


def commit(task: Task, spent: Times) -> None:
    """Do what a commit does, but for the broker."""

    def took(what: str, began: float) -> None:
        spent[what] = spent.get(what, 0.0) + time.process_time() - began

    began = time.process_time()
    cut = task.cut()
    took("cut", began)
    if cut is None:
        return
    began = time.process_time()
    for rows in outputs(cut):
        encode_batches(rows, CODECS["zstd"], producer=(1, 1), transactional=True)
    took("encode batches", began)
    began = time.process_time()
    task.committed(cut, dict.fromkeys(cut.changelogs, 1))
    took("store", began)


def outputs(cut: TaskCut) -> Iterator[list[Output]]:
    yield from cut.rows.values()
    yield from cut.changelogs.values()


async def measure(events: int, repeats: int) -> list[tuple[str, float, str]]:
    """Rows of (stage, microseconds per event, remark)."""
    idle = Agent(nothing, [RAW_EVENTS])
    best: Times = {}
    alone = {"feed": [idle], "enrich": [enrich], "sessions": [sessionize], "counts": [count_events]}

    def keep(times: dict[str, Any]) -> None:
        for stage, seconds in times.items():
            best[stage] = min(best.get(stage, 1e9), seconds)

    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="headrace-stages-") as folder:
            bench = Bench(events, Path(folder))
            keep(bench.read())
            for name, agents in alone.items():
                times = await bench.work(agents)
                keep({f"{name} {part}": seconds for part, seconds in times.items()})
            keep(await bench.work([enrich, sessionize, count_events]))
    us = {stage: seconds / bench.events * 1e6 for stage, seconds in best.items()}
    feed = us["feed agents"]
    return [
        ("read columns", us["read columns"], "record batches to lists"),
        ("decode and check", us["decode"], "all three agents: some hundreds at a time"),
        ("feed", feed, "an agent that does nothing: inbox, hand-over, iteration"),
        ("enrich agent", us["enrich agents"] - feed, "beyond the feed; its output encoded"),
        ("sessions agent", us["sessions agents"] - feed, "beyond the feed"),
        ("counts agent", us["counts agents"] - feed, "beyond the feed"),
        ("all three agents", us["agents"], "fed together"),
        ("cut", us["cut"], f"all three, every {BETWEEN_CUTS:,} events"),
        ("encode batches", us["encode batches"], "outputs and changelogs, zstd"),
        ("store", us["store"], "one WriteBatch a commit"),
        *(
            (f"{part}, enrich alone", us[f"enrich {part}"], "")
            for part in ("cut", "encode batches", "store")
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__)
    parser.add_argument("--events", type=int, default=40_000, help="events of the task")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    gc.set_threshold(app.settings().collect_after, 20, 50)  # as Engine.run does
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure(given.events, given.repeats))
    print("| stage | us per event | what |\n|---|---:|---|")
    for stage, us, what in rows:
        print(f"| {stage} | {us:.2f} | {what} |")
    names = (
        "read columns",
        "decode and check",
        "all three agents",
        "cut",
        "encode batches",
        "store",
    )
    whole = sum(us for stage, us, _ in rows if stage in names)
    print(f"| **main job, added up** | **{whole:.2f}** | at most {1e6 / whole:,.0f} events/s |")


if __name__ == "__main__":
    main()
