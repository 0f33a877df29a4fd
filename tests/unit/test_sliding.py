"""Sliding windows hold what Kafka Streams' definition says, through evictions and crashes."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tables.codec import key_codec
from tables.memory import MemoryStore
from tables.sliding import Sliding, SlidingPartition, restored
from tables.store import TIMERS
from tables.window import Aggregate
from tests.unit.harness import Harness, scripts


def add(total, x):
    total[0] += 1
    total[1] += x
    return total


COUNT_AND_SUM = Aggregate(lambda: [0, 0], add)


def sliding(windows, emission=None, cache_entries=100_000, on_late=None):
    def make(store, emit):
        def copy(key, start, end, value, ts):
            emit(key, start, end, tuple(value), ts)

        return SlidingPartition(
            "w", store, windows=windows, key=key_codec(str), aggregate=COUNT_AND_SUM,
            emission=emission, emit=copy if emission else None, cache_entries=cache_entries,
            on_late=on_late,
        )  # fmt: skip

    return make


def apply(partition, event):
    partition.update(*event)


class SlidingHarness(Harness):
    def restored(self, changes):
        return restored(self.partition.family, changes, self.partition.windows)


class Brute:
    """The definition, over all events that were not dropped: every window, looked at afresh."""

    def __init__(self, size, grace):
        self.size, self.grace = size, grace
        self.time = -1
        self.events = []
        self.over = set()  # windows that have closed, or came about when they would have
        self.updates, self.final, self.late = [], [], 0

    def inside(self, key, start):
        return [e for e in self.events if e[0] == key and start <= e[1] <= start + self.size]

    def row(self, key, start):
        events = self.inside(key, start)
        total = (len(events), sum(x for _, _, x in events))
        return key, start, start + self.size, total, max(ts for _, ts, _ in events)

    def windows(self):
        lefts = {(key, max(0, ts - self.size)) for key, ts, _ in self.events}
        rights = {(key, ts + 1) for key, ts, _ in self.events if self.inside(key, ts + 1)}
        return sorted(lefts | rights, key=lambda at: (at[1], at[0].encode()))

    def closed(self, start):
        return start + self.size < self.time - self.grace

    def feed(self, key, ts, x):
        if x is None:
            return
        self.time = max(self.time, ts)
        if self.closed(ts):
            self.late += 1
            return
        before = set(self.windows())
        self.events.append((key, ts, x))
        for at in self.windows():
            if at not in before and self.closed(at[1]):
                self.over.add(at)
            shown = at not in before or (at[0] == key and at[1] <= ts <= at[1] + self.size)
            if shown and not self.closed(at[1]):
                self.updates.append(self.row(*at))
        for at in self.windows():
            if self.closed(at[1]) and at not in self.over:
                self.over.add(at)
                self.final.append(self.row(*at))

    def items(self):
        rows = [self.row(*at) for at in self.windows() if not self.closed(at[1])]
        return [(key, start, end, list(total)) for key, start, end, total, _ in rows]


shapes = st.sampled_from([(10, 0), (10, 5), (3, 0), (1, 2), (7, 30), (1, 0), (25, 3)])
steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "a", "b", "ab"]),
        st.one_of(st.integers(-3, 6), st.integers(-45, 25)),  # from the latest event so far
        st.one_of(st.integers(0, 3), st.integers(0, 3), st.none()),
    ),
    max_size=30,
)


def timed(steps):
    """Return events of which many lie at the edges of windows, or are just late, or just not."""
    latest, made = 0, []
    for key, step, x in steps:
        made.append((key, max(0, latest + step), x))
        latest = max(latest, latest + step)
    return made


events = steps.map(timed)


@settings(max_examples=300)
@given(shapes, events, scripts, st.sampled_from(["final", "updates"]), st.integers(0, 3))
@example((10, 0), [("a", 0, 0), ("b", 11, 0)], ["feed", "cut", "land"], "final", 0)
@example(
    (10, 5),
    [("a", 5, 1), ("a", 60, 1), ("a", 46, 1), ("a", 51, 1), ("a", 47, 1), ("b", 90, 1)],
    ["feed", "crash", "feed", "cut", "land"],
    "final",
    0,
)
def test_the_definition_holds_whatever_happens_in_between(shape, events, script, emission, cache):
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = SlidingHarness(sliding(Sliding(*shape), emission, cache), apply)
    harness.run(events, script)
    if emission == "final":
        assert harness.emitted == brute.final
    else:  # the order among the rows of one event says nothing
        assert sorted(harness.emitted) == sorted(brute.updates)
    assert harness.partition.items() == brute.items()
    harness.lose_disk()
    assert harness.partition.items() == brute.items()


@given(shapes, events, st.integers(0, 3))
def test_late_events_are_told(shape, events, cache):
    brute, told = Brute(*shape), []
    harness = SlidingHarness(
        sliding(Sliding(*shape), "final", cache, on_late=lambda: told.append(1)), apply
    )
    for event in events:
        brute.feed(*event)
        harness.feed(event)
        assert harness.partition.late == len(told) == brute.late


@given(shapes, events, scripts, st.integers(0, 3), events)
def test_the_end_of_the_input_closes_everything(shape, events, script, cache, after):
    """And what was closed is gone, also from the disk and the changelog; new input starts anew."""
    brute = Brute(*shape)
    for event in events:
        brute.feed(*event)
    harness = SlidingHarness(sliding(Sliding(*shape), "final", cache), apply)
    harness.run(events, script)
    harness.partition.close_all()
    rest = [(key, start, end, tuple(value)) for key, start, end, value in brute.items()]
    assert [row[:4] for row in harness.emitted[len(brute.final) :]] == rest
    harness.commit()
    assert harness.store.scan("w") == harness.store.scan(TIMERS) == []
    assert dict(harness.log) == dict.fromkeys(dict(harness.log))
    anew = Brute(*shape)
    anew.time = brute.time
    for event in after:
        anew.feed(*event)
        harness.feed(event)
    harness.commit()
    assert harness.partition.items() == anew.items()


@given(shapes, events, st.lists(st.integers(0, 240), max_size=5))
def test_time_that_passes_closes_what_is_due_and_nothing_is_kept_for_ever(shape, events, times):
    """Moving stream time on does what an event of another key would have done."""
    brute = Brute(*shape)
    harness = SlidingHarness(sliding(Sliding(*shape), "final"), apply)
    for event in events:
        brute.feed(*event)
        harness.feed(event)
    for time in sorted(times):
        brute.feed("zz", max(time, brute.time), 1)
        harness.partition.advance(max(time, harness.partition.stream_time))
    assert harness.emitted == [row for row in brute.final if row[0] != "zz"]
    harness.partition.advance(10_000)
    harness.commit()
    assert harness.partition.held() == 0
    assert harness.store.scan("w") == harness.store.scan(TIMERS) == []


def test_a_thousand_events_within_a_window_scan_nothing_beyond_it():
    """The store is read once a key, and windows around an event are found by their order."""

    class Counting(MemoryStore):
        reads = 0

        def scan(self, *args, **options):
            self.reads += 1
            return super().scan(*args, **options)

    store = Counting()
    partition = sliding(Sliding(10), "final", cache_entries=0)(store, lambda *_: None)
    opened = store.reads
    for ts in range(1_000):
        partition.update("a", ts, 1)
    assert store.reads == opened
    assert partition.held() < 40 * partition.entry_bytes


def test_the_value_of_a_window_that_ends_now():
    """What ``current()`` shows: all that happened within ``size`` up to a time."""
    partition = sliding(Sliding(10))(MemoryStore(), None)
    for ts in (100, 104):
        partition.update("a", ts, 1)
    seen = {ts: (partition.get("a", ts) or [0])[0] for ts in (99, 100, 104, 109, 114, 115)}
    assert seen == {99: 0, 100: 1, 104: 2, 109: 2, 114: 1, 115: 0}
    assert partition.value("b", 100) == [0, 0]


# --- the boundaries that were observed -----------------------------------------------------------


def emitted(windows, events, emission="final"):
    harness = SlidingHarness(sliding(windows, emission), apply)
    rows = []
    for event in events:
        before = len(harness.emitted)
        harness.feed(event)
        rows.append([(start, value[0]) for _, start, _, value, _ in harness.emitted[before:]])
    return rows


def test_sliding_p_close_boundary():
    """Closed once stream time > end + grace: the window [90, 100] at 106, not at 105."""
    rows = emitted(Sliding(10, 5), [("a", 100, 1), ("b", 105, 1), ("b", 106, 1)])
    assert rows == [[], [], [(90, 1)]]


def test_sliding_p_null_value():
    """Dropped, and stream time stays."""
    rows = emitted(Sliding(10), [("a", 100, 1), ("a", 500, None), ("a", 101, 1)], "updates")
    assert [len(row) for row in rows] == [1, 0, 2]


def test_sliding_p_early():
    """Events below the size share one window."""
    rows = emitted(Sliding(10), [("a", 3, 1), ("a", 5, 1)], "updates")
    assert rows == [[(0, 1)], [(0, 2), (4, 1)]]


def test_a_window_that_has_closed_is_kept_until_no_other_can_be_made_from_it():
    """At 111 an event at 105 is not late, and begins the right window of the one at 100."""
    events = [("a", 100, 1), ("b", 111, 1), ("a", 105, 1), ("b", 112, 1)]
    assert emitted(Sliding(10), events) == [[], [(90, 1)], [], [(101, 1), (101, 1)]]
