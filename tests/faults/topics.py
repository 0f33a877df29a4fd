"""Rows 10, 17 and 18: topics refuse, shrink, grow, go away and come back as others."""

import asyncio
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.new_partitions import NewPartitions

from engine.torture import checker, observer, stores
from engine.torture.audit import audit
from engine.torture.oracle import recompute
from engine.torture.verdict import Verdict
from tests.broker.fleet import wait_until
from tests.faults.catalogue import catalogue
from tests.faults.cluster import Site, single, trio
from tests.faults.processes import ALL
from tests.faults.trial import PARTITIONS, Event, Trial

LIMIT_BYTES = 20_000
LARGE_CHARS = 60_000
HUGE_BYTES = 12 << 20
MOST_BYTES = 4_000_000
"""Beyond 4 MiB a record breaks its contract before any agent sees it."""


async def administer(
    bootstrap: str, work: Callable[[AIOKafkaAdminClient], Awaitable[None]]
) -> None:
    """Do something as the cluster's administrator."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await work(admin)
    finally:
        await admin.close()


def set_config(site: Site, topic: str, **settings: str) -> None:
    """Change a topic's settings (all others go back to their defaults)."""
    wanted = {name.replace("_", "."): value for name, value in settings.items()}

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])

    asyncio.run(administer(site.bootstrap, work))


def delete_records(site: Site, topic: str, share: float = 1.0) -> dict[int, int]:
    """Delete the first records of each partition, as retention does; return the first left."""

    async def work(admin: AIOKafkaAdminClient) -> None:
        ends = await observer.ends(site.bootstrap, [(topic, n) for n in range(PARTITIONS)])
        before = {tp: int(end.high * share) for tp, end in ends.items()}
        await admin.delete_records(
            {TopicPartition(*tp): RecordsToDelete(offset) for tp, offset in before.items()}
        )
        left.update({tp[1]: offset for tp, offset in before.items()})

    left: dict[int, int] = {}
    asyncio.run(administer(site.bootstrap, work))
    return left


def create_anew(site: Site, topic: str, **settings: str) -> None:
    """Delete a topic and create it again, empty."""

    async def work(admin: AIOKafkaAdminClient) -> None:
        await admin.delete_topics([topic])
        ends = time.monotonic() + 30
        while topic in await admin.list_topics():
            assert time.monotonic() < ends, f"{topic} stays"
            await asyncio.sleep(0.1)

    asyncio.run(administer(site.bootstrap, work))
    wanted = {name.replace("_", "."): value for name, value in settings.items()}
    asyncio.run(observer.create(site.bootstrap, {topic: wanted}, PARTITIONS))


# --- row 10 -----------------------------------------------------------------------------------


def with_large(trial: Trial, rng: random.Random, chars: list[int]) -> Iterator[Event]:
    """Return the workload with events among it whose pages no compression makes small."""
    for number, count in enumerate(chars):
        events = trial.take(40)
        yield from events
        user, time_ms = f"user_{rng.randrange(2_000)}", events[-1][2]
        event = {
            "id": f"large-{trial.fed}-{number}", "timestamp": time_ms, "user_id": user,
            "event_type": "page_view", "value": 1, "page": rng.randbytes(count // 2).hex(),
            "time_on_page": 1, "properties": {},
        }  # fmt: skip
        yield user.encode(), json.dumps(event).encode(), time_ms, []


def check_refused(trial: Trial) -> int:
    """Hold everything against the recomputation, but for large events whose output was refused.

    Each of them is a dead letter, once, instead of an output; tables have counted it. Returns how
    many there are.
    """
    verdict = asyncio.run(audit(trial.site.bootstrap, trial.job, [trial.fleet.home]))
    names = ["enriched-events", "raw-events-dlq"]
    topics = [trial.job.topic(name) for name in names]
    seen = asyncio.run(observer.observe(trial.site.bootstrap, [trial.input, *topics]))
    large = {row["id"] for row in _sound(seen.topics[trial.input]) if is_large(row)}
    out = Counter(row["id"] for row in seen.json(topics[0]))
    letters = Counter(row["id"] for row in _sound(seen.topics[topics[1]]) if is_large(row))
    refused = large - out.keys()
    assert letters == Counter(refused), "a refused output is not in one dead letter"
    assert (verdict.lost, verdict.duplicated) == (len(refused), len(refused)), str(verdict)
    assert verdict.broken in ([], ["I1", "I2"]), str(verdict)
    return len(refused)


def is_large(row: dict[str, object]) -> bool:
    """Say whether an event is one of ours."""
    return str(row["id"]).startswith("large-")


def _sound(records: list[observer.Record]) -> Iterator[dict[str, object]]:
    for record in records:
        if record.value is not None and record.value.startswith(b'{"id": "large-'):
            yield json.loads(record.value)


@catalogue.row(
    10, "an output is refused: the topic's max.message.bytes is cut while the job runs",
    unit="refused records", ci=6, nightly=60, at_once=20, invariants=ALL, place=single,
)  # fmt: skip
def refused_outputs(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What cannot go out is a dead letter, once; its neighbours in the transaction go out."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        topic = trial.job.topic("enriched-events")
        set_config(site, topic, max_message_bytes=str(LIMIT_BYTES))
        trial.feed_these(with_large(trial, rng, [LARGE_CHARS] * dose))
        trial.drain()
        set_config(site, topic, retention_ms="-1")
        trial.feed_these(with_large(trial, rng, [LARGE_CHARS]))
        trial.drain()
        trial.stop_all()
        assert check_refused(trial) == dose


@catalogue.row(
    10, "records of 0.9 to 4 MB on an input that takes them, to an output that does not",
    unit="huge records", ci=3, nightly=30, at_once=6, invariants=ALL, place=single,
)  # fmt: skip
def huge_records(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Each is an output or a dead letter, and holds nothing up."""
    with Trial(site, home, rng) as trial:
        letters = trial.job.topic("raw-events-dlq")
        # the workload's times are old: by the default retention a broker deletes its letters
        huge = {"max.message.bytes": str(HUGE_BYTES), "retention.ms": "-1"}
        asyncio.run(observer.create(site.bootstrap, {letters: huge}, PARTITIONS))
        set_config(site, trial.input, retention_ms="-1", max_message_bytes=str(HUGE_BYTES))
        trial.feed(1_000)
        trial.at_work("one")
        sizes = [900_000, *(rng.randrange(900_000, MOST_BYTES) for _ in range(dose - 1))]
        trial.feed_these(with_large(trial, rng, sizes), max_request_size=HUGE_BYTES)
        trial.drain()
        trial.stop_all()
        check_refused(trial)


@catalogue.row(
    10, "three brokers: an output has fewer replicas in sync than it must, for a while",
    unit="losses", ci=0, nightly=10, at_once=5, invariants=ALL, place=trio,
)  # fmt: skip
def lost_replicas(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Nothing is committed meanwhile; it goes on when the replicas are back."""
    with Trial(site, home, rng) as trial:
        trial.feed(1_000)
        trial.at_work("one", "two")
        topic = trial.job.topic("enriched-events")
        set_config(site, topic, retention_ms="-1", min_insync_replicas="3")
        with trial.streaming(per_s=300):
            for number in range(dose):
                broker = site.brokers[number % 3]
                broker.kill()
                time.sleep(rng.uniform(3, 12))
                broker.restart()
                trial.gone_on()
        trial.settle()


# --- row 17 -----------------------------------------------------------------------------------


def check_stores(trial: Trial) -> None:
    """Hold the stores against their changelogs, and not against the input."""
    job, verdict = trial.job, Verdict()
    held = stores.dump([trial.fleet.home])
    for number in range(PARTITIONS):
        seen = asyncio.run(observer.observe(trial.site.bootstrap, job.written, partitions=[number]))
        mine = [store for store in held if store.partition == number]
        checker._check_stores(checker.Evidence(job, seen, mine), verdict)
    assert not verdict.findings, str(verdict)


def restart(trial: Trial, said: str, **settings: str) -> None:
    """Start the worker again, wait until it says what it must say, and let it work."""
    heard = trial.listen("one")
    trial.start("one", **settings)
    trial.feed(500)
    wait_until(
        lambda: said in heard(), timeout_s=60, what=f"it does not say {said!r}\n{heard()[-3000:]}"
    )
    trial.drain()
    trial.stop_all()


@catalogue.row(
    17, "a store is put back that is older than the first record that its changelog still has",
    unit="old stores", ci=1, nightly=5, at_once=5, invariants="I4", place=single,
)  # fmt: skip
def outdated_stores(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """Its task stops, and says so; told to continue, it takes what is there.

    The changelog lost records that no compaction may take (somebody deleted them), so the tables
    cannot be what the input says; then each store must be what its changelog says.
    """
    for number in range(dose):
        with Trial(site, home / str(number), rng) as trial:
            trial.feed(1_000)
            trial.at_work("one")
            trial.drain()
            trial.stop_all()
            where, old = trial.fleet.home / "one" / trial.group, home / f"old-{number}"
            shutil.copytree(where, old)
            trial.start("one")
            trial.feed(2_000)
            trial.drain()
            trial.stop_all()
            changelog = trial.job.changelog("counts")
            set_config(site, changelog, cleanup_policy="compact,delete")  # else Kafka refuses
            delete_records(site, changelog, 0.9)
            shutil.rmtree(where)
            shutil.copytree(old, where)
            before = sum(trial.reached().values())
            trial.feed(500)
            heard = trial.listen("one")
            trial.start("one")
            wait_until(
                lambda heard=heard: heard().count("of this changelog were deleted") == PARTITIONS,
                timeout_s=60,
                what="nobody speaks of the changelog",
            )
            assert trial.done() == before, "it worked on half a table"
            trial.fleet.kill("one")
            restart(trial, "does not fit the changelogs", on_lost_input="continue")
            check_stores(trial)


@catalogue.row(
    17, "a changelog is deleted and created anew",
    unit="changelogs", ci=1, nightly=5, at_once=5, invariants="I4", place=single,
)  # fmt: skip
def recreated_changelogs(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What the stores hold of it is not served: they are what the new one says."""
    for number in range(dose):
        with Trial(site, home / str(number), rng) as trial:
            trial.feed(2_000)
            trial.at_work("one")
            trial.drain()
            trial.stop_all()
            create_anew(site, trial.job.changelog("counts"), cleanup_policy="compact")
            restart(trial, f"topic {trial.job.changelog('counts')} was created anew")
            check_stores(trial)


@catalogue.row(
    17, "a store is put back that is older than what its changelog has been given since",
    unit="old stores", ci=3, nightly=10, at_once=10, invariants=ALL, place=single,
)  # fmt: skip
def old_stores(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What it lacks is restored from the changelog; nothing else is."""
    with Trial(site, home / "trial", rng) as trial:
        trial.feed(1_000)
        trial.at_work("one")
        for number in range(dose):
            trial.drain()
            trial.stop_all()
            where, old = trial.fleet.home / "one" / trial.group, home / f"old-{number}"
            shutil.copytree(where, old)
            trial.start("one")
            trial.feed(1_000)
            trial.drain()
            trial.fleet.kill("one")
            shutil.rmtree(where)
            shutil.copytree(old, where)
            trial.start("one")
            trial.feed(500)
        trial.settle()


# --- row 18 -----------------------------------------------------------------------------------


@catalogue.row(
    18, "retention deletes input that the group has not read",
    unit="overtakings", ci=1, nightly=3, at_once=1, invariants=ALL, place=single,
)  # fmt: skip
def overtaken(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The tasks stop and name the offsets; told to continue, they go on at what is there."""
    for number in range(dose):
        with Trial(site, home / str(number), rng) as trial:
            trial.feed(1_000)
            trial.at_work("one")
            trial.drain()
            trial.stop_all()
            before = sum(trial.reached().values())
            trial.feed(1_000)
            first = delete_records(site, trial.input, 0.75)
            heard = trial.listen("one")
            trial.start("one")
            wait_until(
                lambda heard=heard: "deleted" in heard(),
                timeout_s=60,
                what="nobody speaks of input that is gone",
            )
            time.sleep(3)
            assert trial.done() == before, "it jumped"
            trial.fleet.kill("one")
            trial.start("one", on_lost_input="continue")
            trial.feed(500)
            trial.drain()
            log = trial.fleet.log("one")
            assert all(f"goes on at offset {offset}" in log for offset in first.values()), first
            trial.stop_all()


@catalogue.row(
    18, "partitions are added to the input while its workers are away",
    unit="additions", ci=1, nightly=3, at_once=1, invariants="I5", place=single,
)  # fmt: skip
def grown(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """The workers say that the input does not fit the tables any more, and do nothing."""
    for number in range(dose):
        with Trial(site, home / str(number), rng) as trial:
            trial.feed(1_000)
            trial.at_work("one")
            trial.drain()
            trial.stop_all()
            before = sum(trial.reached().values())

            async def work(admin: AIOKafkaAdminClient, topic: str = trial.input) -> None:
                await admin.create_partitions({topic: NewPartitions(PARTITIONS + 2)})

            asyncio.run(administer(site.bootstrap, work))
            trial.feed(500)
            heard = trial.listen("one")
            trial.start("one")
            worker = trial.fleet.workers.pop("one")
            assert worker.wait(60) != 0, "it ended as if all was well"
            assert "need the same number of partitions" in heard(), heard()
            assert f"{trial.input} has {PARTITIONS + 2}" in heard(), heard()
            assert trial.done() == before


@catalogue.row(
    18, "the input is deleted, and created anew",
    unit="deletions", ci=1, nightly=3, at_once=1, invariants=ALL, place=single,
)  # fmt: skip
def created_anew(site: Site, home: Path, rng: random.Random, dose: int) -> None:
    """What is in the new topic is read from its beginning, each record once."""
    for number in range(dose):
        with Trial(site, home / str(number), rng) as trial:
            trial.feed(1_000)
            trial.at_work("one")
            trial.drain()
            trial.stop_all()
            before = outputs(trial)
            create_anew(site, trial.input, retention_ms="-1")
            trial.forget()
            trial.feed(800)
            trial.start("one")
            trial.drain()
            trial.stop_all()
            seen = asyncio.run(observer.observe(site.bootstrap, [trial.input]))
            raw = [(r.partition, r.key, r.value, r.timestamp) for r in seen.topics[trial.input]]
            truth = recompute(raw, {})
            after = outputs(trial) - before
            assert after == Counter(row.event["id"] for row in truth.enriched)


def outputs(trial: Trial) -> Counter[str]:
    """Return the ids that have come out, with how often."""
    topic = trial.job.topic("enriched-events")
    seen = asyncio.run(observer.observe(trial.site.bootstrap, [topic]))
    return Counter(row["id"] for row in seen.json(topic))
