"""A key is gone a ttl after its last write, in event time, through crashes and lost disks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import App
from engine.errors import ConfigError
from engine.testing import Driver
from tables.codec import key_codec
from tables.store import TIMERS
from tables.ttl import ExpiringPartition, restored, stamped_codec
from tests.unit.harness import Harness, scripts

TTL = 10


def expiring(cache_entries=100_000):
    def make(store, emit):
        return ExpiringPartition(
            "t", store, ttl_ms=TTL, key=key_codec(str), cache_entries=cache_entries
        )

    return make


class TtlHarness(Harness):
    def restored(self, changes):
        return restored(self.partition.family, changes, stamped_codec(None), TTL)


class Brute:
    """Every write in a list; who is alive is found by looking at all of them."""

    def __init__(self):
        self.now = -(1 << 62)
        self.rows = {}  # key -> (time, value)
        self.reads = []

    def feed(self, what, key, ts, value):
        self.now = max(self.now, ts)
        self.rows = {k: row for k, row in self.rows.items() if row[0] + TTL > self.now}
        if what == "put":
            time = max(ts, self.rows.get(key, (ts, None))[0])
            if time + TTL > self.now:
                self.rows[key] = (time, value)
        elif what == "delete":
            self.rows.pop(key, None)
        self.reads.append(self.rows.get(key, (0, None))[1])

    def items(self):
        return sorted(((k, v) for k, (_, v) in self.rows.items()), key=lambda row: row[0].encode())


def in_time(steps):
    """Times that go on, now and then back: most of them within a ttl of each other."""
    now, events = 0, []
    for what, key, step, value in steps:
        now += step
        events.append((what, key, now, value))
    return events


events = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "get", "delete"]),
        st.sampled_from(["a", "a", "b", "é"]),
        st.integers(-5, 9),
        st.integers(0, 9),
    ),
    max_size=40,
).map(in_time)


@given(events, scripts, st.integers(0, 2), st.booleans())
def test_a_key_is_found_until_its_time_is_up(events, script, cache, lost):
    brute, reads = Brute(), {}

    def apply(partition, event):
        what, key, ts, value = event
        partition.at(ts)
        if what == "put":
            partition.put(key, value)
        elif what == "delete":
            partition.delete(key)
        reads[harness.done] = partition.get(key)

    for event in events:
        brute.feed(*event)
    harness = TtlHarness(expiring(cache), apply)
    harness.run(events, script)
    assert [reads[number] for number in range(len(events))] == brute.reads
    assert list(harness.partition.items()) == brute.items()
    if lost:
        harness.lose_disk()
        assert list(harness.partition.items()) == brute.items()
    harness.partition.at(1_000)
    harness.commit()
    assert harness.store.scan("t") == []
    assert harness.store.scan(TIMERS) == []
    assert {key for key, value in harness.log if value is not None} <= {
        key for key, value in harness.log if value is None
    }


def test_the_edge_is_exactly_the_ttl():
    partition = expiring()(Harness(expiring()).store, None)
    partition.at(5)
    partition.put("k", 1)
    partition.at(14)
    assert partition.get("k") == 1
    partition.at(15)
    assert partition.get("k") is None


def test_a_timer_is_set_once_a_ttl_and_not_at_every_write():
    partition = expiring()(Harness(expiring()).store, None)
    for ts in range(100):
        partition.at(ts)
        partition.put("k", ts)
    assert len(partition.cut().store[TIMERS]) <= 2 * (100 // TTL + 1)


# --- in an app --------------------------------------------------------------------------------


def app_of():
    app = App("seen")
    source = app.topic("in")
    seen = app.Table("seen", ttl=3600, key_type=str, value_type=int, cache_entries=1)
    fresh = app.topic("fresh")

    @app.agent(source, sink=[fresh])
    async def once(stream):
        async for key, value in stream.items():
            name = key.decode()
            if name not in seen:
                yield value
            seen[name] = seen.get(name, 0) + 1

    return app


HOUR = 3_600_000


@pytest.mark.parametrize("crashes", [False, True])
def test_an_event_is_fresh_again_when_the_last_one_is_an_hour_ago(crashes):
    with Driver(app_of()) as driver:
        for number, (key, at) in enumerate(
            [("a", 0), ("a", HOUR - 1), ("b", HOUR), ("a", 2 * HOUR - 2), ("a", 3 * HOUR),
             ("b", HOUR + 5), ("b", 3 * HOUR)]
        ):  # fmt: skip
            driver.pipe("in", key=key, value=number, timestamp=at)
            if crashes:
                driver.crash()
                driver.restart()
        assert [each.value for each in driver.read("fresh")] == [0, 2, 4, 5, 6]
        assert driver.table("seen") == [("a", 1), ("b", 1)]


def test_what_expires_leaves_a_tombstone_in_the_changelog():
    with Driver(app_of()) as driver:
        driver.pipe("in", key="a", value=1, timestamp=0)
        driver.pipe("in", key="b", value=1, timestamp=HOUR)
        log = [(key, value) for key, value, _, _ in driver.raw("seen-seen-changelog")]
        assert [key for key, value in log if value is None] == [b"a"]


@pytest.mark.parametrize("options", [{"ttl": 0}, {"ttl": -1}])
def test_a_ttl_is_more_than_nothing(options):
    with pytest.raises(ConfigError, match="ttl"):
        App("none").Table("t", **options)


def test_a_topic_and_windows_have_none():
    app = App("none")
    with pytest.raises(ConfigError, match="tombstones"):
        app.Table("s", source=app.topic("s", compacting=True), ttl=5)
    with pytest.raises(ConfigError, match="windows end"):
        app.Table("w", ttl=5, default=int).tumbling(60)
    with pytest.raises(ConfigError, match="no windows"):
        app.Table("c", ttl=5, default=list, reduce=add).counted(3)


def add(total, x):
    return [*total, x]
