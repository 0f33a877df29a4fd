"""Topics of real Kafka that change behind a worker's back: nothing is skipped in silence."""

import asyncio
import uuid
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from engine import App
from engine.devbroker import DevBroker
from engine.torture import observer
from tests.broker import inside
from tests.broker.inside import now_ms, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


def job(name: str, *, stateful: bool = True) -> App:
    """Echoes numbers, and keeps their sum by key."""
    app = App(name, commit_interval_ms=50)
    numbers = app.topic(f"{name}-in", value_type=int, key_type=str)
    total = app.Table("total", default=int, key_type=str)

    @app.agent(numbers, sink=[app.topic(f"{name}-out", value_type=int)])
    async def echo(stream):
        async for key, number in stream.items():
            if stateful:
                total[key] += number
            yield number

    if not stateful:
        del app.declared_tables["total"]
    return app


class Topics:
    """Puts records in, and does to topics what operators and retention do."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap = bootstrap
        self.name = name
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> "Topics":
        await self._admin.start()
        await observer.create(self.bootstrap, {f"{self.name}-in": {}}, 1)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def put(self, *numbers: int, partitions: int = 1, key: bytes | None = b"k") -> None:
        records = [(key or b"%d" % number, b"%d" % number, now_ms()) for number in numbers]
        await observer.produce(self.bootstrap, f"{self.name}-in", records, partitions)

    async def lose(self, before: int) -> None:
        """Delete what retention would."""
        tp = TopicPartition(f"{self.name}-in", 0)
        await self._admin.delete_records({tp: RecordsToDelete(before)})

    async def create_anew(self, topic: str, **settings: str) -> None:
        await self._admin.delete_topics([topic])
        while topic in await self._admin.list_topics():
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        await observer.create(self.bootstrap, {topic: settings}, 1)

    async def grow(self, count: int) -> None:
        await self._admin.create_partitions({f"{self.name}-in": NewPartitions(count)})

    async def out(self) -> list[int]:
        seen = await observer.observe(self.bootstrap, [f"{self.name}-out"])
        return [int(record.value) for record in seen.topics[f"{self.name}-out"]]


@pytest.fixture
def name() -> str:
    return f"gaps-{uuid.uuid4().hex[:6]}"


async def test_a_group_that_retention_overtakes_stops_or_goes_on_as_it_is_told(
    kafka: DevBroker, tmp_path: Path, name: str
) -> None:
    """While it was away, and while it works."""
    async with Topics(kafka.bootstrap, name) as topics:
        await topics.put(*range(10))
        async with inside.worker(job(name), kafka.bootstrap, tmp_path, partitions=1) as worker:
            await worker.until_committed(**{f"{name}-in": 10})
        await topics.put(*range(10, 20))
        await topics.lose(15)
        async with inside.worker(job(name), kafka.bootstrap, tmp_path, partitions=1) as worker:
            await worker.until(worker.parked, "nothing is stopped")
            wanted = f"{name}-in[0] begins at offset 15, but the group has only read up to 10: 5"
            assert wanted in worker.parked()[0]
        assert await topics.out() == list(range(10))
        async with inside.worker(
            job(name), kafka.bootstrap, tmp_path, partitions=1, on_lost_input="continue"
        ) as worker:
            await worker.until_committed(**{f"{name}-in": 20})
            task = worker.engine.assignment.working()[0]
            # at work, its position moved to where there is nothing any more
            await topics.put(*range(20, 30))
            await worker.until_committed(**{f"{name}-in": 30})
            worker.engine.edges.source.seek(next(iter(task.inbox.inputs)), 3)
            await topics.put(30)
            await worker.until_committed(**{f"{name}-in": 31})
        assert await topics.out() == [*range(10), *range(15, 31)]


async def test_a_changelog_that_was_created_anew_is_believed_and_the_store_is_not(
    kafka: DevBroker, tmp_path: Path, name: str
) -> None:
    """It has more records than the old one had: its id tells that they are others."""
    async with Topics(kafka.bootstrap, name) as topics:
        await topics.put(*range(10))
        async with inside.worker(job(name), kafka.bootstrap, tmp_path, partitions=1) as worker:
            await worker.until_committed(**{f"{name}-in": 10})
            table = worker.engine.assignment.working()[0].tables["total"]
            assert dict(table.items()) == {"k": 45}
        changelog = f"{name}-total-changelog"
        await topics.create_anew(changelog, **{"cleanup.policy": "compact"})
        records = [(b"other", b"\x07", now_ms())] * 40
        await observer.produce(kafka.bootstrap, changelog, records, 1)
        async with inside.worker(job(name), kafka.bootstrap, tmp_path, partitions=1) as worker:
            await worker.until(worker.engine.ready.is_set, "no tasks")
            await until(worker.engine.assignment.working, "the task does not come up")
            table = worker.engine.assignment.working()[0].tables["total"]
            assert dict(table.items()) == {"other": 7}


@pytest.mark.parametrize("stateful", [False, True])
async def test_partitions_that_are_added_are_read_or_refused(
    kafka: DevBroker, tmp_path: Path, name: str, *, stateful: bool
) -> None:
    """A job without tables takes them up; one with tables says why it cannot."""
    async with Topics(kafka.bootstrap, name) as topics:
        await topics.put(*range(10))
        app = job(name, stateful=stateful)
        async with inside.worker(app, kafka.bootstrap, tmp_path, partitions=1) as worker:
            await worker.until_committed(**{f"{name}-in": 10})
            await topics.grow(2)
            await topics.put(*range(10, 20), partitions=2, key=None)
            if stateful:
                await worker.until(worker.parked, "nothing is stopped")
                assert f"{name}-in had 1 partitions" in worker.parked()[0]
                assert 10 <= len(await topics.out()) < 20
            else:
                while len(await topics.out()) < 20:
                    await asyncio.sleep(0.5)
                assert not worker.parked()
