"""Windows hold what Kafka Streams holds in them, through evictions, crashes and lost disks."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tables.codec import key_codec
from tables.memory import MemoryStore
from tables.timers import NEVER
from tables.window import Aggregate, WindowPartition, Windows
from tests.unit.harness import Harness, scripts


def add(total, x):
    total[0] += 1
    total[1] += x
    return total


COUNT_AND_SUM = Aggregate(lambda: [0, 0], add)


def windowed(windows, emission=None, cache_entries=100_000, key=str, **options):
    def make(store, emit):
        def copy(key, start, end, value, ts):
            emit(key, start, end, tuple(value), ts)

        return WindowPartition(
            "w", store, windows=windows, key=key_codec(key), aggregate=COUNT_AND_SUM,
            emission=emission, emit=copy if emission else None, cache_entries=cache_entries,
            **options,
        )  # fmt: skip

    return make


def apply(partition, event):
    partition.update(*event)


class Brute:
    """The rules, written down one after the other: no cache, no order, no shortcut."""

    def __init__(self, size, advance, grace):
        self.size, self.advance, self.grace = size, advance, grace
        self.time = -1
        self.open = {}
        self.kept = {}
        self.updates, self.final, self.late = [], [], 0

    def closed(self, start):
        return self.time >= start + self.size + self.grace

    def feed(self, key, ts, x):
        self.time = max(self.time, ts)
        starts = [s for s in range(0, ts + 1, self.advance) if s <= ts < s + self.size]
        self.late += all(self.closed(start) for start in starts)
        for start in starts:
            if not self.closed(start):
                count, total, latest = self.open.get((start, key), (0, 0, ts))
                row = self.open[start, key] = (count + 1, total + x, max(latest, ts))
                self.updates.append((key, start, start + self.size, row[:2], row[2]))
        for at in sorted(self.open, key=lambda at: (at[0], at[1].encode())):
            if self.closed(at[0]):
                count, total, latest = self.kept[at] = self.open.pop(at)
                self.final.append((at[1], at[0], at[0] + self.size, (count, total), latest))

    def items(self):
        return [
            (key, start, start + self.size, list(self.open[start, key][:2]))
            for start, key in sorted(self.open, key=lambda at: (at[0], at[1].encode()))
        ]


shapes = st.sampled_from(
    [(10, 10, 0), (10, 10, 5), (10, 5, 0), (10, 3, 7), (7, 2, 3), (10, 10, 40), (1, 1, 0)]
)
events = st.lists(
    st.tuples(st.sampled_from(["a", "b", "ab", "é"]), st.integers(0, 60), st.integers(0, 3)),
    max_size=40,
)


@given(shapes, events, scripts, st.sampled_from(["final", "updates"]), st.integers(0, 3))
@example((10, 10, 5), [("a", 5, 1), ("a", 60, 1), ("a", 6, 1)], ["feed", "crash"], "final", 0)
def test_the_rules_hold_whatever_happens_in_between(shape, events, script, emission, cache):
    windows = Windows(*shape)
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = Harness(windowed(windows, emission, cache), apply)
    harness.run(events, script)
    assert harness.emitted == (brute.final if emission == "final" else brute.updates)
    assert harness.partition.items() == brute.items()
    harness.lose_disk()
    assert harness.partition.items() == brute.items()
    assert harness.partition.next_close_ms <= min(
        (windows.closes(start) for start, _ in brute.open), default=NEVER
    )


@given(shapes, events, st.integers(0, 3))
def test_late_events_are_counted(shape, events, cache):
    brute = Brute(*shape)
    harness = Harness(windowed(Windows(*shape), "final", cache), apply)
    for event in events:
        brute.feed(*event)
        harness.feed(event)
        assert harness.partition.late == brute.late


@given(shapes, events, scripts, st.integers(0, 3))
def test_the_end_of_the_input_closes_everything(shape, events, script, cache):
    """And what was closed is gone, also from the disk and the changelog."""
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = Harness(windowed(Windows(*shape), "final", cache), apply)
    harness.run(events, script)
    harness.partition.close_all()
    rest = [(key, start, end, tuple(value)) for key, start, end, value in brute.items()]
    assert [row[:4] for row in harness.emitted[len(brute.final) :]] == rest
    harness.commit()
    assert harness.store.scan("w") == []
    assert {key: value for key, value in harness.log if value is not None}.keys() <= {
        key for key, value in harness.log if value is None
    }
    harness.lose_disk()
    assert harness.partition.items() == []


@given(
    shapes, events, scripts, st.sampled_from(["final", "updates"]), st.integers(0, 3),
    st.sampled_from([1, 9, 30]),
)  # fmt: skip
@example((10, 10, 0), [("a", 5, 1), ("a", 19, 1)], [], "final", 0, 9)
@example(
    (10, 10, 0), [("a", 5, 1), ("a", 30, 1), ("a", 31, 1)],
    ["feed", "feed", "cut", "land", "crash"], "final", 0, 30,
)  # fmt: skip
def test_a_closed_window_can_be_read_while_it_is_kept(
    shape, events, script, emission, cache, retention
):
    """And it changes nothing of what comes out, and is gone in the end."""
    size, _, grace = shape
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = Harness(windowed(Windows(*shape), emission, cache, retention_ms=retention), apply)
    harness.run(events, script)
    assert harness.emitted == (brute.final if emission == "final" else brute.updates)
    assert harness.partition.items() == brute.items()
    known = {**brute.kept, **brute.open}
    for ts in range(61):
        start = Windows(*shape).starts(ts)[-1] if Windows(*shape).starts(ts) else -1
        for key in ("a", "é"):
            row = known.get((start, key))
            if start + size + grace + retention <= brute.time:
                row = None
            assert harness.partition.get(key, ts) == (list(row[:2]) if row else None)
    harness.lose_disk()
    assert harness.partition.items() == brute.items()
    harness.partition.advance(1_000)
    harness.partition.update("z", 3_000, 1)
    harness.partition.close_all()
    harness.commit()
    assert harness.store.scan("w") == []
    assert dict(harness.log) == dict.fromkeys(dict(harness.log))


@given(events, events, st.integers(0, 3), st.booleans())
def test_input_after_the_end_starts_windows_anew(before, after, cache, commit):
    """A window that was closed early opens again, empty, whatever the store still holds of it."""
    shape = (10, 5, 100)
    harness = Harness(windowed(Windows(*shape), "final", cache), apply)
    for event in before:
        harness.feed(event)
    harness.commit()
    harness.cut()
    harness.partition.close_all()
    if commit:
        harness.land()
    else:
        harness.flying = None
    brute = Brute(*shape)
    brute.time = harness.partition.stream_time
    for event in after:
        brute.feed(*event)
        harness.feed(event)
        assert harness.partition.get(event[0], event[1]) is None or brute.open
    harness.land()
    assert harness.partition.items() == brute.items()
    harness.commit()
    assert harness.partition.items() == brute.items()


# --- the boundaries that were observed -----------------------------------------------------------


def emitted(windows, events, emission="final"):
    harness = Harness(windowed(windows, emission), apply)
    rows = []
    for event in events:
        before = len(harness.emitted)
        harness.feed(event)
        rows.append(
            [(k, start, value[0], ts) for k, start, _, value, ts in harness.emitted[before:]]
        )
    return rows


TUMBLING = Windows(10, 10, 5)


def test_tumbling_p_close_boundary():
    """Closed once stream time >= end + grace: 115, not 114."""
    rows = emitted(TUMBLING, [("a", 105, 1), ("b", 114, 1), ("b", 115, 1)])
    assert rows == [[], [], [("a", 100, 1, 105)]]


def test_tumbling_p_late_boundary():
    rows = emitted(
        TUMBLING, [("a", 114, 1), ("a", 109, 1), ("a", 115, 1), ("a", 109, 1)], "updates"
    )
    assert rows == [[("a", 110, 1, 114)], [("a", 100, 1, 109)], [("a", 110, 2, 115)], []]


def test_tumbling_p_late_record_does_not_emit():
    rows = emitted(TUMBLING, [("a", 100, 1), ("a", 200, 1), ("a", 100, 1)])
    assert rows == [[], [("a", 100, 1, 100)], []]


def test_tumbling_p_output_ts():
    """The largest timestamp in the window so far."""
    rows = emitted(TUMBLING, [("a", 107, 1), ("a", 103, 1)], "updates")
    assert [row[0][3] for row in rows] == [107, 107]


def test_tumbling_p_multi_key_close_order():
    """By window start, then key."""
    events = [("b", 111, 1), ("c", 101, 1), ("a", 112, 1), ("a", 102, 1), ("z", 200, 1)]
    windows = Windows(10, 10, 10)
    assert [row[:2] for row in emitted(windows, events)[-1]] == [
        ("a", 100), ("c", 100), ("a", 110), ("b", 110)
    ]  # fmt: skip


def test_hopping_p_partially_late():
    """Late for one window, counted in the other."""
    windows = Windows(10, 5, 0)
    rows = emitted(windows, [("a", 110, 1), ("a", 109, 1)], "updates")
    assert [row[1] for row in rows[0]] == [105, 110]
    assert [row[1] for row in rows[1]] == [105]


def test_hopping_p_edges():
    """Aligned to the epoch, never below 0."""
    assert Windows(10, 5).starts(0) == [0]
    assert Windows(10, 5).starts(9) == [0, 5]
    assert Windows(10, 5).starts(10) == [5, 10]


def test_hopping_p_advance_not_divisor():
    assert Windows(10, 3).starts(10) == [3, 6, 9]
    assert Windows(10, 4).starts(20) == [12, 16, 20]


@pytest.mark.parametrize("windows", [Windows(10, 10), Windows(10, 3)])
def test_a_time_below_zero_is_in_no_window(windows):
    """As in Kafka Streams; such an event is late, and asking for its window finds nothing."""
    assert windows.starts(-1) == []
    partition = windowed(windows)(MemoryStore(), None)
    partition.update("a", -1, 1)
    assert (partition.late, partition.items(), partition.get("a", -1)) == (1, [], None)


def test_windows_close_by_the_clock_of_all_keys():
    """Stream time is one for the partition."""
    rows = emitted(TUMBLING, [("a", 100, 1), ("b", 115, 1)])
    assert rows[1] == [("a", 100, 1, 100)]


def test_a_window_that_came_and_went_between_two_commits_costs_no_read():
    """The overlay is complete: the store is not asked for keys that cannot be there."""

    class Counting(MemoryStore):
        reads = 0

        def get(self, family, key):
            self.reads += 1
            return super().get(family, key)

    store = Counting()
    partition = windowed(Windows(10, 10), "final")(store, lambda *_: None)
    for ts in range(1_000):
        partition.update(f"user-{ts}", ts, 1)
    assert store.reads == 0
