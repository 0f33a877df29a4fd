"""Sessions are those of Kafka Streams, through evictions, crashes and lost disks."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.codec import key_codec
from tables.memory import MemoryStore
from tables.session import Gap, SessionPartition, restored
from tables.store import TIMERS
from tables.window import Aggregate
from tests.unit.harness import Harness, scripts


def add(total, x):
    total[0] += 1
    total[1] += x
    return total


def merge(one, other):
    return [one[0] + other[0], one[1] + other[1]]


COUNT_AND_SUM = Aggregate(lambda: [0, 0], add, merge)


def sessions(gap, emission=None, cache_entries=100_000):
    def make(store, emit):
        def copy(key, start, end, value, ts):
            emit(key, start, end, None if value is None else tuple(value), ts)

        return SessionPartition(
            "s", store, gap=gap, key=key_codec(str), aggregate=COUNT_AND_SUM,
            emission=emission, emit=copy if emission else None, cache_entries=cache_entries,
        )  # fmt: skip

    return make


def apply(partition, event):
    partition.update(*event)


class SessionHarness(Harness):
    def restored(self, changes):
        partition = self.partition
        return restored(partition.family, changes, partition._codec, partition.gap)


class Brute:
    """The rules, written down one after the other: a list of sessions and no shortcut."""

    def __init__(self, gap, grace):
        self.gap, self.grace = gap, grace
        self.time = -1
        self.live = []  # (key, start, end, count, total)
        self.updates, self.final, self.late = [], [], 0

    def feed(self, key, ts, x):
        self.time = max(self.time, ts)
        near = [
            row for row in self.live
            if row[0] == key and row[1] - self.gap <= ts <= row[2] + self.gap
        ]  # fmt: skip
        start = min([ts, *(row[1] for row in near)])
        end = max([ts, *(row[2] for row in near)])
        if end < self.time - self.gap - self.grace:
            self.late += 1
        else:
            count = 1 + sum(row[3] for row in near)
            total = x + sum(row[4] for row in near)
            if not (near and start == end):  # another event of a single point
                for row in sorted(near, key=lambda row: (row[2], row[1])):
                    self.updates.append((key, row[1], row[2], None, row[2]))
            self.live = [row for row in self.live if row not in near]
            self.live.append((key, start, end, count, total))
            self.updates.append((key, start, end, (count, total), end))
        closed = [row for row in self.live if self.time > row[2] + self.gap + self.grace]
        for row in sorted(closed, key=lambda row: (row[2], row[1], row[0].encode())):
            self.live.remove(row)
            self.final.append((row[0], row[1], row[2], row[3:], row[2]))

    def items(self):
        rows = sorted(self.live, key=lambda row: (row[0].encode(), row[1]))
        return [(key, start, end, [count, total]) for key, start, end, count, total in rows]


shapes = st.sampled_from([(10, 0), (10, 5), (1, 0), (5, 30), (20, 3)])
events = st.lists(
    st.tuples(st.sampled_from(["a", "b", "ab", "é"]), st.integers(0, 90), st.integers(0, 3)),
    max_size=40,
)


@given(shapes, events, scripts, st.sampled_from(["final", "updates"]), st.integers(0, 3))
def test_the_rules_hold_whatever_happens_in_between(shape, events, script, emission, cache):
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = SessionHarness(sessions(Gap(*shape), emission, cache), apply)
    harness.run(events, script)
    assert harness.emitted == (brute.final if emission == "final" else brute.updates)
    assert harness.partition.items() == brute.items()
    harness.lose_disk()
    assert harness.partition.items() == brute.items()


@given(shapes, events, st.sampled_from([None, "final", "updates"]), st.integers(0, 3))
def test_it_can_be_asked_between_any_two_events(shape, events, emission, cache):
    brute = Brute(*shape)
    harness = SessionHarness(sessions(Gap(*shape), emission, cache), apply)
    for number, event in enumerate(events):
        brute.feed(*event)
        if number % 3 == 0:
            harness.partition.load_many([key for key, _, _ in events[number:][:3]])
        harness.feed(event)
        assert harness.partition.late == brute.late
        for key in ("a", "none"):
            found = [(s.start, s.end, s.value) for s in harness.partition.get(key)]
            assert found == [row[1:] for row in brute.items() if row[0] == key]
        if number % 4 == 0:
            harness.act("cut" if number % 8 else "land")


@given(shapes, events, scripts, st.integers(0, 3))
def test_the_end_of_the_input_closes_everything(shape, events, script, cache):
    """And nothing is left: no session, no timer, no key in the changelog without a tombstone."""
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = SessionHarness(sessions(Gap(*shape), "final", cache), apply)
    harness.run(events, script)
    harness.partition.close_all()
    rest = sorted(
        ((key, start, end, (n, x), end) for key, start, end, n, x in brute.live),
        key=lambda row: (row[2], row[1], row[0].encode()),
    )
    assert harness.emitted[len(brute.final) :] == rest
    harness.commit()
    assert harness.store.scan("s") == []
    assert harness.store.scan(TIMERS) == []
    assert {key for key, value in harness.log if value is not None} <= {
        key for key, value in harness.log if value is None
    }
    harness.lose_disk()
    assert harness.partition.items() == []


@given(events, st.integers(2, 6))
def test_timers_beyond_the_heap_close_their_sessions_too(events, keys):
    """Many more keys than the timers' heap holds, after a restart from the changelog."""
    gap = Gap(10, 0)
    brute = Brute(10, 0)
    harness = SessionHarness(sessions(gap, "final", 1), apply)
    many = [(f"{key}{n}", ts, x) for key, ts, x in events for n in range(keys)]
    for event in many:
        brute.feed(*event)
    harness.run(many, ["feed", "cut", "land"] * len(many))
    harness.lose_disk()
    for partition in (brute.feed, harness.partition.update):
        partition("z", 1_000, 0)
    assert harness.emitted == brute.final


# --- the boundaries that were observed -----------------------------------------------------------


def emitted(gap, events, emission="updates"):
    harness = SessionHarness(sessions(gap, emission), apply)
    rows = []
    for event in events:
        before = len(harness.emitted)
        harness.feed(event)
        rows.append(
            [(k, s, e, value and value[0]) for k, s, e, value, _ in harness.emitted[before:]]
        )
    return rows


GAP = Gap(10, 5)


def test_session_p_gap_exact():
    """An event exactly ``gap`` away merges; one more ms does not."""
    rows = emitted(Gap(10, 100), [("a", 100, 1), ("a", 110, 1), ("b", 100, 1), ("b", 111, 1)])
    assert rows[1] == [("a", 100, 100, None), ("a", 100, 110, 2)]
    assert rows[3] == [("b", 111, 111, 1)]


def test_session_p_close_boundary():
    """Closed once stream time > end + gap + grace: 116, not 115."""
    rows = emitted(GAP, [("a", 100, 1), ("b", 115, 1), ("b", 116, 1)], "final")
    assert rows == [[], [], [("a", 100, 100, 1)]]


def test_session_p_late_boundary():
    """At the edge (stream time - gap - grace) it is taken: 185 yes, 184 no."""
    rows = emitted(GAP, [("b", 200, 1), ("a", 185, 1), ("c", 184, 1)])
    assert rows[1:] == [[("a", 185, 185, 1)], []]


def test_session_p_late_saved_by_merge():
    rows = emitted(GAP, [("a", 190, 1), ("b", 200, 1), ("a", 180, 1), ("c", 180, 1)])
    assert rows[2] == [("a", 190, 190, None), ("a", 180, 190, 2)]
    assert rows[3] == []


def test_session_p_bridge():
    """A tombstone for each merged session by (end, start), at its end; then the merged one."""
    rows = emitted(Gap(10, 100), [("a", 100, 1), ("a", 120, 1), ("a", 110, 1)])
    assert rows[2] == [("a", 100, 100, None), ("a", 120, 120, None), ("a", 100, 120, 3)]


def test_an_event_that_joins_two_sessions_does_so_when_only_results_are_seen():
    """And when a session that was the only one has got a neighbour."""
    events = [("a", 100, 1), ("a", 105, 1), ("a", 120, 1), ("a", 111, 1), ("a", 1_000, 1)]
    assert emitted(Gap(10, 100), events, "final")[-1] == [("a", 100, 120, 4)]


def test_session_p_inside_no_change():
    rows = emitted(Gap(10, 100), [("a", 100, 1), ("a", 110, 1), ("a", 105, 1)])
    assert rows[2] == [("a", 100, 110, None), ("a", 100, 110, 3)]


def test_session_p_same_single_ts():
    """No tombstone when a session of one point gets another event at the same time."""
    rows = emitted(Gap(10, 100), [("a", 100, 1), ("a", 100, 1)])
    assert rows[1] == [("a", 100, 100, 2)]


def test_session_p_merge_after_suppress_closed():
    """A closed session is not reopened by an event near it that is not late itself."""
    rows = emitted(
        Gap(10, 0), [("a", 100, 1), ("b", 111, 1), ("a", 101, 1), ("b", 200, 1)], "final"
    )
    assert rows[1] == [("a", 100, 100, 1)]
    assert rows[3][0] == ("a", 101, 101, 1)


def test_session_p_multi_key_close_order():
    """By session end, then start, then key."""
    events = [
        ("b", 105, 1),
        ("c", 100, 1),
        ("c", 105, 1),
        ("a", 105, 1),
        ("a", 90, 1),
        ("z", 300, 1),
    ]
    rows = emitted(Gap(10, 50), events, "final")
    assert [row[:3] for row in rows[-1]] == [
        ("a", 90, 90), ("c", 100, 105), ("a", 105, 105), ("b", 105, 105)
    ]  # fmt: skip


# --- what it costs -------------------------------------------------------------------------------


class CountingStore(MemoryStore):
    """A store that counts reads."""

    reads = 0

    def get(self, family, key):
        self.reads += 1
        return super().get(family, key)


def test_a_new_partition_reads_nothing():
    store = CountingStore()
    harness = SessionHarness(sessions(GAP), apply)
    harness.store = store
    harness.open()
    for ts in range(500):
        harness.feed((f"user-{ts % 50}", ts, 1))
        harness.commit()
    assert store.reads == 0


def test_a_key_is_logged_once_a_commit():
    harness = SessionHarness(sessions(GAP), apply)
    for ts in range(500):
        harness.feed(("a", ts, 1))
    harness.commit()
    assert [key for key, _ in harness.log] == [b"a"]


def test_a_long_session_writes_few_timers():
    """One timer a gap, not one an event."""
    harness = SessionHarness(sessions(Gap(100, 0)), apply)
    written = 0
    for ts in range(5_000):
        harness.feed(("a", ts, 1))
        harness.cut()
        written += len(harness.flying[0].store[TIMERS])
        harness.land()
    assert written <= 2 * 5_000 / 100 + 2


class Totals(msgspec.Struct):
    """A value with a type."""

    events: int = 0


@pytest.mark.parametrize("value_type", [Totals, int, None])
def test_values_keep_their_type(value_type):
    def grow(value, _):
        if value_type is Totals:
            value.events += 1
            return value
        return value + 1

    aggregate = Aggregate(value_type or int, grow, None, value_type)

    def make(store, emit):
        return SessionPartition(
            "s", store, gap=GAP, key=key_codec(str), aggregate=aggregate, emit=emit, cache_entries=0
        )

    harness = SessionHarness(make, apply)
    for ts in (1, 2, 3):
        harness.feed(("a", ts, None))
        harness.commit()
    expected = Totals(3) if value_type is Totals else 3
    assert harness.partition.get("a")[0].value == expected
    assert type(harness.partition.get("a")[0].value) is type(expected)
