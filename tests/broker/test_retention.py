"""A new group on topics whose first records are gone already, as on any cluster with retention."""

import asyncio
import time
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from agents.workload import Workload
from engine.devbroker import DevBroker
from engine.torture import observer
from tests.broker.fleet import Fleet, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


async def delete(bootstrap: str, topic: str, before: int) -> None:
    """Delete what retention would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before)})
    finally:
        await admin.close()


def test_a_new_group_begins_at_the_first_record_that_is_there(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """The stream lacks its first ten records; the table that is joined has lost them all."""
    bootstrap = fresh_kafka.bootstrap
    now = int(time.time() * 1000)
    work = Workload(events=30, users=5, seed=3, invalid_ratio=0)
    events = [(key, value, now) for key, value, _ in work.raw_events()]

    async def load() -> None:
        keep = {"retention.ms": "-1"}
        await observer.create(bootstrap, {"raw-events": keep, "user-profiles": keep}, 1)
        await observer.produce(bootstrap, "raw-events", events, 1)
        await observer.produce(bootstrap, "user-profiles", [(b"user_1", b"{}", now)] * 4, 1)
        await delete(bootstrap, "raw-events", 10)
        await delete(bootstrap, "user-profiles", 4)

    asyncio.run(load())
    settings = {"retention_ms": "-1", "keep_unmatched": "true"}
    with Fleet(tmp_path, bootstrap, settings) as fleet:
        fleet.start("one")

        def done() -> bool:
            fleet.check()
            at = asyncio.run(observer.committed(bootstrap, "clickstream", "raw-events", 1))
            return at.get(0) == len(events)

        wait_until(done, timeout_s=30, what="not all is committed")
        assert fleet.stop("one") == 0, fleet.log("one")
    seen = asyncio.run(observer.observe(bootstrap, ["raw-events", "enriched-events"]))
    left = seen.json("raw-events")
    assert len(left) == 20
    enriched = [row["id"] for row in seen.json("enriched-events")]  # of several partitions
    assert sorted(enriched) == sorted(row["id"] for row in left)
