"""Timers fire once each, in the order of time, however many there are."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tables.codec import encode_time
from tables.memory import MemoryStore
from tables.store import TIMERS
from tables.timers import NEVER, TimerPartition, Timers

times = st.integers(-20, 200) | st.integers(0, 5)
keys = st.sampled_from([b"", b"a", b"b", b"\x00", b"\xff"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), times, keys),
        st.tuples(st.just("set"), times, keys),
        st.tuples(st.just("set"), times, keys),
        st.tuples(st.just("cancel"), times, keys),
        st.tuples(st.just("cancel the nth"), st.integers(0, 9)),
        st.tuples(st.just("due"), times),
        st.tuples(st.just("pop")),
        st.tuples(st.sampled_from(["cut", "land", "crash"])),
    ),
    max_size=120,
)


class Model:
    """A set, kept as it was at the cut and at the commit."""

    def __init__(self):
        self.alive, self.flying, self.committed = set(), None, set()

    def due(self, now):
        found = sorted(timer for timer in self.alive if timer[0] <= now)
        self.alive -= set(found)
        return [key for _, key in found]

    def next(self):
        return min((time for time, _ in self.alive), default=NEVER)


class Real:
    """Timers on a store, and their cut in flight."""

    def __init__(self, store, chunk):
        self.store, self.chunk, self.flying = store, chunk, None
        self.timers = Timers("a", store, chunk=chunk)

    def crash(self):
        self.flying = None
        self.timers = Timers("a", self.store, chunk=self.chunk)


@given(steps, st.integers(1, 4))
def test_they_are_a_sorted_list(steps, chunk):  # noqa: C901
    """Far more timers than the heap takes, and cuts that have not landed when it is filled."""
    model, store = Model(), MemoryStore()
    beside = {(b"ab\0" + encode_time(5), b""), (b"\0" + encode_time(5), b"")}
    store.write({TIMERS: beside})
    real = Real(store, chunk)
    for what, *arguments in steps:
        if what == "set":
            model.alive.add(tuple(arguments))
            real.timers.set(*arguments)
        elif what == "cancel":
            model.alive.discard(tuple(arguments))
            real.timers.cancel(*arguments)
        elif what == "cancel the nth" and model.alive:
            timer = sorted(model.alive)[arguments[0] % len(model.alive)]
            model.alive.discard(timer)
            real.timers.cancel(*timer)
        elif what == "pop" and model.alive:
            time, key = min(model.alive)
            model.alive.discard((time, key))
            assert real.timers.pop() == encode_time(time) + key
        elif what == "due":
            assert real.timers.due(*arguments) == model.due(*arguments)
        elif what == "cut" and model.flying is None:
            model.flying, real.flying = set(model.alive), real.timers.cut()
        elif what == "land" and model.flying is not None:
            store.write({TIMERS: real.flying})
            real.timers.committed()
            model.committed, model.flying = model.flying, None
        elif what == "crash":
            model.alive, model.flying = set(model.committed), None
            real.crash()
        assert real.timers.next_ms == model.next()
    assert real.timers.due(NEVER - 1) == model.due(NEVER - 1)
    if model.flying is not None:
        store.write({TIMERS: real.flying})
    store.write({TIMERS: real.timers.cut()})
    assert set(store.scan(TIMERS)) == beside  # nothing is left, nobody else's was touched


def test_a_cancelled_timer_does_not_come_back_when_the_heap_is_cut_short():
    timers = Timers("t", MemoryStore(), chunk=2)
    for time in range(4):
        timers.set(time, b"k")
    timers.cancel(1, b"k")
    for time in range(4, 20):
        timers.set(time, b"k")
    assert timers.due(3) == [b"k"] * 3


def test_all_are_what_is_stored_and_what_is_not_yet():
    store = MemoryStore()
    timers = TimerPartition("t", store)
    for time in range(4):
        timers.set(time, b"k")
    store.write(timers.cut().store)
    timers.committed()
    timers.cancel(1, b"k")
    timers.set(9, b"k")
    assert timers.pop() == (0, b"k")
    assert timers.items() == [(2, b"k"), (3, b"k"), (9, b"k")]


def test_a_timer_set_twice_fires_once():
    timers = Timers("t", MemoryStore())
    timers.set(5, b"k")
    timers.set(5, b"k")
    assert timers.due(5) == [b"k"]
    assert timers.due(5) == []


def test_a_timer_that_has_fired_can_be_set_again():
    store = MemoryStore()
    timers = Timers("t", store)
    timers.set(5, b"k")
    store.write({TIMERS: timers.cut()})
    timers.committed()
    assert timers.due(5) == [b"k"]
    timers.set(5, b"k")
    store.write({TIMERS: timers.cut()})
    timers.committed()
    assert Timers("t", store).due(5) == [b"k"]


@pytest.mark.parametrize("count", [100_000])
def test_the_heap_is_bounded_by_default(count):
    timers = Timers("t", MemoryStore())
    for time in range(count):
        timers.set(time * 7919 % count, b"k")
    assert len(timers._heap) <= 40_000
    assert timers.due(count) == [b"k"] * count


def test_one_timer_at_a_time_costs_the_same_however_many_have_fired_since_the_last_cut():
    """An empty heap with nothing more in the store has nothing to be filled from."""

    def cpu_seconds(count):
        timers = Timers("t", MemoryStore())
        began = process_time()
        for time in range(count):
            timers.set(time, b"k")
            assert timers.due(time) == [b"k"]
        return process_time() - began

    few = min(cpu_seconds(1_000) for _ in range(3))
    assert cpu_seconds(8_000) < 30 * few
