"""Joins of two streams are those of the definition, through evictions, crashes and lost disks."""

from itertools import combinations_with_replacement, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tables.codec import value_codec
from tables.lonely import Mark
from tables.memory import MemoryStore
from tables.reach import Reach, restored
from tables.store import TIMERS
from tables.streamjoin import StreamJoinPartition
from tests.unit.harness import Harness, scripts

LEFT, RIGHT = 0, 1


def joins(reach, how, cache_entries=100_000, release="close"):
    def make(store, _):
        return StreamJoinPartition(
            "j", store, reach=reach, how=how, release=release,
            codecs=(value_codec(), value_codec()), cache_entries=cache_entries,
        )  # fmt: skip

    return make


class JoinHarness(Harness):
    def __init__(self, reach, how, cache_entries=100_000, release="close"):
        self._reach = reach
        super().__init__(joins(reach, how, cache_entries, release))

    def feed(self, event):
        self.emitted += map(tuple, self.partition.step(*event))
        self.done += 1

    def restored(self, changes):
        return restored("j", changes, self._reach)


class Brute:
    """The definition: every record that ever came, compared with every other."""

    def __init__(self, reach, how, release="close"):
        self.reach, self.how = reach, how
        self.mark = None if release == "close" else 1 << 60
        self.time = -1
        self.came = []  # (side, key, ts, value), in the order of arrival
        self.lonely = []  # indexes into it
        self.rows = []

    def comes_out_alone(self, side):
        return self.how == "outer" or (self.how == "left" and side == LEFT)

    def forward(self, side):
        return self.reach.after_ms if side == LEFT else self.reach.before_ms

    def meets(self, left, right):
        before, after = self.reach.before_ms, self.reach.after_ms
        return left[1] == right[1] and left[2] - before <= right[2] <= left[2] + after

    def kept(self, other):
        """The records that the other side still keeps."""
        newest = max((ts for side, _, ts, _ in self.came if side == other), default=0)
        span = self.reach.before_ms + self.reach.after_ms + self.reach.grace_ms
        oldest = newest - max(span, 1) + 1
        return [i for i, (side, _, ts, _) in enumerate(self.came) if side == other and ts >= oldest]

    def alone(self, side, value):
        return (value, None) if side == LEFT else (None, value)

    def order(self, i):
        side, key, ts, _ = self.came[i]
        return ts, side == LEFT, key, i

    def feed(self, side, key, ts, value):
        self.time = max(self.time, ts)
        if value is None:
            return
        if key is None:
            if self.comes_out_alone(side):
                self.rows.append((None, ts, self.alone(side, value)))
            return
        if ts == self.time:
            self.let_out_as_asked(side, ts)
        record = (side, key, ts, value)
        other = 1 - side
        pairs = [
            (self.came[i][2], i)
            for i in self.kept(other)
            if self.meets(*((record, self.came[i]) if side == LEFT else (self.came[i], record)))
        ]
        for other_ts, i in sorted(pairs):
            theirs = self.came[i][3]
            pair = (value, theirs) if side == LEFT else (theirs, value)
            self.rows.append((key, max(ts, other_ts), pair))
            if i in self.lonely:
                self.lonely.remove(i)
        if not pairs and self.comes_out_alone(side):
            self.wait_or_come_out(*record)
        self.came.append(record)

    def wait_or_come_out(self, side, key, ts, value):
        if ts + self.forward(side) < self.time:
            self.rows.append((key, ts, self.alone(side, value)))
            return
        self.lonely.append(len(self.came))
        if self.mark is not None:
            self.mark = min(self.mark, ts)

    def let_out_as_asked(self, side, ts):
        if self.mark is None:
            self.let_out(ts)
        elif self.mark + self.forward(side) + self.reach.grace_ms < ts:
            self.look(ts)

    def let_out(self, now):
        for i in sorted(self.lonely, key=self.order):
            side, key, ts, value = self.came[i]
            if now > ts + self.forward(side) + self.reach.grace_ms:
                self.lonely.remove(i)
                self.rows.append((key, ts, self.alone(side, value)))

    def look(self, now):
        """Do what Kafka Streams does, one lonely record after the other."""
        self.mark, waits = 1 << 60, set()
        for i in sorted(self.lonely, key=self.order):
            side, key, ts, value = self.came[i]
            self.mark = ts
            if len(waits) == 2:
                return
            if now > ts + self.forward(side) + self.reach.grace_ms:
                self.lonely.remove(i)
                self.rows.append((key, ts, self.alone(side, value)))
            else:
                waits.add(side)


reaches = st.builds(
    Reach, st.sampled_from([0, 3, 10]), st.sampled_from([0, 5, 10]), st.sampled_from([0, 4, 30])
)
hows = st.sampled_from(["inner", "left", "outer"])
releases = st.sampled_from(["close", "kafka"])
records = st.lists(
    st.tuples(
        st.sampled_from([LEFT, RIGHT]),
        st.sampled_from([b"a", b"a", b"ab", b"", b"\xff" * 20, None]),
        st.integers(0, 90),
        st.one_of(st.integers(0, 9), st.integers(0, 9), st.none()),
    ),
    max_size=40,
)
steady = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b"]), st.integers(-2, 6)),
                  max_size=60)  # fmt: skip
"""Records that come nearly in order: (side, key, how much later than the one before)."""


@st.composite
def on_edges(draw):
    """A reach, and records on both sides of every bound that it has, often at the same time."""
    reach = draw(reaches)
    before, after, grace = reach.before_ms, reach.after_ms, reach.grace_ms
    spans = {0, before, after, before + after, after + grace, before + grace, reach.kept_ms}
    times = sorted({50 + sign * span + by for span in spans for sign in (-1, 1) for by in (0, 1)})
    side, key = st.sampled_from([LEFT, RIGHT]), st.sampled_from([b"a", b"a", b"b"])
    events = draw(st.lists(st.tuples(side, key, st.sampled_from(times)), max_size=40))
    return reach, [(*event, number) for number, event in enumerate(events)]


def in_time(steps):
    ts = 50
    for number, (side, key, later) in enumerate(steps):
        ts += later
        yield side, key, ts, number


@given(reaches, hows, records, scripts, st.integers(0, 3), releases)
def test_the_definition_holds_whatever_happens_in_between(
    reach, how, events, script, cache, release
):
    brute = Brute(reach, how, release)
    for event in events:
        brute.feed(*event)
    harness = JoinHarness(reach, how, cache, release)
    harness.run(events, script)
    assert harness.emitted == brute.rows


@settings(max_examples=300)
@given(on_edges(), hows, scripts, st.integers(0, 3), releases)
def test_it_holds_on_every_edge(case, how, script, cache, release):
    reach, events = case
    brute = Brute(reach, how, release)
    for event in events:
        brute.feed(*event)
    harness = JoinHarness(reach, how, cache, release)
    harness.run(events, script)
    assert harness.emitted == brute.rows


@given(reaches, hows, steady, scripts, st.integers(0, 3), releases)
def test_it_holds_for_records_that_come_nearly_in_order(reach, how, steps, script, cache, release):
    events = list(in_time(steps))
    brute = Brute(reach, how, release)
    for event in events:
        brute.feed(*event)
    harness = JoinHarness(reach, how, cache, release)
    harness.run(events, script)
    assert harness.emitted == brute.rows


@given(reaches, hows, steady, scripts, st.integers(0, 3))
def test_nothing_is_kept_that_nobody_can_meet(reach, how, steps, script, cache):
    """Beyond a step of time in which it is looked for; nor its timers, once all is over."""
    events = list(in_time(steps))
    harness = JoinHarness(reach, how, cache)
    harness.run(events, script)
    harness.lose_disk()
    far = 50 + 6 * 60 + 20 * reach.kept_ms
    for side in (LEFT, RIGHT, LEFT):  # what was lonely is out by the second, and gone by the third
        harness.feed((side, b"zz", far, 0))
        far += 4 * reach.kept_ms
    harness.commit()
    kept = {(side, key) for side, key, _, _ in harness.partition.items()}
    assert kept <= {("left", b"zz"), ("right", b"zz")}
    assert len(harness.store.scan("j")) <= 4  # with the clock
    assert harness.partition.held() <= 3 * harness.partition.entry_bytes
    harness.partition.close_all()
    harness.commit()
    assert harness.partition.items() == []
    assert [key for key, _ in harness.store.scan("j")] == [b"\xff"]
    assert harness.store.scan(TIMERS) == []


@given(reaches, hows, records, scripts, st.integers(0, 3))
def test_the_end_of_the_input_lets_all_out(reach, how, events, script, cache):
    """And nothing is left: no record, no timer, nothing in the changelog without a tombstone."""
    brute = Brute(reach, how)
    for event in events:
        brute.feed(*event)
    harness = JoinHarness(reach, how, cache)
    harness.run(events, script)
    rest = [tuple(result) for result in harness.partition.close_all()]
    brute.rows.clear()
    brute.let_out(1 << 60)
    assert rest == brute.rows
    assert harness.partition.items() == []
    harness.commit()
    harness.crash()
    assert harness.partition.items() == []
    last = dict(harness.log)
    assert [key for key, raw in last.items() if raw is not None] in ([b"\xff"], [])
    assert harness.store.scan(TIMERS) == []


@pytest.mark.parametrize("release", ["close", "kafka"])
@pytest.mark.parametrize("how", ["inner", "left", "outer"])
def test_a_restart_at_every_record_changes_nothing(how, release):
    reach = Reach(5, 10, 7)
    steps = [(n % 2 if n % 5 else n % 3 % 2, [b"a", b"b", b"c"][n % 3], n * 7 % 11 - 3)
             for n in range(120)]  # fmt: skip
    events = list(in_time(steps))
    brute = Brute(reach, how, release)
    for event in events:
        brute.feed(*event)
    assert len(brute.rows) > 60
    for cache in (0, 100):
        for every in (1, 2, 7):
            harness = JoinHarness(reach, how, cache, release)
            for number, event in enumerate(events):
                harness.feed(event)
                if number % every == 0:
                    harness.commit()
                    harness.lose_disk() if number % 4 == 1 else harness.crash()
            assert harness.emitted == brute.rows


class Looks:
    """The mark of Kafka Streams, by looking at one lonely record after the other."""

    def __init__(self, reach):
        self.reach, self.at, self.lonely = reach, 1 << 62, []

    def look(self, now):
        self.at, waits = 1 << 62, set()
        for side, ts in sorted(self.lonely, key=lambda each: (each[1], each[0] == LEFT)):
            self.at = ts
            if len(waits) == 2:
                return
            if ts + self.reach.forward(side) + self.reach.grace_ms < now:
                self.lonely.remove((side, ts))
            else:
                waits.add(side)


@pytest.mark.parametrize("reach", [Reach(2, 2, 1), Reach(0, 3), Reach(3, 0, 2)], ids=str)
def test_the_mark_is_where_kafka_streams_has_it(reach):
    """All that can wait at four times, three a side at most, and all times to look."""
    waiting = [times for n in range(4) for times in combinations_with_replacement(range(4), n)]
    for lefts, rights, now in product(waiting, waiting, (0, 3, 5, 6, 7)):
        lonely = [(LEFT, ts) for ts in lefts] + [(RIGHT, ts) for ts in rights]
        looks, mark = Looks(reach), Mark(reach, lonely, 0)
        looks.lonely = list(lonely)
        looks.look(now)
        mark.look(now)
        assert (mark.at, *map(list, mark._times)) == (
            looks.at,
            *(sorted(ts for side, ts in looks.lonely if side == each) for each in (LEFT, RIGHT)),
        )


def test_a_record_that_met_somebody_is_no_mark():
    mark = Mark(Reach(2, 2, 1), (), 1 << 62)
    for side, ts in [(LEFT, 5), (LEFT, 3), (RIGHT, 4), (LEFT, 9)]:
        mark.add(side, ts)
    assert mark.at == 3
    assert not mark.is_due(LEFT, 6)
    assert mark.is_due(RIGHT, 7)
    mark.remove(LEFT, 9)
    mark.remove(RIGHT, 4)
    mark.look(7)
    assert [list(times) for times in mark._times] == [[5], []]
    assert mark.at == 5


def test_records_of_one_time_are_told_apart_across_a_restart():
    harness = JoinHarness(Reach(10, 10), "inner")
    harness.feed((LEFT, b"a", 5, "before"))
    harness.commit()
    harness.crash()
    harness.feed((LEFT, b"a", 5, "behind"))
    harness.commit()
    harness.crash()
    harness.feed((RIGHT, b"a", 5, "right"))
    assert [value[0] for _, _, value in harness.emitted] == ["before", "behind"]


def test_a_record_that_is_in_memory_and_in_the_store_is_met_once():
    harness = JoinHarness(Reach(10, 10), "inner", cache_entries=0)
    harness.feed((LEFT, b"a", 5, 0))
    harness.commit()  # out of memory
    harness.feed((LEFT, b"a", 6, 1))
    harness.cut()
    harness.feed((LEFT, b"a", 7, 2))
    harness.land()  # the second is in the store now, and in memory, since the third came
    harness.feed((RIGHT, b"a", 5, "right"))
    assert [value[0] for _, _, value in harness.emitted] == [0, 1, 2]


def test_what_came_and_went_between_two_commits_leaves_no_trace():
    harness = JoinHarness(Reach(1, 1, 0), "outer")
    for ts in range(0, 1000, 10):
        harness.feed((ts // 10 % 2, b"a", ts, "x"))
    harness.commit()
    written = [key for key, _ in harness.log if key != b"\xff"]
    assert len(written) <= 4


def test_a_join_writes_each_record_once_and_deletes_it_once():
    """Coming out alone takes no write of its own."""
    harness = JoinHarness(Reach(10, 10, 0), "left")
    for ts in range(0, 1000, 10):
        harness.feed((LEFT, b"%d" % ts, ts, "x"))
        harness.commit()
    written = [key for key, _ in harness.log if key != b"\xff"]
    assert len(harness.emitted) == 98
    assert max(map(written.count, written)) == 2


class CountingStore(MemoryStore):
    """Counts the entries that are read."""

    def __init__(self):
        super().__init__()
        self.read = 0

    def scan(self, family, start=b"", end=None, limit=None):
        rows = super().scan(family, start, end, limit)
        self.read += len(rows)
        return rows


def test_a_key_with_more_records_than_memory_takes_is_not_read_over_and_over():
    """Its oldest leave; what is met is the end of it."""
    store = CountingStore()
    partition = joins(Reach(5, 5, 10**6), "outer", cache_entries=100)(store, None)
    pairs = 0
    for number in range(3_000):
        pairs += sum(None not in row.value for row in partition.step(number % 2, b"a", number, 0))
        if number % 50 == 49:
            store.write(partition.cut().store)
            partition.committed()
            assert partition.held() <= 100 * partition.entry_bytes
    assert pairs == 2_999 + 2_997 + 2_995  # 1, 3 and 5 apart
    assert store.read < 1_000


@pytest.mark.parametrize("keys", [1, 20])
def test_what_is_not_in_memory_is_dropped_from_the_store(keys):
    reach = Reach(100, 60)
    assert reach.stretch_ms == 20
    harness = JoinHarness(reach, "left", cache_entries=10)
    for ts in range(0, 3_000, 3):
        harness.feed((ts // 3 % 2, b"%d" % (ts % keys), ts, "x"))
        if ts % 5 == 0:
            harness.commit()
            kept = harness.store.scan("j")
            assert len(kept) <= 2 + (reach.kept_ms + 2 * reach.stretch_ms + 20) // 3
    tombstones = [key for key, raw in harness.log if raw is None]
    assert len(tombstones) == len(set(tombstones))


def test_records_of_one_time_may_be_half_in_memory():
    harness = JoinHarness(Reach(10, 10), "inner", cache_entries=4)
    for number in range(9):
        harness.feed((LEFT, b"a", 5, number))
    harness.commit()
    assert 0 < harness.partition.held() < 9 * harness.partition.entry_bytes
    harness.feed((RIGHT, b"a", 5, "right"))
    assert [value[0] for _, _, value in harness.emitted] == list(range(9))


def test_memory_is_bounded_by_what_it_may_take():
    store = MemoryStore()
    partition = joins(Reach(10**6, 10**6, 0), "left", cache_entries=100)(store, None)
    for number in range(2_000):
        partition.step(LEFT, b"%d" % number, number, "x")
        if number % 50 == 0:
            store.write(partition.cut().store)
            partition.committed()
            assert partition.held() <= 200 * partition.entry_bytes
    assert partition.dirty() > 0
    [result] = partition.step(RIGHT, b"3", 2_000, "y")
    assert result.value == ("x", "y")
