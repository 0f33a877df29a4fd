"""One trial: the main job at work, its input coming in, something going wrong, the reckoning."""

import asyncio
import contextlib
import random
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import aiokafka
import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.workload import Workload
from engine.torture import observer
from engine.torture.oracle import recompute
from tests.broker.fleet import Fleet, wait_until
from tests.broker.test_exactly_once import TOPICS, check
from tests.faults.cluster import Site

APP = "clickstream"
INPUT = "raw-events"
PARTITIONS = 6
SESSION_S = 2.0
NUISANCE = "tests.faults.nuisance"
CHANGELOGS = tuple(f"{APP}-{table}-changelog" for table in observer.TABLES)
SLICE_S = 0.1
Event = tuple[bytes | None, bytes | None, int, Sequence[tuple[str, bytes]]]
"""Key, value, timestamp (ms) and headers."""
SETTINGS = {
    "retention_ms": "-1",
    "session_timeout_ms": str(int(1000 * SESSION_S)),
    "inbox_records": "2000",
}


class Trial:
    """The main job on a site that has been cleared, with workers of its own.

    Args:
        module: what the workers run.
        settings: of the workers, beside the usual ones.
    """

    def __init__(
        self, site: Site, home: Path, rng: random.Random, module: str = NUISANCE, **settings: str
    ) -> None:
        self.site = site
        self.rng = rng
        self.module = module
        home.mkdir(parents=True, exist_ok=True)
        self.fleet = Fleet(home, site.bootstrap, {**SETTINGS, **settings})
        work = Workload(
            events=100_000, users=2_000, seed=rng.randrange(1 << 30), invalid_ratio=0.02
        )
        self._events = work.raw_events()
        self._profiles = list(work.profiles())
        self._sent: list[tuple[int, bytes | None, bytes | None, int]] = []
        self._offsets: list[int] = []
        self._reached: dict[int, int] = {}

    def __enter__(self) -> "Trial":
        self.site.clear()
        asyncio.run(self._create())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.fleet.__exit__(*exc_info)
        for door in self.site.doors.values():
            door.heal()

    async def _create(self) -> None:
        bootstrap, replicas = self.site.bootstrap, len(self.site.brokers)
        topics = {INPUT: {"retention.ms": "-1"}, "user-profiles": {"cleanup.policy": "compact"}}
        await observer.create(bootstrap, topics, PARTITIONS, replicas)
        await observer.produce(bootstrap, "user-profiles", self._profiles, PARTITIONS)

    # -- workers -----------------------------------------------------------------------------

    def start(self, *names: str, **settings: str) -> None:
        """Start workers, each behind its own door."""
        for name in names:
            self.fleet.start(name, self.module, broker=self.site.address(name), **settings)

    def at_work(self, *names: str) -> None:
        """Start workers and wait until each has had tasks and something is committed."""
        self.start(*names)
        wait_until(
            lambda: self.have_tasks(*names), timeout_s=60, what=f"no tasks for one of {names}"
        )
        wait_until(lambda: self.done() > 0, timeout_s=60, what="nothing is committed")

    def have_tasks(self, *names: str) -> bool:
        """Say whether each of these workers has had tasks."""
        self.fleet.check()
        return all("new tasks" in self.fleet.log(name) for name in names)

    def order(self, name: str, words: str) -> None:
        """Have a worker do itself harm at its next event (see :mod:`tests.faults.nuisance`)."""
        draft = self.fleet.home / name / "order.draft"
        draft.write_text(words)
        draft.rename(draft.with_name("order"))

    def obeyed(self, name: str) -> bool:
        """Say whether a worker has begun to carry out its order."""
        return not (self.fleet.home / name / "order").exists()

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self.fleet.workers[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.fleet.workers[name].send_signal(signal.SIGCONT)

    def logs(self) -> str:
        """Return what all workers have said."""
        return "".join(path.read_text(errors="replace") for path in self.fleet.home.glob("*.log"))

    # -- input -------------------------------------------------------------------------------

    @property
    def fed(self) -> int:
        """How many records the input has."""
        return len(self._sent)

    def feed(self, count: int) -> None:
        """Produce so many records."""
        asyncio.run(self._feed(count))

    async def _feed(self, count: int) -> None:
        async with self._producer() as producer:
            await self._produce(producer, self.take(count))

    def feed_these(self, events: Iterable[Event], compression: str | None = None) -> None:
        """Produce these records, in batches that are compressed like that."""

        async def run() -> None:
            async with self._producer(compression_type=compression) as producer:
                await self._produce(producer, events)

        asyncio.run(run())

    def take(self, count: int) -> list[Event]:
        """Return the next so many records of the workload, to be fed as one likes."""
        return [(*next(self._events), []) for _ in range(count)]

    def _producer(self, **options: str | None) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self.site.bootstrap, linger_ms=5, enable_idempotence=True, **options
        )

    async def _produce(self, producer: AIOKafkaProducer, events: Iterable[Event]) -> None:
        waiting = []
        for key, value, timestamp, headers in events:
            hashed = len(self._sent) if key is None else aiokafka.partitioner.murmur2(key)
            partition = (hashed & 0x7FFFFFFF) % PARTITIONS
            self._sent.append((partition, key, value, timestamp))
            waiting.append(
                await producer.send(
                    INPUT, value, key, partition, timestamp_ms=timestamp, headers=headers
                )
            )
        for future in waiting:
            self._offsets.append((await future).offset)

    @contextlib.contextmanager
    def streaming(self, per_s: int = 800) -> Iterator[None]:
        """Produce evenly while the block runs; the broker may go away meanwhile."""
        stop = threading.Event()
        failed: list[BaseException] = []

        async def stream() -> None:
            async with self._producer() as producer:
                while not stop.is_set():
                    began = time.monotonic()
                    await self._produce(producer, self.take(int(per_s * SLICE_S)))
                    await asyncio.sleep(max(0.0, began + SLICE_S - time.monotonic()))

        def run() -> None:
            try:
                asyncio.run(stream())
            except BaseException as error:  # noqa: BLE001  raised below, in the test's thread
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if failed:
            raise failed[0]

    # -- the reckoning -----------------------------------------------------------------------

    def done(self) -> int:
        """Return how many events are committed; a position that went back fails (I5)."""
        at = asyncio.run(observer.committed(self.site.bootstrap, APP, INPUT, PARTITIONS))
        for partition, offset in at.items():
            before = self._reached.get(partition, 0)
            assert offset < 0 or offset >= before, f"I5: {INPUT}-{partition}: {before} to {offset}"
            self._reached[partition] = max(before, offset)
        return sum(max(0, offset) for offset in at.values())

    def caught_up(self) -> bool:
        """Say whether everything that was fed is committed (the input may have markers too)."""
        self.done()
        return all(self._reached.get(at, 0) > offset for at, offset in self._last().items())

    def _last(self) -> dict[int, int]:
        """Return the offset of each partition's last record."""
        return {row[0]: offset for row, offset in zip(self._sent, self._offsets, strict=True)}

    def gone_on(self, by: int = 200, timeout_s: float = 60) -> float:
        """Wait until so many more events are committed; return how long it took (s)."""
        goal = min(self.done() + by, self.fed)
        return wait_until(
            lambda: self.done() >= goal,
            timeout_s=timeout_s,
            what=f"no {by} more events were committed\n{self.logs()[-3000:]}",
        )

    def settle(self, timeout_s: float = 120) -> None:
        """Let the workers finish, stop them in good order, and check all that they left."""
        self.fleet.check()
        wait_until(
            self.caught_up,
            timeout_s=timeout_s,
            what=f"input is left\n{self.logs()[-3000:]}",
        )
        for name in list(self.fleet.workers):
            assert self.fleet.stop(name) == 0, self.fleet.log(name)[-3000:]
        self.check()

    def check(self) -> None:
        """Hold what is on the broker against the recomputation."""
        profiles = {key.decode(): msgspec.json.decode(value) for key, value, _ in self._profiles}
        expected = recompute(self._sent, profiles)
        seen = asyncio.run(observer.observe(self.site.bootstrap, [*TOPICS, *CHANGELOGS]))
        check(seen, expected, self._sent, APP)  # I1, I2, I4
        self._check_order(seen)
        self._check_origins(seen)
        assert self.caught_up()  # I5
        open_ends = asyncio.run(_open_ends(self.site.bootstrap, [*TOPICS, *CHANGELOGS]))
        assert not open_ends, f"I6: transactions were left open on {open_ends}"

    def _check_order(self, seen: observer.Seen) -> None:
        """I3: what a user did comes out in the order in which it went in."""
        place = {}
        for number, (_, _, value, _) in enumerate(self._sent):
            place[value] = number
        numbers = {row_id(value): number for value, number in place.items() if value}
        last: dict[str, int] = defaultdict(lambda: -1)
        for row in seen.json("enriched-events"):
            number = numbers[row["id"]]
            assert number > last[row["user_id"]], f"I3: {row['id']} came too late"
            last[row["user_id"]] = number

    def _check_origins(self, seen: observer.Seen) -> None:
        """Each dead letter names the record that it was."""
        offsets = {
            (row[0], offset): row[2] for row, offset in zip(self._sent, self._offsets, strict=True)
        }
        for letter in seen.topics["raw-events-dlq"]:
            at = tuple(
                int(letter.headers[f"__streams.errors.{name}"]) for name in ("partition", "offset")
            )
            assert offsets[at] == letter.value


def row_id(value: bytes) -> str:
    """Return the id that a raw event begins with, if it is a sound one."""
    head, _, rest = value.partition(b'{"id":"')
    return "" if head else rest.partition(b'"')[0].decode(errors="replace")


async def _open_ends(bootstrap: str, topics: list[str]) -> list[str]:
    """Return the partitions on which a transaction is open."""
    tps = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
    ends = []
    for isolation in ("read_committed", "read_uncommitted"):
        async with AIOKafkaConsumer(
            bootstrap_servers=bootstrap, isolation_level=isolation, enable_auto_commit=False
        ) as consumer:
            await consumer._client.force_metadata_update()
            known = {topic: consumer.partitions_for_topic(topic) or () for topic in topics}
            there = [tp for tp in tps if tp.partition in known[tp.topic]]
            ends.append(await consumer.end_offsets(there))
    stable, last = ends
    return [f"{tp.topic}-{tp.partition}" for tp in last if stable[tp] < last[tp]]
