"""Replicas share the work, one is killed, one joins: every input counts exactly once."""

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from agents.workload import Workload
from engine.devbroker import DevBroker
from tests.broker import observer
from tests.broker.fleet import Fleet, wait_until
from tests.recompute import Expected, recompute

PARTITIONS = 6
TOPICS = ("enriched-events", "user-sessions", "event-counts", "raw-events-dlq")


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


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_three_replicas_one_killed_one_joining_lose_and_double_nothing(
    fresh_kafka: DevBroker, tmp_path: Path
) -> None:
    """100,000 events, 3 replicas, SIGKILL in the middle, a fourth joins; it all adds up."""
    app = "clickstream"
    work = Workload(events=100_000, users=2_000, seed=7)
    raw_records = list(work.raw_events())
    profiles = list(work.profiles())
    changelogs = [f"{app}-{table}-changelog" for table in observer.TABLES]

    async def load() -> list[int]:
        keep = {"retention.ms": "-1"}
        await observer.create(fresh_kafka.bootstrap, {"raw-events": keep}, PARTITIONS)
        compact = {"cleanup.policy": "compact"}
        await observer.create(fresh_kafka.bootstrap, {"user-profiles": compact}, PARTITIONS)
        await observer.produce(fresh_kafka.bootstrap, "user-profiles", profiles, PARTITIONS)
        half = len(raw_records) // 2
        return await observer.produce(
            fresh_kafka.bootstrap, "raw-events", raw_records[:half], PARTITIONS
        )

    settings = {"retention_ms": "-1", "session_timeout_ms": "3000", "inbox_records": "2000"}
    with Fleet(tmp_path, fresh_kafka.bootstrap, settings) as fleet:
        placed = asyncio.run(load())
        for name in ("one", "two", "three"):
            fleet.start(name)

        def done() -> int:
            fleet.check()
            at = asyncio.run(
                observer.committed(fresh_kafka.bootstrap, app, "raw-events", PARTITIONS)
            )
            return sum(max(0, offset) for offset in at.values())

        wait_until(lambda: done() > 5_000, timeout_s=60, what="nothing is committed")
        fleet.kill("two")
        rest = raw_records[len(placed) :]
        placed += asyncio.run(
            observer.produce(fresh_kafka.bootstrap, "raw-events", rest, PARTITIONS)
        )
        fleet.start("four")
        wait_until(lambda: done() >= len(raw_records), timeout_s=120, what="input is left")
        for name in list(fleet.workers):
            assert fleet.stop(name) == 0, fleet.log(name)[-3000:]

    raw = [(p, *record) for p, record in zip(placed, raw_records, strict=True)]
    expected = recompute(raw, {k.decode(): msgspec.json.decode(v) for k, v, _ in profiles})
    seen = asyncio.run(observer.observe(fresh_kafka.bootstrap, [*TOPICS, *changelogs]))
    check(seen, expected, raw, app)
