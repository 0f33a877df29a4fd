"""A worker under a memory limit: hostile load, real broker, and what the system says it took."""

import asyncio
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import config
from engine.connect.loader import Loader
from engine.devbroker import DevBroker
from engine.kafka.log import KafkaLog
from engine.record import TP
from engine.torture import observer
from tables.codec import value_codec
from tests.broker.fleet import Fleet, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(200)]

RECORDS, SIZE, PARTITIONS = 1_500, 100_000, 4
LIMIT_MB = 384
"""Without a limit the same worker took 885 MB for twice as many records."""


def records() -> Iterator[tuple[bytes, bytes, int]]:
    """Yield records of 100 KB, each with a key of its own."""
    chance = random.Random(1)
    for number in range(RECORDS):
        text = f'"{number} {chance.randbytes(SIZE // 2).hex()}"'
        yield b"k%d" % number, text.encode(), 1_000 + number


async def load(bootstrap: str) -> None:
    """Fill the job's input."""
    await observer.create(bootstrap, {"hoard-in": {"retention.ms": "-1"}}, PARTITIONS)
    async with Loader(config.make({"id": "load", "broker": bootstrap})) as loader:
        await loader.load("hoard-in", PARTITIONS, records())


async def digests(bootstrap: str, topic: str) -> dict[bytes | None, list[bytes]]:
    """Return the digests of the committed values of each key."""
    log = KafkaLog(config.make({"id": "look", "broker": bootstrap}))
    found: dict[bytes | None, list[bytes]] = {}
    try:
        bounds = await log.bounds([TP(topic, n) for n in range(PARTITIONS)], stable=True)
        async for batch in log.read(bounds):
            for key, value in zip(batch.keys, batch.values, strict=True):
                found.setdefault(key, []).append(hashlib.md5(value or b"").digest())
    finally:
        await log.close()
    return found


async def reach(bootstrap: str, topic: str) -> int:
    """Return how far a topic's partitions reach, markers of transactions included."""
    log = KafkaLog(config.make({"id": "look", "broker": bootstrap}))
    try:
        bounds = await log.bounds([TP(topic, n) for n in range(PARTITIONS)], stable=True)
        return sum(end for _, end in bounds.values())
    finally:
        await log.close()


def peak_mb(pid: int) -> int:
    """Return the most memory that a process has had (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def test_large_values_under_many_keys_stay_within_the_limit(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """All come out once, the table's changelog has them all, and the process stayed small."""
    bootstrap = fresh_kafka.bootstrap
    asyncio.run(load(bootstrap))
    asyncio.run(observer.create(bootstrap, {"hoard-out": {"retention.ms": "-1"}}, PARTITIONS))
    with Fleet(tmp_path, bootstrap, {"memory_limit": f"{LIMIT_MB}MiB"}) as fleet:
        fleet.start("one", "tests.broker.hoard:app")

        def is_done() -> bool:
            fleet.check()
            return asyncio.run(reach(bootstrap, "hoard-out")) >= RECORDS

        wait_until(is_done, timeout_s=120, what="not all has come out", every_s=1)
        took_mb = peak_mb(fleet.workers["one"].pid)
        assert fleet.stop("one") == 0
    print(f"{took_mb} MB at most")
    out = {key: [hashlib.md5(value).digest()] for key, value, _ in records()}
    assert asyncio.run(digests(bootstrap, "hoard-out")) == out
    encode = value_codec(str).encode
    kept = {key: [hashlib.md5(encode(value.decode())).digest()] for key, value, _ in records()}
    assert asyncio.run(digests(bootstrap, "hoard-hoard-changelog")) == kept
    assert took_mb < LIMIT_MB, f"{took_mb} MB"
