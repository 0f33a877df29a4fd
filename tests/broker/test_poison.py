"""Records made to stop a worker: each becomes a dead letter, or passes, and the worker goes on."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from aiokafka.record.util import calc_crc32c

from engine.config import make
from engine.devbroker import DevBroker
from engine.kafka.client import connect
from engine.kafka.produce import Producing
from engine.kafka.records import CODECS, Encoded, encode_batches
from engine.record import TP
from engine.torture import observer
from tests.broker.fleet import Fleet, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]

HOUR_MS = 3_600_000


def event(number: int, **changes: object) -> bytes:
    """Return a valid event, changed."""
    return json.dumps(
        {
            "id": f"e{number}",
            "timestamp": 1_700_000_000_000 + number,
            "user_id": "user_1",
            "event_type": "click",
            "value": 1,
            "page": "/",
            "time_on_page": 0,
            "properties": {},
            **changes,
        }
    ).encode()


async def send_odd_header(bootstrap: str, topic: str, value: bytes, now: int) -> None:
    """Send a record with a header whose name is no UTF-8, as C clients can."""
    [batch] = encode_batches([(b"user_1", value, now, (("odd!", b"x"),))], CODECS["none"])
    changed = batch.data.replace(b"odd!", b"\xff\xfe\xfd!")
    changed = changed[:17] + calc_crc32c(changed[21:]).to_bytes(4, "big") + changed[21:]
    client = await connect(make({"id": "test", "broker": bootstrap}), "test")
    try:
        await Producing(client).send({TP(topic, 0): [Encoded(changed, 0, 1)]})
    finally:
        await client.close()


def test_hostile_records_reach_the_dead_letters_and_stop_nothing(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """Too large, too deep, too early, too late, too long; and after each a good one."""
    now = int(time.time() * 1000)
    large = b"\xff" + os.urandom(1_000_000)  # nearly all that the topic takes: its letter is larger
    hostile = {
        "a record as large as the topic takes": large,
        "nesting": b"[" * 100_000,
        "a number of 5,000 digits": event(0).replace(b'"value": 1', b'"value": 1' + b"0" * 5_000),
        "a time before 1970": event(0, timestamp=-1),
        "a time that no calendar has": event(0, timestamp=2**62),
        "a time that no machine has": event(0, timestamp=2**80),
        "a bad string": event(0, page="x").replace(b'"x"', b'"\xff"'),
        "no value": None,
    }
    records = []
    for number, value in enumerate(hostile.values()):
        records += [(b"user_1", value, now), (b"user_1", event(number), now)]
    # valid, and in the future: brokers refuse such timestamps, so its result goes out with less
    records.append((b"user_1", event(99, timestamp=now + 5 * HOUR_MS), now))

    async def load() -> None:
        await observer.create(fresh_kafka.bootstrap, {"raw-events": {"retention.ms": "-1"}}, 1)
        compact = {"cleanup.policy": "compact"}
        await observer.create(fresh_kafka.bootstrap, {"user-profiles": compact}, 1)
        profile = {"user_id": "user_1", "country": "at", "tier": "gold", "signup_ts": 0}
        profiles = [(b"user_1", json.dumps(profile).encode(), now)]
        await observer.produce(fresh_kafka.bootstrap, "user-profiles", profiles, 1)
        await observer.produce(fresh_kafka.bootstrap, "raw-events", records, 1)
        await send_odd_header(fresh_kafka.bootstrap, "raw-events", event(100), now)

    asyncio.run(load())
    with Fleet(tmp_path, fresh_kafka.bootstrap, {"retention_ms": "-1"}) as fleet:
        fleet.start("one")

        def done() -> bool:
            fleet.check()
            at = asyncio.run(
                observer.committed(fresh_kafka.bootstrap, "clickstream", "raw-events", 1)
            )
            return at.get(0) == len(records) + 1

        wait_until(done, timeout_s=60, what="not all is committed")
        assert fleet.stop("one") == 0, fleet.log("one")
    seen = asyncio.run(
        observer.observe(fresh_kafka.bootstrap, ["raw-events-dlq", "enriched-events"])
    )
    letters = seen.topics["raw-events-dlq"]
    assert [letter.value for letter in letters] == list(hostile.values())
    assert [letter.headers["__contract.rule"].decode() for letter in letters] == [
        "json",
        "value.type",
        "value.range",
        "event_time.range",
        "event_time.range",
        "event_time.range",
        "json",
        "value.required",
    ]
    ids = [row["id"] for row in seen.json("enriched-events")]
    assert ids == [*(f"e{number}" for number in range(len(hostile))), "e99", "e100"]
    assert max(record.timestamp for record in seen.topics["enriched-events"]) < now + HOUR_MS
