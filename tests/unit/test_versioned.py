"""Tables that remember what they said, and streams that wait for them: by the definition."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables import asof, versioned
from tables.asof import AsOfPartition
from tables.codec import key_codec, value_codec
from tables.memory import MemoryStore
from tables.store import TIMERS
from tables.table import ABSENT
from tables.versioned import VersionedPartition
from tests.unit.harness import Harness, scripts

KEYS = ["a", "ab", "", "é"]


class TableHarness(Harness):
    def __init__(self, history, cache_entries=100_000):
        self._history = history
        self._cache_entries = cache_entries
        super().__init__(self.make)

    def make(self, store, _):
        return VersionedPartition(
            "t", store, key=key_codec(str), value=value_codec(), history_ms=self._history,
            cache_entries=self._cache_entries,
        )  # fmt: skip

    def feed(self, event):
        key, ts, value = event
        self.emitted.append(self.partition.put(key, ts, ABSENT if value is None else value))
        self.done += 1

    def restored(self, changes):
        return versioned.restored("t", changes, self._history)


class Brute:
    """The definition: all updates that were not too old, and nothing is ever forgotten."""

    def __init__(self, history):
        self.history, self.time = history, -1
        self.said = {}  # key -> {ts: value}
        self.newest = []

    def put(self, key, ts, value):
        self.time = max(self.time, ts)
        fits = ts >= self.time - self.history
        if fits:
            self.said.setdefault(key, {})[ts] = value
        self.newest.append(fits and ts == max(self.said[key]))

    def get_at(self, key, ts):
        said = self.said.get(key, {})
        times = [each for each in said if each <= ts]
        if ts < self.time - self.history and max(times, default=None) != max(said, default=0):
            return None
        return said[max(times)] if times else None

    def get(self, key):
        return self.get_at(key, 1 << 60)


histories = st.sampled_from([0, 1, 10, 40])
updates = st.lists(
    st.tuples(
        st.sampled_from([*KEYS, "a", "a"]),
        st.integers(0, 90),
        st.one_of(st.integers(0, 9), st.integers(0, 9), st.none()),
    ),
    max_size=40,
)


def all_answers(table):
    return [(key, ts, table.get_at(key, ts)) for key in KEYS for ts in range(-1, 92)]


@given(histories, updates, scripts, st.integers(0, 3))
def test_a_table_says_what_it_said_then(history, events, script, cache):
    brute = Brute(history)
    for event in events:
        brute.put(*event)
    harness = TableHarness(history, cache)
    harness.run(events, script)
    assert harness.emitted == brute.newest
    assert all_answers(harness.partition) == all_answers(brute)
    items = [(key, brute.get(key)) for key in sorted(KEYS) if brute.get(key) is not None]
    assert list(harness.partition.items()) == items
    harness.lose_disk()
    assert all_answers(harness.partition) == all_answers(brute)


@given(histories, updates, scripts, st.integers(0, 3))
def test_what_is_out_of_history_is_gone(history, events, script, cache):
    """One version a key is left, none of a key that was deleted; and no timers."""
    brute = Brute(history)
    harness = TableHarness(history, cache)
    harness.run(events, script)
    for event in (*events, *((key, 200 + 2 * history, None) for key in ("x", "y"))):
        brute.put(*event)
    for key, ts in (("x", 200 + 2 * history), ("y", 200 + 2 * history), ("z", 300 + 8 * history)):
        harness.feed((key, ts, None if key < "z" else 1))
    harness.commit()
    for key in [*KEYS, "x", "y"]:
        left = [value for _, value in harness.partition.versions(key)]
        assert left == ([] if brute.get(key) is None else [brute.get(key)])
    entries = harness.store.scan("t")
    assert len(entries) == 1 + sum(brute.get(key) is not None for key in KEYS)
    assert harness.store.scan(TIMERS) == []


def test_it_can_be_asked_between_any_two_updates():
    brute, harness = Brute(10), TableHarness(10, cache_entries=1)
    for number in range(60):
        event = (KEYS[number % 3], number * 7 % 90, None if number % 5 == 0 else number)
        brute.put(*event)
        harness.feed(event)
        if number % 4 == 0:
            harness.act("cut" if number % 8 else "land")
        assert all_answers(harness.partition) == all_answers(brute)
        assert harness.partition.get(KEYS[0], "no") == (brute.get(KEYS[0]) or "no")


def test_memory_is_bounded_by_what_it_may_take():
    harness = TableHarness(10**6, cache_entries=100)
    for number in range(2_000):
        harness.feed((f"{number % 700}", number, number))
        if number % 50 == 0:
            harness.commit()
            assert harness.partition.held() <= 100 * harness.partition.entry_bytes
    assert harness.partition.get_at("3", 1402) == 703
    assert harness.partition.get_at("3", 702) == 3


@pytest.mark.parametrize("cache", [0, 20])
def test_a_key_with_a_long_history_leaves_memory_bit_by_bit(cache):
    """And it is right all the same, old updates and old questions included."""
    brute, harness = Brute(500), TableHarness(500, cache_entries=cache)
    most = 0
    for number in range(400):
        late = number % 7 * 12 if number % 3 == 0 else 0
        event = ("a", max(0, 3 * number - late), None if number % 11 == 0 else number)
        brute.put(*event)
        harness.feed(event)
        if number % 4 == 1:
            harness.act("cut" if number % 8 == 1 else "land")
        now = 3 * number
        assert harness.partition.get("a") == brute.get("a")
        most = max(most, harness.partition.held() // harness.partition.entry_bytes)
        if number % 20 == 0:
            for ts in range(now - 510, now + 2, 7):
                assert harness.partition.get_at("a", ts) == brute.get_at("a", ts)
        if number % 90 == 0:
            harness.commit()
            harness.lose_disk()
    assert harness.emitted == brute.newest
    assert most < 400
    harness.commit()  # most of it leaves memory
    for ts in (3_000, 4_000):
        harness.feed(("b", ts, "newest"))
    harness.commit()
    assert harness.partition.versions("a") == [(1197, 399)]
    assert len(harness.store.scan("t")) == 3  # with both of the other key


class AsOfHarness(Harness):
    """An as-of join and its table; they are cut, committed and lost together."""

    def __init__(self, history, grace, left, cache_entries=100_000):
        self._grace, self._left = grace, left
        self._cache_entries = cache_entries
        self.table = TableHarness(history, cache_entries)
        super().__init__(self.make)

    def make(self, store, _):
        join = AsOfPartition(
            "j", store, table="t", key=key_codec(str), value=value_codec(), grace_ms=self._grace,
            left=self._left, cache_entries=self._cache_entries,
        )  # fmt: skip
        join.bind({"t": self.table.partition})
        return join

    def restored(self, changes):
        return asof.restored("j", changes, self._grace)

    def feed(self, event):
        kind, key, ts, value = event
        if kind == "table":
            self.table.feed((key, ts, value))
        else:
            raw = None if key is None else key.encode()
            self.emitted += map(tuple, self.partition.step(0, raw, ts, value))
            self.table.done += 1
        self.done += 1

    def cut(self):
        super().cut()
        self.table.cut()

    def land(self):
        super().land()
        self.table.land()

    def crash(self, *, kafka=False):
        self.table.crash(kafka=kafka)
        super().crash(kafka=kafka)

    def lose_disk(self):
        self.table.lose_disk()
        super().lose_disk()


def as_of(events, history, grace, left):
    """Return what must come out, and what still waits: the definition."""
    table, time, waiting, rows = Brute(history), -1, [], []

    def join(ts, key, _, value):
        row = table.get_at(key, ts)
        if row is not None or left:
            rows.append((key.encode(), ts, (value, row)))

    for number, (kind, key, ts, value) in enumerate(events):
        if kind == "table":
            table.put(key, ts, value)
        elif value is not None and key is None:
            rows += [(None, ts, (value, None))] if left else []
        elif value is not None and ts < time - grace:
            join(ts, key, number, value)
        elif value is not None:
            time = max(time, ts)
            waiting.append((ts, key, number, value))
            for each in sorted(waiting, key=lambda each: (each[0], each[1].encode(), each[2])):
                if each[0] + grace <= time:
                    waiting.remove(each)
                    join(*each)
    return rows, waiting


stream_or_table = st.lists(
    st.one_of(
        st.tuples(st.just("stream"), st.sampled_from([*KEYS, None]), st.integers(0, 90),
                  st.one_of(st.integers(0, 9), st.integers(0, 9), st.none())),
        updates.filter(bool).map(lambda some: ("table", *some[0])),
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=60)
@given(histories, st.sampled_from([0, 5, 30]), st.booleans(), stream_or_table, scripts,
       st.integers(0, 3))  # fmt: skip
def test_records_wait_and_are_joined_as_of_their_time(history, grace, left, events, script, cache):
    rows, waiting = as_of(events, history, grace, left)
    harness = AsOfHarness(history, grace, left, cache)
    harness.run(events, script)
    assert harness.emitted == rows
    waiting.sort(key=lambda each: (each[0], each[1].encode(), each[2]))
    assert harness.partition.items() == [(key.encode(), ts, x) for ts, key, _, x in waiting]
    rest = list(harness.partition.close_all())
    assert [result.value[0] for result in rest] == [x for *_, x in waiting] or not left
    harness.commit()
    assert [key for key, _ in harness.store.scan("j")] in ([b"\xff"], [])
    assert harness.store.scan(TIMERS) == []


@pytest.mark.parametrize("every", [1, 2, 7])
def test_a_restart_at_every_record_changes_nothing(every):
    events = [
        ("table" if n % 3 == 0 else "stream", KEYS[n % 2], 50 + 3 * n + n * 7 % 11 * 3, n)
        for n in range(120)
    ]
    rows, _ = as_of(events, 40, 15, left=True)
    assert len(rows) > 60
    for cache in (0, 100):
        harness = AsOfHarness(40, 15, True, cache)  # noqa: FBT003
        for number, event in enumerate(events):
            harness.feed(event)
            if number % every == 0:
                harness.commit()
                harness.lose_disk() if number % 4 == 1 else harness.crash()
        assert harness.emitted == rows


def test_waiting_records_are_bounded_in_memory():
    store = MemoryStore()
    harness = AsOfHarness(10, 10**6, True, 100)  # noqa: FBT003
    join = harness.make(store, None)
    for number in range(1_000):
        join.step(0, b"a", number, number)
        if number % 50 == 0:
            store.write(join.cut().store)
            join.committed()
            assert join.held() <= 100 * join.entry_bytes
    out = join.step(0, b"a", 2 * 10**6, "last")
    assert [result.value[0] for result in out] == list(range(1_000))


def test_a_record_that_comes_out_before_a_commit_leaves_no_trace():
    join = AsOfHarness(10, 5, True).make(MemoryStore(), None)  # noqa: FBT003
    for ts in range(100):
        join.step(0, b"a", ts, ts)
    changes = join.cut().changelog
    assert all(raw is not None for _, raw in changes)
    assert len(changes) == 5 + 1  # those that wait still, and the number of the last
