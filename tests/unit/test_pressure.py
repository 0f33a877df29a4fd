"""Memory is bounded: by a slow broker, by a slow sink, by large records, by a million keys."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import App
from engine.config import make
from engine.testing import Driver

ROOT = Path(__file__).parents[2]

BURST = """
import asyncio, resource, sys
from pathlib import Path
from engine import App
from engine.clock import SystemClock
from engine.loop import Engine
from engine.record import TP, Batch
from engine.testing.memory import MemoryBroker, MemoryOutlet, MemorySource, memory_edges
from tables.store import Memory, RocksStore

KEYS, BATCH, IN = 1_000_000, 5_000, TP("in", 0)

class Burst(MemorySource):
    async def poll(self, timeout_ms, *, full):
        at = self._at.get(IN)
        if at is None or IN in full or at >= KEYS:
            await asyncio.sleep(0.002)
            return []
        batch = Batch(IN, at + BATCH)
        batch.offsets = list(range(at, at + BATCH))
        batch.keys = [b"%09d" % n for n in batch.offsets]
        batch.values = [b'"%0100d"' % n for n in batch.offsets]
        batch.timestamps = [n for n in batch.offsets]
        batch.headers = [()] * BATCH
        self._at[IN] = at + BATCH
        return [batch]

    def end(self, tp):
        return KEYS

class Slow(MemoryOutlet):
    rows = 0

    async def commit(self, transaction):
        await asyncio.sleep(0.2)
        self.rows += sum(map(len, transaction.rows.values()))
        self._broker.committed |= transaction.positions
        if transaction.positions[IN].offset >= KEYS:
            engine.stop()
        return {tp: 1 for tp in transaction.rows}

app = App("burst", collect_after=0)
texts = app.table("texts", key_type=str, value_type=str)

@app.agent(app.topic("in", value_type=str, key_type=str), sink=[app.topic("out", value_type=str)])
async def keep(stream):
    async for key, text in stream.items():
        texts[key] = text
        yield text

broker = MemoryBroker()
outlet = Slow(broker)
memory = Memory(cache_bytes=8 << 20, write_buffer_bytes=16 << 20)
edges = memory_edges(broker, SystemClock())._replace(
    source=Burst(broker), outlet=outlet,
    open_store=lambda task, families: RocksStore(Path(sys.argv[1]) / task, families, memory),
)
settings = dict(pair.split("=") for pair in sys.argv[2:])
engine = Engine(app.settings(**settings), app.topology(), edges)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(engine.run())
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(outlet.rows, (after - before) // 1024)
"""


def burst(path, **settings):
    """Return how many rows were sent, and by how many MB the process has grown at most."""
    done = subprocess.run(
        [sys.executable, "-c", BURST, str(path), *(f"{k}={v}" for k, v in settings.items())],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows, grown = done.stdout.split()
    return int(rows), int(grown)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_burst_of_a_million_keys_at_a_slow_broker_stays_within_bounds(tmp_path):
    """Each key dirties an entry, a changelog record and an output; each commit takes 0.2 s."""
    rows, grown = burst(tmp_path, memory_bytes=64 << 20)
    assert rows == 2_000_000
    assert grown < 150


def test_large_records_make_a_commit_due_before_many_are_done():
    """It goes by bytes, and not only by records and time."""
    app = App("large", commit_interval_ms=10_000, memory_bytes=16 << 20)
    texts = app.topic("texts", value_type=bytes)

    @app.agent(texts, sink=[app.topic("out", value_type=bytes)])
    async def echo(stream):
        async for text in stream:
            yield text

    with Driver(app) as driver:
        for _ in range(40):
            driver.broker.produce("texts", None, b"x" * 100_000, 0)

        async def work():
            for _ in range(400):
                await driver._engine.step()

        engine = driver._engine
        engine.checkpoint.last_ms = driver.clock.elapsed_ms()
        driver._run(work())
        assert len(driver.raw("out")) > 20  # no time has passed
        driver.settle()
        assert len(driver.raw("out")) == 40


def test_a_slow_sink_holds_up_its_own_task_only():
    """The partition whose sink does not return is not read on; the other one is."""
    app = App("sinks", inbox_records=100)
    numbers = app.topic("numbers", value_type=int)
    arrived, gate = [], []

    async def slow(number):
        if number < 0:
            await gate[0].wait()
        arrived.append(number)

    @app.agent(numbers, sink=[slow])
    async def pass_on(stream):
        async for number in stream:
            yield number

    async def work(driver):
        gate.append(asyncio.Event())
        engine = driver._engine
        for round_number in range(60):
            for _ in range(20):
                driver.broker.produce("numbers", None, b"-1", 0, partition=0)
                driver.broker.produce("numbers", None, b"%d" % round_number, 0, partition=1)
            await engine.step()
        held = {tp.partition: each.records for task in engine.assignment.working()
                for tp, each in task.inbox.inputs.items()}  # fmt: skip
        assert 100 <= held[0] < 200
        assert held[1] < 100
        assert len(arrived) > 1000
        gate[0].set()

    with Driver(app, partitions=2) as driver:
        driver._run(work(driver))
        driver.settle()
        assert len(arrived) == 2400


def test_the_memory_has_a_bound_of_its_own():
    assert make({"id": "x", "memory_bytes": 32 << 20}, {}).memory_bytes == 32 << 20
