"""Measure how fast a task's store is rebuilt from its changelog, on real Kafka and RocksDB.

python -m benchmarks.restore [--entries N] [--rounds R] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from engine import App, recovery
from engine.devbroker import start_kafka
from engine.edges import Edges, Transaction
from engine.kafka import kafka_edges
from engine.metrics import Metrics
from engine.record import TP, Output
from engine.table import TableHandle
from engine.task import Task
from tables.session import Session

CHUNK = 50_000
INPUT = "restore-input"


class Totals(msgspec.Struct, array_like=True):
    """A value of some 40 bytes."""

    count: int
    total: float
    name: str


def make_app(broker: str, home: Path) -> tuple[App, dict[str, TableHandle]]:
    """An app with a table of each kind, each of which is measured alone."""
    app = App("restore", broker=broker, state_dir=str(home), replicas=1)
    source = app.topic(INPUT, key_type=str, value_type=bytes)
    tables: dict[str, TableHandle] = {
        "keyed": app.Table("keyed", key_type=str, value_type=Totals),
        "sessions": app.SessionTable("sessions", gap=1800, grace=300, key_type=str),
    }

    @app.agent(source, tables=list(tables.values()))
    async def nothing(stream: Any) -> None:
        async for _ in stream:
            pass

    return app, tables


def row(kind: str, number: int) -> tuple[bytes, bytes]:
    """One changelog record."""
    key = b"user_%08d" % number
    if kind == "sessions":
        return key, msgspec.msgpack.encode([Session(number, number + 60_000, 7)])
    return key, msgspec.msgpack.encode(Totals(number, number * 1.5, f"name of {number}"))


async def fill(edges: Edges, topic: str, kind: str, entries: int) -> None:
    """Write a changelog, in transactions as a worker does."""
    for start in range(0, entries, CHUNK):
        rows: list[Output] = [
            (*row(kind, number), 0, ()) for number in range(start, min(entries, start + CHUNK))
        ]
        await edges.outlet.commit(Transaction({TP(topic, 0): rows}, {}, None))


async def run(broker: str, home: Path, entries: int, rounds: int) -> dict[str, list[float]]:
    """Return entries per second, by kind of table and round."""
    app, tables = make_app(broker, home)
    part = app.topology().measured({INPUT: 1}).parts[0]
    edges = kafka_edges(app.settings(), [part])
    await edges.outlet.open()
    await edges.admin.create([t.changelog.sized(1) for t in tables.values() if t.changelog])
    rates: dict[str, list[float]] = {}
    for kind, table in tables.items():
        assert table.changelog is not None
        await fill(edges, table.changelog.name, kind, entries)
        alone = msgspec.structs.replace(part, tables=(table,))
        task = Task(alone, 0, edges=edges, metrics=Metrics(), partitions_of=lambda _: 1)
        for number in range(rounds):
            task.store.clear()
            began, cpu = time.perf_counter(), time.process_time()
            restored = await recovery.restore([task], {}, edges, Metrics())
            took = time.perf_counter() - began
            assert restored == entries == len(task.store.scan(table.name)), "entries are missing"
            rates.setdefault(kind, []).append(entries / took)
            used = 1e6 * (time.process_time() - cpu) / entries
            print(
                f"{kind}, round {number + 1}: {entries / took:,.0f} entries/s, "
                f"{used:.2f} CPU us an entry", file=sys.stderr,
            )  # fmt: skip
        await task.close()
    for edge in (edges.outlet, edges.log, edges.admin):
        await edge.close()
    return rates


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="last line: medians as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-restore-") as name:
        home = Path(name)
        (home / "kafka").mkdir()
        with (
            start_kafka(home / "kafka") as broker,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            rates = runner.run(run(broker.bootstrap, home / "state", given.entries, given.rounds))
    medians = {kind: round(statistics.median(each)) for kind, each in rates.items()}
    if given.json:
        print(json.dumps(medians))
        return
    print("| table | entries/s (median, min to max) |\n|---|---:|")
    for kind, each in rates.items():
        print(f"| {kind} | {medians[kind]:,} ({min(each):,.0f} to {max(each):,.0f}) |")


if __name__ == "__main__":
    main()
