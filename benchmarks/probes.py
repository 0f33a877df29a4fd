"""Measure the coefficients of the scale model, on one local Kafka and real RocksDB.

python -m benchmarks.probes [--seconds S] [--json]

Each figure is what one more partition, position, member or store costs. benchmarks/scale.py has
the values that are in use, and docs/scale.md says from which run they are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from engine.config import make
from engine.devbroker import DevBroker, start_kafka
from engine.edges import Position, Transaction
from engine.kafka.assignor import Group, assignor_for
from engine.kafka.consumer import KafkaSource
from engine.kafka.producer import KafkaOutlet
from engine.record import TP, Output
from engine.torture import observer
from tables.store import Memory, RocksStore

WIDTH = 256
TOUCHED = ((1, 1), (16, 1), (64, 1), (256, 1), (16, 16), (64, 64), (256, 256))
"""Partitions written, and positions committed, by one transaction."""
VALUE = b"v" * 100
TICKS = os.sysconf("SC_CLK_TCK")
STORES = (1, 16, 64, 128)
FAMILIES = ("user-profiles", "sessions", "counts", "unmatched")
MEMBERS = 8


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_kb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def solve(rows: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Fit ``y = a + b * partitions + c * positions``: least squares of the relative errors."""
    normal = [[0.0] * 4 for _ in range(3)]
    for partitions, positions, y in rows:
        x = (1 / y, partitions / y, positions / y)
        for i in range(3):
            for j in range(3):
                normal[i][j] += x[i] * x[j]
            normal[i][3] += x[i]
    for i in range(3):
        for k in range(3):
            if k != i:
                factor = normal[k][i] / normal[i][i]
                normal[k] = [a - factor * b for a, b in zip(normal[k], normal[i], strict=True)]
    found = [normal[i][3] / normal[i][i] for i in range(3)]
    return found[0], found[1], found[2]


class Member:
    """A true member of a group, which reads nothing."""

    def __init__(self, broker: str, name: str, home: Path, topic: str) -> None:
        settings = {
            "id": "probe", "broker": broker, "state_dir": str(home), "instance": name,
            "transaction_timeout_ms": 60_000,
        }  # fmt: skip
        self.config = make(settings)
        assignor = assignor_for([Group((topic,), stateful=False)])
        self.source = KafkaSource(self.config, assignor, name)
        self.topic = topic
        self.assigned = asyncio.Event()
        self.joined_s = 0.0

    async def join(self) -> None:
        began = time.perf_counter()

        async def revoked() -> None:
            self.assigned.clear()

        await self.source.start(
            [self.topic], revoked=revoked, assigned=lambda _: self.assigned.set()
        )
        await self.assigned.wait()
        self.joined_s = time.perf_counter() - began


async def commits(broker: DevBroker, home: Path, for_s: float) -> dict[str, float]:
    """What a transaction takes: latency, and CPU of the worker and of the broker."""
    await observer.create(broker.bootstrap, {"probe-in": {}, "probe-out": {}}, WIDTH)
    member = Member(broker.bootstrap, "committer", home, "probe-in")
    await member.join()
    outlet = KafkaOutlet(member.config, "probe-committer")
    await outlet.open()
    number = 0

    async def some(partitions: int, positions: int, seconds: float) -> tuple[float, ...]:
        nonlocal number
        count, began = 0, time.perf_counter()
        ours, theirs = time.process_time(), cpu_s(broker.pid)
        waited = 0.0
        while time.perf_counter() - began < seconds:
            number += 1
            rows: dict[TP, list[Output]] = {
                TP("probe-out", n): [(b"key", VALUE, 0, ())] for n in range(partitions)
            }
            at = {TP("probe-in", n): Position(number, "") for n in range(positions)}
            start = time.perf_counter()
            await outlet.commit(Transaction(rows, at, member.source.membership()))
            waited += time.perf_counter() - start
            count += 1
            await asyncio.sleep(0.02)  # the markers are written meanwhile, as between two commits
        used = time.process_time() - ours, cpu_s(broker.pid) - theirs
        return 1000 * waited / count, 1000 * used[0] / count, 1000 * used[1] / count

    took, before = await some(*TOUCHED[-1], for_s / 2), None
    while before is None or took[0] < 0.8 * before[0]:  # until the broker's compiler has seen it
        took, before = await some(*TOUCHED[-1], for_s / 2), took
    rows = []
    for partitions, positions in TOUCHED:
        took = await some(partitions, positions, for_s)
        say(
            f"commit of {partitions} partitions, {positions} positions: {took[0]:.2f} ms, "
            f"CPU ms: worker {took[1]:.2f}, broker {took[2]:.2f}"
        )
        rows.append((partitions, positions, took))
    await outlet.close()
    await member.source.close()
    found = {"join_s": member.joined_s}
    for index, name in enumerate(("commit_ms", "worker_cpu_ms", "broker_cpu_ms")):
        fit = solve([(p, q, took[index]) for p, q, took in rows])
        found |= dict(zip((f"{name}", f"{name}_partition", f"{name}_position"), fit, strict=True))
    return found


async def members(broker: DevBroker, home: Path, for_s: float) -> dict[str, float]:
    """What a member that has nothing to do costs the broker: heartbeats, and fetches that wait."""
    topic = "probe-idle"
    await observer.create(broker.bootstrap, {topic: {}}, MEMBERS)
    await asyncio.sleep(6)
    start = cpu_s(broker.pid)
    await asyncio.sleep(for_s)
    alone = (cpu_s(broker.pid) - start) / for_s
    group = [Member(broker.bootstrap, f"m{n}", home, topic) for n in range(MEMBERS)]
    await asyncio.gather(*(member.join() for member in group))
    for member in group:
        for number in range(MEMBERS):
            member.source.seek(TP(topic, number), 0)  # those that it has it fetches from now on
    await asyncio.sleep(3)
    start = cpu_s(broker.pid)
    await asyncio.sleep(for_s)
    together = (cpu_s(broker.pid) - start) / for_s
    for member in group:
        with contextlib.suppress(Exception):
            await member.source.close()
    say(f"broker idle: {1000 * alone:.1f} ms/s; with {MEMBERS} members: {1000 * together:.1f}")
    return {"member_cpu_ms_per_s": 1000 * (together - alone) / MEMBERS}


def assignments() -> dict[str, float]:
    """What the leader of a group takes to assign, and how large the answer is."""
    code = "from benchmarks.probes import assign; print(*assign(1000, 20))"
    took, size = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    return {"assign_us_per_task": 1e6 * float(took) / 1000, "group_bytes_per_task": float(size)}


def assign(tasks: int, count: int) -> tuple[float, float]:
    """Assign tasks of two topics; return seconds, and bytes a task that the group keeps."""
    assignor = assignor_for([Group(("events", "profiles"), stateful=True)])

    class Metadata:
        def partitions_for_topic(self, _: str) -> set[int]:
            return set(range(tasks))

    names = [f"member-{n}" for n in range(count)]
    said = {name: assignor.metadata(["events", "profiles"]) for name in names}
    began = time.perf_counter()
    given = assignor.assign(Metadata(), said)
    took = time.perf_counter() - began
    size = 0
    for each in given.values():
        assignor.on_assignment(each)  # so that it says next time what it has
        size += len(each.encode()) + len(assignor.metadata(["events", "profiles"]).encode())
    return took, size / tasks


def stores(home: Path) -> dict[str, float]:
    """What one more store costs a worker: memory, file descriptors, threads, time to open."""
    memory = Memory()
    held: list[RocksStore] = []
    looks = []
    for count in STORES:
        began, opened = time.perf_counter(), len(held)
        while len(held) < count:
            store = RocksStore(home / f"0_{len(held)}", FAMILIES, memory)
            store.write({name: [(b"key", VALUE)] for name in FAMILIES})
            held.append(store)
        took = (time.perf_counter() - began) / (count - opened)
        gc.collect()
        fds = len(list(Path("/proc/self/fd").iterdir()))
        looks.append((count, rss_kb(), fds, 1000 * took))
        said = f"{count} stores: RSS {rss_kb() / 1024:.1f} MB, {fds} files"
        say(f"{said}, {1000 * took:.1f} ms to open one")
    for store in held:
        store.close()
    (n0, rss0, fds0, _), (n1, rss1, fds1, took) = looks[0], looks[-1]
    return {
        "store_mb": (rss1 - rss0) / (n1 - n0) / 1024,
        "store_files": (fds1 - fds0) / (n1 - n0),
        "store_open_ms": took,
    }


async def on_kafka(broker: DevBroker, home: Path, for_s: float) -> dict[str, float]:
    await asyncio.sleep(0)
    found = await commits(broker, home, for_s)
    return found | await members(broker, home, 2 * for_s)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="for each figure (4)")
    parser.add_argument("--json", action="store_true", help="last line: the figures as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headrace-probes-") as name:
        home = Path(name)
        found: dict[str, Any] = stores(home / "stores") | assignments()
        with (
            start_kafka(home / "kafka") as broker,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found |= runner.run(on_kafka(broker, home, given.seconds))
    found = {what: round(value, 4) for what, value in found.items()}
    for what, value in found.items():
        print(f"{what:28} {value:10.4f}")
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
