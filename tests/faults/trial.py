"""One trial: the main job at work, its input coming in, something going wrong, the reckoning."""

import asyncio
import contextlib
import itertools
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from agents.workload import Workload
from engine.torture import observer
from engine.torture.audit import audit
from engine.torture.checker import Job
from tests.broker.fleet import Fleet, wait_until
from tests.faults.cluster import Site

PARTITIONS = 6
SESSION_S = 2.0
NUISANCE = "tests.faults.nuisance"
SLICE_S = 0.1
SETTINGS = {
    "keep_unmatched": "true",
    "retention_ms": "-1",
    "partitions": str(PARTITIONS),
    "session_timeout_ms": str(int(1000 * SESSION_S)),
    "inbox_records": "2000",
}
Event = tuple[bytes | None, bytes | None, int, Sequence[tuple[str, bytes]]]
"""Key, value, timestamp (ms) and headers."""


class Trial:
    """The main job on a site, with topics and workers of its own.

    Args:
        module: what the workers run.
        settings: of the workers, beside the usual ones.

    Attributes:
        fed: how many records the input has.
    """

    def __init__(
        self, site: Site, home: Path, rng: random.Random, module: str = NUISANCE, **settings: str
    ) -> None:
        self.site = site
        self.rng = rng
        self.module = module
        self.fed = 0
        self._streams = False
        self.job = Job(f"{uuid.uuid4().hex[:8]}-", keep_unmatched=True)
        self.group = self.job.app
        self.input = self.job.topic("raw-events")
        home.mkdir(parents=True, exist_ok=True)
        common = {**SETTINGS, "prefix": self.job.prefix, **settings}
        self.fleet = Fleet(home, site.bootstrap, common)
        self._work = Workload(
            events=200_000, users=2_000, seed=rng.randrange(1 << 30), invalid_ratio=0.02
        )
        self._events: Iterator[Event] = ((*record, []) for record in self._work.raw_events())
        self._last: dict[int, int] = {}  # by partition, the offset of the last record fed
        self._reached: dict[int, int] = {}

    def __enter__(self) -> "Trial":
        self.site.clear()
        asyncio.run(self.create_topics())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.fleet.__exit__(*exc_info)
        for door in self.site.doors.values():
            door.heal()

    async def create_topics(self) -> None:
        """Create the inputs, and fill the one that is joined."""
        profiles = self.job.topic("user-profiles")
        topics = {self.input: {"retention.ms": "-1"}, profiles: {"cleanup.policy": "compact"}}
        replicas = len(self.site.brokers)
        await observer.create(self.site.bootstrap, topics, PARTITIONS, replicas)
        await observer.produce(self.site.bootstrap, profiles, self._work.profiles(), PARTITIONS)

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

    def listen(self, *names: str) -> Callable[[], str]:
        """Return what tells all that workers (these or all) say from now on."""
        home, patterns = self.fleet.home, [f"{name}.log" for name in names or ("*",)]
        known = {path: path.stat().st_size for path in home.glob("*.log")}

        def heard() -> str:
            paths = [path for pattern in patterns for path in home.glob(pattern)]
            new = [path.read_bytes()[known.get(path, 0) :] for path in paths]
            return b"".join(new).decode(errors="replace")

        return heard

    def stop_all(self) -> None:
        """Stop all workers in good order."""
        for name in list(self.fleet.workers):
            code = self.fleet.stop(name)
            assert code == 0, f"{name} ended with {code}:\n{self.fleet.log(name)[-3000:]}"

    # -- input -------------------------------------------------------------------------------

    def take(self, count: int) -> list[Event]:
        """Return the next so many records of the workload, to be fed as one likes."""
        return list(itertools.islice(self._events, count))

    def feed(self, count: int) -> None:
        """Produce so many records."""
        self.feed_these(self.take(count))

    def feed_these(self, events: Iterable[Event], **options: object) -> None:
        """Produce these records; ``options`` are the producer's."""

        async def run() -> None:
            async with self._producer(**options) as producer:
                await self._produce(producer, events)

        asyncio.run(run())

    def forget(self) -> None:
        """Begin to count anew: the input is another topic now."""
        self.fed = 0
        self._last.clear()
        self._reached.clear()

    def reached(self) -> dict[int, int]:
        """Return the highest committed offset that was seen of each partition."""
        self.done()
        return dict(self._reached)

    def _producer(self, **options: object) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            bootstrap_servers=self.site.bootstrap, linger_ms=5, enable_idempotence=True, **options
        )

    async def _produce(self, producer: AIOKafkaProducer, events: Iterable[Event]) -> None:
        waiting = []
        for key, value, timestamp, headers in events:
            hashed = self.fed if key is None else murmur2(key)
            partition = (hashed & 0x7FFFFFFF) % PARTITIONS
            self.fed += 1
            waiting.append(
                await producer.send(
                    self.input, value, key, partition, timestamp_ms=timestamp, headers=headers
                )
            )
        for future in waiting:
            record = await future
            self._last[record.partition] = record.offset

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
        self._streams = True
        try:
            yield
        finally:
            self._streams = False
            stop.set()
            thread.join()
        if failed:
            raise failed[0]

    # -- the reckoning -----------------------------------------------------------------------

    def done(self) -> int:
        """Return how many events are committed; a position that went back fails (I5)."""
        at = asyncio.run(
            observer.committed(self.site.bootstrap, self.group, self.input, PARTITIONS)
        )
        for partition, offset in at.items():
            before = self._reached.get(partition, 0)
            assert offset < 0 or offset >= before, f"I5: partition {partition}: {before}, {offset}"
            self._reached[partition] = max(before, offset)
        return sum(max(0, offset) for offset in at.values())

    def caught_up(self) -> bool:
        """Say whether everything that was fed is committed (the input may have markers too)."""
        self.done()
        return all(self._reached.get(at, 0) > offset for at, offset in self._last.items())

    def gone_on(self, by: int = 200, timeout_s: float = 60) -> float:
        """Wait until so many more events are committed; return how long it took (s)."""
        goal = self.done() + by
        if not self._streams:
            goal = min(goal, self.fed)
        return wait_until(
            lambda: self.done() >= goal,
            timeout_s=timeout_s,
            what=f"no {by} more events were committed\n{self.logs()[-3000:]}",
        )

    def drain(self, timeout_s: float = 120) -> None:
        """Wait until all input is worked off."""
        self.fleet.check()
        wait_until(
            self.caught_up, timeout_s=timeout_s, what=f"input is left\n{self.logs()[-3000:]}"
        )

    def settle(self) -> None:
        """Let the workers finish, stop them in good order, and check all that they left."""
        self.drain()
        self.stop_all()
        self.check()

    def check(self) -> None:
        """Hold what is on the broker and in the stores against a recomputation: I1 to I7."""
        verdict = asyncio.run(audit(self.site.bootstrap, self.job, [self.fleet.home]))
        assert not verdict.findings, str(verdict)
        assert verdict.events >= self.fed, f"{verdict.events} events were judged, {self.fed} fed"
