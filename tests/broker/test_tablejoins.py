"""Global tables and foreign-key joins on real Kafka: topics of several widths, workers that die."""

import asyncio
import random
import uuid
from pathlib import Path

import msgspec
import pytest

from engine import App
from engine.devbroker import DevBroker
from engine.torture import observer
from tests.broker import inside
from tests.broker.fleet import Fleet
from tests.broker.inside import now_ms

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

COMPACT = {"cleanup.policy": "compact"}


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


async def test_a_global_table_is_whole_before_the_first_event_and_follows_its_topic(
    kafka: DevBroker, tmp_path: Path, name: str
) -> None:
    broker = kafka.bootstrap
    await observer.create(broker, {f"{name}-in": {}}, 2)
    await observer.create(broker, {f"{name}-names": COMPACT}, 5)

    def job() -> App:
        app = App(name, commit_interval_ms=50)
        numbers = app.topic(f"{name}-in", value_type=int, key_type=str)
        out = app.topic(f"{name}-out", value_type=str, key_type=str)
        source = app.topic(f"{name}-names", value_type=str, key_type=str, compacting=True)
        names = app.GlobalTable("names", source=source)

        @app.agent(numbers, sink=[out])
        async def tell(stream):
            async for number in stream:
                yield names.get(f"n{number}", "?")

        return app

    async def put(topic: str, partitions: int, **records: bytes | None) -> None:
        rows = [(key.encode(), value, now_ms()) for key, value in records.items()]
        await observer.produce(broker, f"{name}-{topic}", rows, partitions)

    async def answers(numbers: list[int], worker: inside.Inside) -> list[str]:
        """Send numbers; return what has come out for them, in the numbers' order."""
        before = await seen()
        await put("in", 2, **{f"k{number}": b"%d" % number for number in numbers})
        while len(rows := await seen()) < len(before) + len(numbers):
            assert not worker.work.done()
            await asyncio.sleep(0.1)
        return [rows[f"k{number}".encode()] for number in numbers]

    async def seen() -> dict[bytes | None, str]:
        topics = await observer.observe(broker, [f"{name}-out"])
        rows = topics.topics[f"{name}-out"]
        return {row.key: (row.value or b"").decode() for row in rows}

    await put("names", 5, **{f"n{n}": b"name %d" % n for n in range(200)})
    async with inside.worker(job(), broker, tmp_path, partitions=2) as worker:
        await worker.until(worker.engine.ready.is_set, "no tasks")
        assert await answers([*range(50)], worker) == [f"name {n}" for n in range(50)]
        await put("names", 5, n60=b"changed", n61=None)
        table = worker.engine.world.tables["names"]
        await worker.until(lambda: table.get("n61") is None, "the table does not follow")
        await worker.until(lambda: table.get("n60") == "changed", "the table does not follow")
        assert await answers([60, 61], worker) == ["changed", "?"]
    await put("names", 5, n70=b"while away")
    async with inside.worker(job(), broker, tmp_path, partitions=2) as worker:
        await worker.until(worker.engine.ready.is_set, "no tasks")
        assert await answers([70, 71], worker) == ["while away", "name 71"]
        assert worker.engine.metrics.totals["restored"] < 50, "it is read from where it was"


async def test_a_foreign_key_join_ends_with_the_join_though_workers_are_killed(
    kafka: DevBroker, tmp_path: Path, name: str
) -> None:
    broker, rng = kafka.bootstrap, random.Random(5)
    await observer.create(broker, {f"{name}-left": COMPACT, f"{name}-out": COMPACT}, 3)
    await observer.create(broker, {f"{name}-right": COMPACT}, 4)
    left: dict[bytes, bytes | None] = {}
    right: dict[bytes, bytes | None] = {}
    usual = {"commit_interval_ms": "50", "session_timeout_ms": "2000", "id": name}

    async def change() -> None:
        lefts, rights = [], []
        for _ in range(400):
            key = b"l%d" % rng.randrange(60)
            left[key] = rng.choice([None, *(b"r%d" % n for n in range(20))])
            lefts.append((key, left[key], now_ms()))
            key = b"r%d" % rng.randrange(20)
            right[key] = rng.choice([None, b"%d" % rng.randrange(1000)])
            rights.append((key, right[key], now_ms()))
        await observer.produce(broker, f"{name}-left", lefts, 3)
        await observer.produce(broker, f"{name}-right", rights, 4)

    def expected() -> dict[bytes, bytes]:
        joined = {key: (value, right.get(value or b"")) for key, value in left.items()}
        return {
            key: msgspec.json.encode([value.decode(), partner.decode()])
            for key, (value, partner) in joined.items()
            if value is not None and partner is not None
        }

    async def shown() -> dict[bytes, bytes]:
        seen = await observer.observe(broker, [f"{name}-out"])
        return {key: value for (_, key), value in seen.latest(f"{name}-out").items()}

    with Fleet(tmp_path, broker, usual) as fleet:
        for worker in ("one", "two"):
            fleet.start(worker, "tests.broker.foreign")
        for killed in ("one", "two", ""):
            await change()
            await asyncio.sleep(2)  # some of it is done by then, and some is not
            if killed:
                fleet.kill(killed)
                fleet.start(killed, "tests.broker.foreign")
        async with asyncio.timeout(60):
            while await shown() != expected() or not expected():
                fleet.check()
                await asyncio.sleep(0.5)
        await asyncio.sleep(1)
        assert await shown() == expected()
