"""Rows 12 and 13: records and batches that were made to hurt."""

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest

from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single
from tests.faults.processes import ALL
from tests.faults.trial import Event, Trial

CODECS = ("gzip", "snappy", "lz4", "zstd")
CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION = 2, 76
_MAGIC_AT, _CRC_AT = 16, 17


def hostile(number: int, user: str, time: int) -> dict[str, bytes | None]:
    """Return values that are made to break a reader, by what is wrong with them."""
    sound = {
        "id": f"hostile-{number}", "timestamp": time, "user_id": user,
        "event_type": "click", "value": 1, "page": "/", "time_on_page": 0, "properties": {},
    }  # fmt: skip

    def changed(**fields: object) -> bytes:
        return json.dumps({**sound, **fields}).encode()

    value = json.dumps(sound).encode()
    return {
        "5,000 digits": value.replace(b'"value": 1', b'"value": 1' + b"0" * 5_000),
        "many nines": value.replace(b'"value": 1', b'"value": 1e999'),
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 50_000,
        "slow for a pattern": changed(user_id="user_" + "1" * 40_000 + "!"),
        "a pattern's newline": changed(user_id=f"{user}\n"),
        "half a surrogate": value.replace(b'"page": "/"', rb'"page": "\ud800"'),
        "not UTF-8": value.replace(b'"page": "/"', b'"page": "\xc3("'),
        "minus infinity": value.replace(b'"value": 1', b'"value": -Infinity'),
        "a byte order mark": b"\xef\xbb\xbf" + value,
        "nothing": b"",
        "blanks": b" " * 100_000,
        "zeros": b"\0" * 100_000,
        "null": b"null",
        "two of them": value + value,
        "no value": None,
    }


def headers(rng: random.Random) -> list[tuple[str, bytes]]:
    """Return headers that no reader should heed."""
    return rng.choice(
        [
            [("headrace.end-of-input", b"1")],
            [("__streams.errors.offset", b"0"), ("__streams.errors.partition", b"99")],
            [("Faust-Ag-ReplyTo", b"clickstream-counts-changelog")],
            [("", b""), ("x" * 1_000, b"\xff" * 1_000)],
            [("same", b"1"), ("same", b"2")],
        ]
    )


def poisoned(trial: Trial, rng: random.Random, count: int) -> Iterator[Event]:
    """Return the workload with so many hostile records among it, one in fifty."""
    for number in range(count):
        for event in trial.take(49):
            yield event if rng.random() < 0.9 else (*event[:3], headers(rng))
        user, time = f"user_{rng.randrange(2_000)}", event[2]
        bad = list(hostile(number, user, time).items())
        name, value = bad[number % len(bad)]
        key = (
            f"{user}\n" if name == "a pattern's newline" else user
        )  # it is sound: keyed by its user
        yield key.encode(), value, time, headers(rng) if number % 3 else []


@catalogue.row(
    12, "poison pills: 2 % of the input, and as much again that breaks the contract",
    unit="poison pills", ci=160, nightly=12_000, at_once=1_200, invariants=ALL, place=single,
)  # fmt: skip
def poison_pills(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Each is in the dead letters once, its bytes untouched, with the place that it came from."""
    with Trial(site, home, rng) as trial:
        trial.feed_these(poisoned(trial, rng, dose))
        trial.at_work("one", "two")
        trial.settle()


@catalogue.row(
    13, "batches: every codec, aborted and empty transactions, bad checksums, unknown codecs",
    unit="batches", ci=8, nightly=80, at_once=40, invariants=ALL, place=single,
)  # fmt: skip
def odd_batches(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What the broker takes is read; what it refuses, or what was aborted, is not."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        for number in range(dose):
            codec = CODECS[number % len(CODECS)]
            trial.feed_these(trial.take(200), compression_type=codec)
            asyncio.run(_abort(site.bootstrap, trial.input, records=number % 2 * 50))
            assert asyncio.run(_produce_broken(site.bootstrap, trial.input, rng)) in {
                CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION,
            }  # fmt: skip
        trial.settle()


async def _abort(bootstrap: str, topic: str, records: int) -> None:
    """Leave a transaction's records, or none, and the marker that takes them back."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="vandal") as producer:
        with contextlib.suppress(InterruptedError):
            async with producer.transaction():
                for _ in range(records):
                    await producer.send(topic, b"never to be seen", b"user_1")
                raise InterruptedError


async def _produce_broken(bootstrap: str, topic: str, rng: random.Random) -> int:
    """Send a batch with a broken checksum or a codec that nobody knows; return the answer."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        builder = producer.create_batch()
        builder.append(key=b"user_1", value=b"broken", timestamp=1)
        builder.close()
        data = bytearray(builder._builder.build())
    assert data[_MAGIC_AT] == 2
    data[_CRC_AT] ^= 1 << rng.randrange(8)
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        await client._wait_on_metadata(topic)
        node = client.cluster.leader_for_partition(TopicPartition(topic, 0))
        request = ProduceRequest(None, -1, 5_000, [(topic, [(0, bytes(data))])])
        answer = await client.send(node, request)
    finally:
        await client.close()
    ((_, ((_, code, *_),)),) = answer.topics
    return int(code)
