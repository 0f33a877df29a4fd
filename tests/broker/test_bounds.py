"""How far a topic reaches: asked of Kafka, and found out of a broker that tells it wrong."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from engine import config
from engine.connect.loader import Loader
from engine.devbroker import DevBroker, start_tansu
from engine.kafka.log import KafkaLog
from engine.record import TP
from engine.torture import observer
from tests.shell import need_tansu

pytestmark = pytest.mark.broker


@pytest.fixture
def tansu(tmp_path: Path) -> Iterator[DevBroker]:
    """A broker that answers with the beginning of the last batch when asked for the end."""
    need_tansu()
    with start_tansu(tmp_path) as broker:
        yield broker


async def look(bootstrap: str) -> tuple[list[tuple[int, int]], int]:
    """Send batches to the first of two partitions; return the bounds after each, and the size."""
    settings = config.make({"id": "bounds", "broker": bootstrap, "guarantee": "at_least_once"})
    full, empty = TP("bounds", 0), TP("bounds", 1)
    await observer.create(bootstrap, {"bounds": {}}, 2)
    log = KafkaLog(settings)
    try:
        found = [(await log.bounds([full, empty]))[full]]
        async with Loader(settings) as loader:
            for count in (100, 1, 50):
                await loader.load("bounds", 1, [(b"k", b"v", 1000)] * count)
                bounds = await log.bounds([full, empty])
                assert bounds[empty] == (0, 0)
                found.append(bounds[full])
        return found, sum([len(batch) async for batch in log.read({full: found[-1]})])
    finally:
        await log.close()


def test_tansu_has_as_many_records_as_were_sent(tansu: DevBroker) -> None:
    """The last batch is whole."""
    found, size = asyncio.run(look(tansu.bootstrap))
    assert found == [(0, 0), (0, 100), (0, 101), (0, 151)]
    assert size == 151


def test_kafka_says_the_same_without_transactions(kafka: DevBroker) -> None:
    """The way around Tansu's answer is none around Kafka's."""
    found, size = asyncio.run(look(kafka.bootstrap))
    assert found == [(0, 0), (0, 100), (0, 101), (0, 151)]
    assert size == 151


async def emptied(bootstrap: str) -> tuple[int, int]:
    """Send records, let all of them be deleted, and return the bounds then."""
    settings = config.make({"id": "emptied", "broker": bootstrap, "guarantee": "at_least_once"})
    await observer.create(bootstrap, {"emptied": {}}, 1)
    async with Loader(settings) as loader:
        await loader.load("emptied", 1, [(b"k", b"v", 1000)] * 10)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition("emptied", 0): RecordsToDelete(10)})
    finally:
        await admin.close()
    log = KafkaLog(settings)
    try:
        async with asyncio.timeout(20):
            return (await log.bounds([TP("emptied", 0)]))[TP("emptied", 0)]
    finally:
        await log.close()


def test_a_topic_whose_records_are_gone_has_an_end(kafka: DevBroker) -> None:
    """There is nothing to fetch before its end."""
    assert asyncio.run(emptied(kafka.bootstrap)) == (10, 10)
