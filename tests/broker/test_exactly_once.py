"""Workers and brokers are killed, stopped and started: every input counts exactly once."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from agents.workload import Workload
from engine.devbroker import DevBroker, start_kafka
from engine.torture import observer
from engine.torture.oracle import Expected, recompute
from tests.broker.conftest import need_kafka
from tests.broker.fleet import Fleet, wait_until

APP = "clickstream"
PARTITIONS = 6
TOPICS = ("enriched-events", "user-sessions", "event-counts", "conversions", "raw-events-dlq")


def check(seen: observer.Seen, expected: Expected, raw: list, app: str) -> None:
    """Hold what is on the broker against the recomputation: outputs, dead letters, tables."""
    matched = [row for row in expected.enriched if row.profile is not None]
    ids = Counter(row["id"] for row in seen.json("enriched-events"))
    assert ids == Counter(row.event["id"] for row in matched)
    by_id = {row["id"]: row for row in seen.json("enriched-events")}
    for row in matched:
        out = by_id[row.event["id"]]
        assert {name: out[name] for name in row.event} == row.event
        assert (out["country"], out["tier"]) == (row.profile["country"], row.profile["tier"])
    letters = Counter(record.value for record in seen.topics["raw-events-dlq"])
    assert letters == Counter(raw[letter.at][2] for letter in expected.dead_letters)
    origins = Counter(
        (r.headers["__streams.errors.partition"], r.headers["__streams.errors.offset"])
        for r in seen.topics["raw-events-dlq"]
    )
    assert set(origins.values()) == {1}
    assert observer.counts_in(seen, app) == expected.counts
    sessions = Counter(
        (user, s.start, s.end, s.events, s.page_views, s.total_time)
        for user, rows in expected.sessions.items()
        for s in rows
    )
    assert observer.sessions_in(seen, app) == sessions
    unmatched = seen.latest(f"{app}-unmatched-changelog").values()
    assert sum(map(msgspec.msgpack.decode, unmatched)) == expected.unmatched


class Trial:
    """A run of the main job under faults: feed, disturb, drain, stop, hold against the truth."""

    def __init__(
        self, kafka: DevBroker, home: Path, *, events: int, seed: int, **settings: str
    ) -> None:
        self.kafka = kafka
        work = Workload(events=events, users=2_000, seed=seed)
        self.records = list(work.raw_events())
        self.profiles = list(work.profiles())
        self.placed: list[int] = []
        usual = {"retention_ms": "-1", "session_timeout_ms": "2000", "inbox_records": "2000"}
        self.fleet = Fleet(home, kafka.bootstrap, usual | settings)
        asyncio.run(self._create())

    async def _create(self) -> None:
        bootstrap = self.kafka.bootstrap
        await observer.create(bootstrap, {"raw-events": {"retention.ms": "-1"}}, PARTITIONS)
        compacted = {"user-profiles": {"cleanup.policy": "compact"}}
        await observer.create(bootstrap, compacted, PARTITIONS)
        await observer.produce(bootstrap, "user-profiles", self.profiles, PARTITIONS)

    def feed(self, share: float) -> None:
        """Produce a share of the events."""
        start = len(self.placed)
        part = self.records[start : start + round(share * len(self.records))]
        self.placed += asyncio.run(
            observer.produce(self.kafka.bootstrap, "raw-events", part, PARTITIONS)
        )

    def done(self) -> int:
        """Return how many events are committed."""
        self.fleet.check()
        at = asyncio.run(observer.committed(self.kafka.bootstrap, APP, "raw-events", PARTITIONS))
        return sum(max(0, offset) for offset in at.values())

    def settle(self) -> None:
        """Let the workers finish, stop them, and check everything that they left."""
        wait_until(lambda: self.done() >= len(self.placed), timeout_s=120, what="input is left")
        wait_until(
            lambda: all("new tasks" in self.fleet.log(name) for name in self.fleet.workers),
            timeout_s=30,
            what="a worker has no tasks",
        )
        for name in list(self.fleet.workers):
            assert self.fleet.stop(name) == 0, self.fleet.log(name)[-3000:]
        raw = [(p, *record) for p, record in zip(self.placed, self.records, strict=True)]
        profiles = {key.decode(): msgspec.json.decode(value) for key, value, _ in self.profiles}
        changelogs = [f"{APP}-{table}-changelog" for table in observer.TABLES]
        seen = asyncio.run(observer.observe(self.kafka.bootstrap, [*TOPICS, *changelogs]))
        check(seen, recompute(raw, profiles), raw, APP)


pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(240)]


def test_three_replicas_one_killed_one_joining_lose_and_double_nothing(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """100,000 events, 3 replicas, SIGKILL in the middle, a fourth joins; it all adds up."""
    trial = Trial(fresh_kafka, tmp_path, events=100_000, seed=7)
    with trial.fleet as fleet:
        trial.feed(0.5)
        for name in ("one", "two", "three"):
            fleet.start(name)
        wait_until(lambda: trial.done() > 5_000, timeout_s=60, what="nothing is committed")
        fleet.kill("two")
        trial.feed(0.5)
        fleet.start("four")
        trial.settle()


def test_a_producer_a_task_loses_and_doubles_nothing_either(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """The other shape of exactly-once: a kill, a zombie, a newcomer."""
    trial = Trial(fresh_kafka, tmp_path, events=40_000, seed=8, producers="task")
    with trial.fleet as fleet:
        trial.feed(0.5)
        for name in ("one", "two"):
            fleet.start(name)
        wait_until(lambda: trial.done() > 2_000, timeout_s=60, what="nothing is committed")
        fleet.kill("two")
        fleet.start("three")
        trial.feed(0.5)
        fleet.workers["one"].send_signal(signal.SIGSTOP)
        time.sleep(4.0)
        fleet.workers["one"].send_signal(signal.SIGCONT)
        fleet.start("two")
        wait_until(
            lambda: fleet.log("two").count("new tasks") > 1, timeout_s=60, what="two has no tasks"
        )
        trial.settle()


def test_workers_that_were_stopped_and_go_on_as_zombies_commit_nothing(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """SIGSTOP for longer than the session timeout, SIGCONT: their partitions have new owners."""
    trial = Trial(fresh_kafka, tmp_path, events=40_000, seed=3)
    with trial.fleet as fleet:
        for name in ("one", "two", "three"):
            fleet.start(name)
        for name, pause_s in (("one", 3.0), ("two", 5.0), ("one", 4.0), ("three", 2.5)):
            trial.feed(0.25)
            wait_until(lambda: trial.done() > 0, timeout_s=60, what="nothing is committed")
            fleet.workers[name].send_signal(signal.SIGSTOP)
            time.sleep(pause_s)
            fleet.workers[name].send_signal(signal.SIGCONT)
        trial.settle()


def test_a_broker_that_is_killed_and_comes_back_costs_nothing_but_time(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """SIGKILL to the broker, twice, with the workers connected.

    Between transactions: Kafka 4.3.1, alone on its cluster, skips the markers of a transaction that
    it was killed in the middle of ("likely deleted already"), and leaves it open for ever.
    """
    trial = Trial(fresh_kafka, tmp_path, events=40_000, seed=5)
    with trial.fleet as fleet:
        for name in ("one", "two"):
            fleet.start(name)
        for _ in range(2):
            trial.feed(0.4)
            wait_until(
                lambda: trial.done() >= len(trial.placed), timeout_s=90, what="input is left"
            )
            fresh_kafka.kill()
            fresh_kafka.restart()
        trial.feed(0.2)
        trial.settle()


def test_a_broker_that_freezes_for_longer_than_a_transaction_may_take_doubles_nothing(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SIGSTOP to the broker: what was sent and not answered may be carried out much later."""
    need_kafka()
    settings = {"broker.session.timeout.ms": "60000"}  # its controller froze with it
    home = tmp_path_factory.mktemp("kafka")
    with start_kafka(home, overrides=settings) as kafka:
        trial = Trial(kafka, tmp_path, events=40_000, seed=9)
        with trial.fleet as fleet:
            for name in ("one", "two"):
                fleet.start(name)
            for _ in range(3):
                trial.feed(0.25)
                wait_until(lambda: trial.done() > 0, timeout_s=60, what="nothing is committed")
                os.kill(kafka.pid, signal.SIGSTOP)
                time.sleep(6.5)  # a commit gives up after 5 s
                os.kill(kafka.pid, signal.SIGCONT)
            trial.feed(0.25)
            trial.settle()
            assert "no answer to a part of the transaction" in fleet.log("one") + fleet.log("two")
