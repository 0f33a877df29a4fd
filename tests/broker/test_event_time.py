"""Event time on a real broker: a topic that falls silent, a late event, one from next week."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from engine import App, Contract, config
from engine.connect.loader import Loader
from engine.devbroker import DevBroker
from engine.kafka.log import KafkaLog
from engine.record import TP
from tests.broker.inside import now_ms, until, worker

pytestmark = pytest.mark.broker

DAY_MS = 86_400_000
TOPICS = ("tick-counts", "tick-late", "ticks-dlq")


class Tick(msgspec.Struct):
    """Something with a time of its own."""

    at: int


def make() -> App:
    """Return an app that counts ticks in windows of 2 s, which close after 1 s of silence."""
    app = App("ticks-app")
    contract = Contract.of("ticks", Tick, key_type=str, event_time="at")
    ticks = app.topic("ticks", contract=contract, partitions=1)
    late = app.topic("tick-late", contract=contract, partitions=1)
    sink = app.topic("tick-counts", key_type=str, value_type=int, partitions=1)
    counts = app.Table("ticks", default=int, key_type=str, value_type=int).tumbling(
        2, delay=1, idle="1s", late=late, sink=sink
    )

    @app.agent(ticks)
    async def count(stream):
        async for event in stream.events():
            counts[event.key] += 1

    return app


async def trial(bootstrap: str, home: Path) -> dict[str, list[tuple[bytes | None, bytes | None]]]:
    """Send ticks, wait until everything is out without another one, and return what there is."""
    app = make()
    settings = config.make({"id": "ticks-reader", "broker": bootstrap})
    now = now_ms()
    start = now - now % 2000 - 60_000
    times = [start, start + 1, start + 7 * DAY_MS, start + 3_100, start + 2]
    log = KafkaLog(settings)
    seen: dict[str, list[tuple[bytes | None, bytes | None]]] = {name: [] for name in TOPICS}

    async def read() -> None:
        while True:
            known = await log.bounds([TP(name, 0) for name in TOPICS])
            for tp, span in known.items():
                rows = [
                    row
                    async for batch in log.read({tp: span})
                    for row in zip(batch.keys, batch.values, strict=True)
                ]
                seen[tp.topic] = rows
            await asyncio.sleep(0.2)

    try:
        async with worker(app, bootstrap, home) as inside:
            await inside.until(inside.engine.ready.is_set, "the worker has no tasks")
            async with Loader(settings) as loader:
                rows = [(b"k", b'{"at":%d}' % at, now) for at in times]
                await loader.load("ticks", 1, rows)
            reading = asyncio.create_task(read())
            await until(lambda: len(seen["tick-counts"]) == 2, "two windows have closed")
            await inside.until_committed(ticks=len(times))
            await asyncio.sleep(2)  # in which nothing more comes
            reading.cancel()
    finally:
        await log.close()
    return seen


def test_a_silent_topic_is_counted_and_a_broken_clock_is_refused(
    kafka: DevBroker, tmp_path: Path
) -> None:
    """The second window closes though no tick comes after it; next week's closes none."""
    seen = asyncio.run(trial(kafka.bootstrap, tmp_path))
    assert seen["tick-counts"] == [(b"k", b"2"), (b"k", b"1")]
    assert [len(seen["tick-late"]), len(seen["ticks-dlq"])] == [1, 1]
